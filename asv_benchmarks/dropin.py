"""Measure fastopt.torch.AdamW beside PyTorch's AdamW: fused, foreach, and compiled by Inductor.

All contenders update the same parameters with the same gradients, float32 on the CPU, with the same number of threads;
each has states of its own. Each of the others takes turns with ours, in one process, in another order in each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import render
import torch

import fastopt.torch
from fastopt._bench import measure
from fastopt._bench.run import models

OPTIONS = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}
OURS = "fastopt.torch"
CASES: dict[str, list[list[int]]] = {**models(), "1000 tensors of 64": [[64]] * 1000, "one tensor of 64": [[64]]}


#: Of more tensors Inductor makes code for many minutes.
_MOST_COMPILED = 200


def compiled(params: list[torch.Tensor]) -> Callable[[], object]:
    """Return a step that Inductor compiled, at its first call."""
    # As a number, a learning rate would be a constant of the code.
    opt = torch.optim.AdamW(params, **(OPTIONS | {"lr": torch.tensor(OPTIONS["lr"])}))
    return torch.compile(opt.step)


def contenders(params: list[torch.Tensor], *, inductor: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what takes a step, by name."""
    yield OURS, fastopt.torch.AdamW(params, **OPTIONS).step
    yield "fused", torch.optim.AdamW(params, **OPTIONS, fused=True).step
    yield "foreach", torch.optim.AdamW(params, **OPTIONS, foreach=True).step
    if inductor and len(params) <= _MOST_COMPILED:
        yield "compiled", compiled(params)


def measured(shapes: list[list[int]], *, seconds: float, inductor: bool) -> dict[str, Any]:
    """Return the times of a step, and how many times as long as ours the others take."""
    draw = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=draw) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=draw)
    functions = dict(contenders(params, inductor=inductor))
    first = {}
    for name, function in functions.items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Inductor says what it thinks of this machine
            for _ in range(3):  # a compiler may look again at what has changed after the first
                function()
        first[name] = time.perf_counter() - start
    medians, ratios = {}, {}
    for name in list(functions)[1:]:
        both = {own: functions[own] for own in (OURS, name)}
        taken = measure.times(both, rounds=1000, seconds=seconds / (len(functions) - 1), turn=1e-3)
        ratios[name] = measure.ratio(taken[name], taken[OURS])
        for own in both:
            medians.setdefault(own, statistics.median(taken[own]))  # ours in the first of them
    return {"tensors": len(params), "seconds": medians, "times_as_long": ratios, "first_steps": first}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--seconds", type=float, default=30.0, help="for each case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-inductor", action="store_true", help="compile nothing, which takes minutes")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    given = parser.parse_args()
    if given.threads > numba.config.NUMBA_NUM_THREADS:
        print(f"Numba has {numba.config.NUMBA_NUM_THREADS} threads, got --threads {given.threads}", file=sys.stderr)
        return 2
    torch.set_num_threads(given.threads)
    numba.set_num_threads(given.threads)
    rows = {}
    for name in given.only:
        rows[name] = measured(CASES[name], seconds=given.seconds, inductor=not given.no_inductor)
        print(f"{name}: {rows[name]['seconds'][OURS] * 1e3:.3g} ms", file=sys.stderr)
    figures = {"threads": given.threads, "cores": os.cpu_count(), "torch": torch.__version__, "numpy": np.__version__}
    print(render.dropin(figures | {"rows": rows}))
    if given.json:
        render.write(given.json, **figures, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
