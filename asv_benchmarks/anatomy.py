"""Measure where the time of a float32 Adam step goes, at 64, 2^16 and 2^25 elements; for docs/performance.md.

``python asv_benchmarks/anatomy.py [--sizes N ...] [--seconds S] [--json FILE]``
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import render

import fastopt
from fastopt._arrays import headers
from fastopt._bench import measure
from fastopt._bench.options import size
from fastopt._kernels import compiler


def parts(elements: int, seconds: float) -> dict[str, float]:
    """Return the median time in microseconds of a step and of its parts, all measured in turn."""
    p, g = np.ones(elements, np.float32), np.ones(elements, np.float32)
    opt, bound = fastopt.Adam(p), fastopt.Adam(p.copy())
    opt.step(g)
    bound.bind(g.copy())
    bound.step()
    (group,), plan = bound._groups, bound._plan
    rows = (bound.values(1),)
    kernels, arguments = group.launch(1)
    kernel = kernels.in_parallel if kernels.large and fastopt.info()["threads"] > 1 else kernels.serial
    nothing = (arguments[0], np.zeros(1, np.int64), group.chunks[:0], *arguments[3:])  # a launch without a chunk
    check, given = compiler.gather(), [g]
    looked = (*opt._plan.arrays._arguments, 0, id(given))
    assert check(*looked) == headers.SAME
    functions = {
        "step(grads)": lambda: opt.step(g),
        "step(), bound": bound.step,
        "gradients: structure, check": lambda: opt._plan.gather(opt._structure.unpack("grads", g)),
        "… of which the compiled check": lambda: check(*looked),
        "scalars: bias corrections, decay": lambda: bound.values(1),
        "scalars into the kernel's dtype": lambda: group.prepare((bound,), rows, None),
        "launch: table, threads, kernel": lambda: plan.run(1),
        "… of which the kernel": lambda: kernel(*arguments),
        "… of which a kernel without elements": lambda: kernel(*nothing),
        "the same bytes, nothing computed": measure.streaming(bound),
    }
    for function in functions.values():
        function()  # compile
    taken = measure.times(functions, rounds=300, seconds=seconds, turn=1e-3)
    return {name: statistics.median(times) * 1e6 for name, times in taken.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure where the time of a float32 Adam step goes.")
    parser.add_argument("--sizes", nargs="+", type=size, default=[64, 2**16, 2**25], help="elements")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to measure each size")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    options = parser.parse_args()
    columns = [parts(elements, options.seconds) for elements in options.sizes]
    figures = {"elements": options.sizes, "us": {name: [column[name] for column in columns] for name in columns[0]}}
    print(render.anatomy(figures))
    if options.json:
        render.write(options.json, **figures)
