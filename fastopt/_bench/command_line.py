"""The command line."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._api.info import info
from . import article as _article
from . import measure
from .catalog import OPTIMIZERS
from .options import check_room, size

_SHOWN = (1, 10, 100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastopt",
        description="Run the article's four examples, then measure every optimizer on this machine. "
        "'fastopt info' tells what this installation can do; 'fastopt bench' measures Adam beside its baselines: see "
        "'fastopt bench --help'.",
    )
    parser.add_argument("--size", type=size, default=2**24, help="elements per array (default 2^24)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--plot", metavar="FILE", help="write the picture of the runs to an image file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON and nothing else")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if sys.stdout is None:  # closed by the shell
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the process lasts
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack a letter such as µ
    try:
        status = _command(arguments)
        sys.stdout.flush()
    except MemoryError as error:
        print(f"fastopt: not enough memory: {error or 'choose a smaller size'}", file=sys.stderr)
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever reads the output, such as `head`, has seen enough
            print(f"fastopt: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there at the end
        return 1
    return status


def _command(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["bench"]:
        from .cli import main as bench  # the baselines are loaded only here

        return bench(arguments[1:])
    if arguments[:1] == ["info"]:
        argparse.ArgumentParser(prog="fastopt info", description=_TELLS).parse_args(arguments[1:])
        for name, value in info().items():
            print(f"{name:16} {value}")
        return 0
    return _article_and_speed(_parser(), arguments)


_TELLS = "Tell what fastopt runs on here: versions, threads, SIMD, the cache of kernels, CUDA."


def _article_and_speed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    options = parser.parse_args(arguments)
    # A parameter, a gradient and two states, and as many in the copy for NumPy with its temporary arrays.
    check_room(parser, options.size, 10, np.dtype(options.dtype).itemsize)
    runs = {name: _article.computed(name) for name in _article.LISTINGS}
    listed = {name: _article.listed(name) for name in _article.LISTINGS}
    if options.plot is not None:
        try:
            _article.plot(runs, options.plot)
        except (ImportError, OSError, ValueError) as error:
            print(f"fastopt: --plot {options.plot}: {error}", file=sys.stderr)
            return 1
    if not options.json:
        _print_article(runs, listed)
        print(_article.picture(runs) if options.plot is None else f"picture: {options.plot}")
        _print_header(options)
    measured = []
    for name, cls in OPTIMIZERS.items():
        print(f"measuring {name} ...", end="\r", file=sys.stderr, flush=True)
        result = measure.speed(cls, options.size, np.dtype(options.dtype))
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


def _print_speed(result: measure.Speed) -> None:
    print(
        f"{result.optimizer:9} {result.ms:9.3f} {result.gb_per_s:7.1f}  {result.streaming_fraction:12.2f}"
        f"  {result.numpy_ratio:23.1f}",
        flush=True,
    )
