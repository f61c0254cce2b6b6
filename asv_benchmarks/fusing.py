"""Measure what it costs that every operation is rounded by itself (`reproducible=True`), for Adam in every storage.

With `reproducible=False` a product and a sum may be one operation. Both in turn in one process, from the caches by one
thread and from memory by all; ratios are medians over the rounds, of the better of two sets of arrays each.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable

import numba
import numpy as np
import render
from formats import CHOSEN, COPIES, params_and_grads

import fastopt
from fastopt._bench import measure as _measure


def measure(names: Iterable[str], size: int, threads: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return, by storage, how long a step takes (ns an element) and what of that is due to `reproducible`."""
    rng, found = np.random.default_rng(0), {}
    numba.set_num_threads(threads)
    for name in names:
        functions: dict[tuple[bool, int], Callable[[], object]] = {}
        for copy in range(COPIES):
            for reproducible in (True, False):
                params, grads = params_and_grads(size, rng, CHOSEN[name])
                optimizer = fastopt.Adam(params, **CHOSEN[name].options, reproducible=reproducible)
                optimizer.bind(grads)
                optimizer.step()
                functions[reproducible, copy] = optimizer.step
        taken = _measure.times(functions, rounds=rounds, seconds=seconds, turn=2e-3)
        separate, fused = ([min(t) for t in zip(taken[r, 0], taken[r, 1], strict=False)] for r in (True, False))
        found[name] = {"ns": statistics.median(separate) / size * 1e9, "ratio": _measure.ratio(separate, fused)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log2", type=int, nargs=2, default=[14, 25], help="of the elements in cache and in memory")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=160)
    parser.add_argument("--only", nargs="+", metavar="STORAGE", choices=CHOSEN, default=list(CHOSEN))
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    given = parser.parse_args()
    sizes, threads = [2**n for n in given.log2], [1, fastopt.info()["threads"]]
    each = given.seconds / 2 / len(given.only)
    cache, memory = (measure(given.only, n, t, given.rounds, each) for n, t in zip(sizes, threads, strict=True))
    figures = {"elements": sizes, "threads": threads, "cache": cache, "memory": memory}
    print(render.fusing(figures))
    if given.json:
        render.write(given.json, **figures)


if __name__ == "__main__":
    main()
