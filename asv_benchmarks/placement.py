"""Measure what it costs if gradients lie where their parameters' cache lines are looked for.

The same parameters, and gradients at several distances from them, in one block of memory; the states lie where the
optimizer places them. The distances in turn in one process, one storage after the other; ratios are medians over the
rounds, to the first distance.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import render

import fastopt
from fastopt._bench import measure
from fastopt._bench.storages import STORAGES

PAGE, MIB = 1 << 12, 1 << 20
#: Distances in bytes; 2^24 parameters take 64 MiB.
DISTANCES = {
    "128 MiB and 1.5 pages": 128 * MIB + PAGE * 3 // 2,
    "128 MiB": 128 * MIB,
    "128 MiB and 2 pages": 128 * MIB + 2 * PAGE,
    "64 MiB and 1 page": 64 * MIB + PAGE,
    "65 MiB and 8 pages": 65 * MIB + 8 * PAGE,
    "128 MiB and 1 page (bits 27 and 12: same hash)": 128 * MIB + PAGE,
    "64 MiB and 2 pages (bits 26 and 13: same hash)": 64 * MIB + 2 * PAGE,
    "65 MiB and 10 pages (bits 26 and 13, 20 and 15: same hash)": 65 * MIB + 10 * PAGE,
    "256 MiB (the same lower 28 bits)": 256 * MIB,
    "256 MiB and 1 page": 256 * MIB + PAGE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    storages = ["float32", "float32, bfloat16 states", "float32, int8 states"]
    parser.add_argument("--storages", nargs="+", metavar="STORAGE", default=storages, help="with float32 parameters")
    parser.add_argument("--offset", type=int, default=16, help="of the arrays in a page; NumPy's large ones have 16")
    parser.add_argument("--log2", type=int, default=24, help="of the number of elements")
    parser.add_argument("--seconds", type=float, default=20, help="for each storage")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    given = parser.parse_args()
    nbytes = 4 * 2**given.log2
    memory = np.zeros(max(DISTANCES.values()) + nbytes + 257 * MIB, np.uint8)
    start = -memory.ctypes.data % (256 * MIB) + given.offset  # such that a distance added to it carries nowhere
    params = memory[start : start + nbytes].view(np.float32)
    ms: dict[str, dict[str, float]] = {}
    ratios: dict[str, dict[str, float]] = {}
    for storage in given.storages:
        steps = {}
        for name, distance in DISTANCES.items():
            grads = memory[start + distance : start + distance + nbytes].view(np.float32)
            grads[:] = 1
            optimizer = fastopt.Adam(params, **STORAGES[storage].options)
            optimizer.bind(grads)
            steps[name] = optimizer.step
        taken = measure.times(steps, rounds=1000, seconds=given.seconds)
        first = taken[next(iter(DISTANCES))]
        ms[storage] = {name: statistics.median(times) * 1e3 for name, times in taken.items()}
        ratios[storage] = {name: measure.ratio(times, first) for name, times in taken.items()}
    figures = {"elements": 2**given.log2, "offset": given.offset, "ms": ms, "ratios": ratios}
    print(render.placement(figures))
    if given.json:
        render.write(given.json, **figures)


if __name__ == "__main__":
    main()
