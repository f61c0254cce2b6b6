"""The command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _article, _measure
from ._info import info
from ._optimizer import registry

_SHOWN = (1, 10, 100)


def size(text: str) -> int:
    """Return the number that `text` stands for: 1000, 2^24 or 2**24."""
    base, power, exponent = text.replace("**", "^").partition("^")
    try:
        number = int(base) ** int(exponent) if power else int(base)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number such as 1000000 or 2^24, got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text!r}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastopt",
        description="Run the article's four examples, then measure every optimizer on this machine. "
        "'fastopt bench' measures Adam beside its rivals; see 'fastopt bench --help'.",
    )
    parser.add_argument("--size", type=size, default=2**24, help="elements per array (default 2^24)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--plot", metavar="FILE", help="write the picture of the runs to an image file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON and nothing else")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["bench"]:
        from ._bench.cli import main as bench  # the rivals are loaded only here

        return bench(arguments[1:])
    options = _parser().parse_args(arguments)
    runs = {name: _article.computed(name) for name in _article.LISTINGS}
    listed = {name: _article.listed(name) for name in _article.LISTINGS}
    if options.plot:
        try:
            _article.plot(runs, options.plot)
        except (ImportError, OSError, ValueError) as error:
            print(f"fastopt: --plot {options.plot}: {error}", file=sys.stderr)
            return 1
    if not options.json:
        _print_article(runs, listed)
        print(_article.picture(runs) if not options.plot else f"picture: {options.plot}")
        _print_header(options)
    measured = []
    for name, cls in registry.items():
        print(f"measuring {name} ...", end="\r", file=sys.stderr, flush=True)
        result = _measure.speed(cls, options.size, np.dtype(options.dtype))
        measured.append(result._asdict())
        if not options.json:
            _print_speed(result)
    if options.json:
        article: dict[str, Any] = {name: {"fastopt": runs[name], "listing": listed[name]} for name in runs}
        json.dump({"info": info(), "article": article, "speed": measured}, sys.stdout, indent=1)
        print()
    return 0


def _print_article(runs: dict[str, list[float]], listed: dict[str, list[float]]) -> None:
    print("f(theta) = (theta - 3)^2 from theta = 0, lr = 0.1: theta after n iterations\n")
    print(f"{'':9} {'n':>4} {'fastopt':>20} {'article':>20}  {'difference':>10}")
    for name in runs:
        for n in _SHOWN:
            ours, theirs = runs[name][n - 1], listed[name][n - 1]
            print(f"{name:9} {n:4} {ours:20.16f} {theirs:20.16f}  {abs(ours - theirs):10.1e}")
    print()


def _print_header(options: Any) -> None:
    print(f"\none step on {options.size:_} {options.dtype} elements, {info()['threads']} threads\n")
    print(f"{'':9} {'ms':>9} {'GB/s':>7}  {'of streaming':>12}  {'times faster than NumPy':>23}")


def _print_speed(result: _measure.Speed) -> None:
    print(
        f"{result.optimizer:9} {result.ms:9.3f} {result.gb_per_s:7.1f}  {result.streaming_fraction:12.2f}"
        f"  {result.numpy_ratio:23.1f}",
        flush=True,
    )
