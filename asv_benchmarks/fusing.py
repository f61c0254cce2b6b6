"""Measure what it costs that every operation is rounded by itself (`reproducible=True`), for Adam in every storage.

With `reproducible=False` a product and a sum may be one operation. Both in turn in one process, from the caches by one
thread and from memory by all; ratios are medians over the rounds, of the better of two sets of arrays each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from formats import COPIES, FORMATS, params_and_grads

import fastopt
from fastopt._bench import measure as _measure


def measure(size: int, threads: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return, by storage, how long a step takes (ns an element) and what of that is due to `reproducible`."""
    rng, found = np.random.default_rng(0), {}
    numba.set_num_threads(threads)
    for name, (kind, kwargs) in FORMATS.items():
        functions: dict[tuple[bool, int], Callable[[], object]] = {}
        for copy in range(COPIES):
            for reproducible in (True, False):
                params, grads = params_and_grads(size, rng, kind)
                optimizer = fastopt.Adam(params, **kwargs, reproducible=reproducible)
                optimizer.bind(grads)
                optimizer.step()
                functions[reproducible, copy] = optimizer.step
        taken = _measure.times(functions, rounds=rounds, seconds=seconds / len(FORMATS), turn=2e-3)
        separate, fused = ([min(t) for t in zip(taken[r, 0], taken[r, 1], strict=False)] for r in (True, False))
        found[name] = {"ns": statistics.median(separate) / size * 1e9, "ratio": _measure.ratio(separate, fused)}
    return found


def table(figures: dict[str, Any]) -> str:
    """Return what was measured, as Markdown."""
    (small, large), (one, every) = figures["elements"], figures["threads"]
    lines = [
        f"| Adam | {small:_} elements, {one} thread: ns an element | costs | {large:_}, {every} threads | costs |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, cached in figures["cache"].items():
        cells = [f"{row['ns']:.3f} | {(row['ratio'] - 1) * 100:+.1f} %" for row in (cached, figures["memory"][name])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log2", type=int, nargs=2, default=[14, 25], help="of the elements in cache and in memory")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=160)
    parser.add_argument("--json")
    given = parser.parse_args()
    sizes, threads = [2**n for n in given.log2], [1, fastopt.info()["threads"]]
    half = given.seconds / 2
    cache, memory = (measure(n, t, given.rounds, half) for n, t in zip(sizes, threads, strict=True))
    figures = {"elements": sizes, "threads": threads, "cache": cache, "memory": memory}
    print(table(figures))
    if given.json:
        Path(given.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
