"""The command line of ``fastopt bench``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .._api.optimizer import Optimizer
from .._engine import threads as _threads
from . import device, gpu, run
from .gpu import PEERS as GPU_PEERS
from .options import check_room, size
from .peers import PEERS

T = TypeVar("T")

SIZES = [2**k for k in (0, 6, 10, 12, 14, 16, 18, 20, 22, 24, 26, 27)]

GPU_SIZES = [2**k for k in range(10, 29, 2)]


def _number(text: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def _positive(text: str) -> float:
    number = _number(text, float)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text!r}")
    return number


def _threads_of(text: str) -> int:
    number, most = _number(text, int), _threads.budget()
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"must be from 1 to {most}, which is what is allowed here, got {text!r}")
    return number


def _optimizer(text: str) -> type[Any]:
    """Return the class that "module:name" names."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise argparse.ArgumentTypeError(f"must be module:class, got {text!r}")
    sys.path.insert(0, "")  # where the command is called, as with `python -m`
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"must be module:class, got {text!r}: {error}") from None
    finally:
        del sys.path[0]
    if not (isinstance(found, type) and issubclass(found, Optimizer) and hasattr(found, "rule")):
        raise argparse.ArgumentTypeError(f"must name an optimizer with a rule, got {text!r}, {found!r}")
    return found


def _earlier(file: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures written before, if there is something in them to compare with."""
    from . import report

    try:
        figures: dict[str, Any] = json.loads(Path(file).read_text())
        cases = {case for case, row in report.by_case(figures).items() if report.comparable(row)}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} holds no figures of `fastopt bench --json`: {error!r}") from None
    wanted = {f"{count:_}" for count in options.sizes} | set(options.models)
    if not cases & wanted:
        raise ValueError(f"{file} has none of the cases to be measured, beside streaming: it has {sorted(cases)}")
    return figures


def _check_writable(file: str) -> None:
    if not os.access(Path(file).parent, os.W_OK) or Path(file).is_dir():
        raise OSError(f"{file} cannot be written")


def _check_names(parser: argparse.ArgumentParser, options: argparse.Namespace, machine: run.Machine) -> None:
    """Exit with a message if an argument is for another device than the one that is measured."""
    strange = [name for name in options.only or () if name not in machine.peers]
    if strange:
        parser.error(f"--only {', '.join(strange)}: not on --device {machine.device}, whose are {[*machine.peers]}")
    if options.threads is not None and machine.device == "cuda":
        parser.error("--threads is for --device cpu")


def _check_gpu_room(parser: argparse.ArgumentParser, elements: int) -> None:
    needed, there = gpu.least(elements), device.room()
    if needed > there:
        parser.error(
            f"{elements:_} elements take {needed / 2**30:_.1f} GiB of the GPU's memory; {there / 2**30:.1f} are free"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastopt bench",
        description="Measure float32 Adam beside its baselines, on one array of each size and on the tensors of real "
        "models, in turn, and check every baseline against the exact equation.",
    )
    every = dict.fromkeys([*PEERS, *GPU_PEERS])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where (default cpu)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=every, help=f"some of: {', '.join(every)}")
    parser.add_argument(
        "--sizes", nargs="*", type=size, help="elements (default 1 to 2^27, with --device cuda 2^10 to 2^28)"
    )
    parser.add_argument("--models", nargs="*", metavar="NAME", choices=run.models(), default=list(run.models()))
    parser.add_argument("--roofline", type=size, default=2**26, help="elements for all optimizers (default 2^26)")
    parser.add_argument(
        "--optimizers", nargs="+", metavar="MODULE:CLASS", type=_optimizer, default=[], help="classes of your own, too"
    )
    parser.add_argument("--threads", type=_threads_of, help="for everybody (default: all that are allowed)")
    parser.add_argument("--seconds", type=_positive, default=4.0, help="how long to measure each case (default 4)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--plot", metavar="FILE", help="draw them (an image file)")
    parser.add_argument("--compare", metavar="OLD.json", help="compare with figures written before")
    parser.add_argument("--factor", type=_positive, default=1.25, help="how much slower is too slow (default 1.25)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 1 if a baseline is wrong or, with --compare, fastopt slower."""
    parser = _parser()
    options = parser.parse_args(arguments)
    on_gpu = options.device == "cuda"
    if options.sizes is None:
        options.sizes = GPU_SIZES if on_gpu else SIZES
    if on_gpu and (reason := device.missing()):
        print(f"fastopt bench --device cuda: {reason}", file=sys.stderr)
        return 2
    machine = gpu.MACHINE if on_gpu else run.CPU
    _check_names(parser, options, machine)
    try:
        from . import report
    except ImportError as error:
        print(f"fastopt bench needs {error.name}: pip install 'fastopt[bench]'", file=sys.stderr)
        return 1
    try:
        old = _earlier(options.compare, options) if options.compare else None
        for file in (options.json, options.plot):
            if file is not None:
                _check_writable(file)
        if options.plot is not None:
            report.check_format(options.plot)
    except (OSError, ValueError) as error:
        parser.error(str(error))  # now, not after minutes of measuring
    # fastopt twice and streaming, each with a parameter, a gradient and two states, beside what all begin with.
    check_room(parser, max(options.sizes, default=1), 14, 4)
    check_room(parser, options.roofline, 4, 4)
    if on_gpu:
        _check_gpu_room(parser, max([*options.sizes, options.roofline]))
    peers = list(dict.fromkeys([*run.OWN, *(options.only or machine.peers)]))
    cases = [(f"{count:_}", [[count]]) for count in options.sizes]
    cases += [(name, run.models()[name]) for name in options.models]
    threads = run.set_threads(options.threads)
    if not on_gpu:
        run.warm()
    roofline = gpu.roofline if on_gpu else run.roofline
    absent: dict[str, str] = {}
    rows: list[run.Row] = []
    for case, shapes in report.progress(cases):
        rows += run.compare(case, shapes, peers, options.seconds, absent, machine)
    result = {
        "machine": run.header(threads) | {"device": options.device},
        "absent": absent,
        "rows": [row._asdict() for row in rows],
        "roofline": [speed._asdict() for speed in roofline(options.roofline, options.optimizers)],
    }
    if options.json:  # before anything is printed, which may fail
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        report.plot(result, options.plot)
    report.table(result)
    wrong = [row for row in rows if not row.right]
    slower = report.comparison(result, old, options.factor) if old else []
    return int(bool(wrong or slower))
