"""Measure what it costs if gradients lie where their parameters' cache lines are looked for.

The same parameters, and gradients at several distances from them, in one block of memory; the states lie where the
optimizer places them. Measured in turn in one process; ratios are medians over the rounds, to the first distance.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

import fastopt
from fastopt._bench import measure

SIZE = 2**24
PAGE, MIB = 1 << 12, 1 << 20
#: Distances in bytes; the parameters take 64 MiB.
DISTANCES = {
    "128 MiB and 1.5 pages": 128 * MIB + PAGE * 3 // 2,
    "128 MiB": 128 * MIB,
    "128 MiB and 1 page": 128 * MIB + PAGE,
    "128 MiB and 2 pages": 128 * MIB + 2 * PAGE,
    "64 MiB and 1 page": 64 * MIB + PAGE,
    "64 MiB and 2 pages": 64 * MIB + 2 * PAGE,
    "65 MiB and 8 pages": 65 * MIB + 8 * PAGE,
    "65 MiB and 10 pages": 65 * MIB + 10 * PAGE,
    "256 MiB": 256 * MIB,
    "256 MiB and 1 page": 256 * MIB + PAGE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state-dtype", help="of Adam")
    parser.add_argument("--offset", type=int, default=16, help="of the arrays in a page; NumPy's large ones have 16")
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    memory = np.zeros(max(DISTANCES.values()) + 4 * SIZE + 257 * MIB, np.uint8)
    start = -memory.ctypes.data % (256 * MIB) + given.offset  # such that a distance added to it carries nowhere
    params = memory[start : start + 4 * SIZE].view(np.float32)
    steps = {}
    for name, distance in DISTANCES.items():
        grads = memory[start + distance : start + distance + 4 * SIZE].view(np.float32)
        grads[:] = 1
        optimizer = fastopt.Adam(params, state_dtype=given.state_dtype)
        optimizer.bind(grads)
        steps[name] = optimizer.step
    taken = measure.times(steps, rounds=1000, seconds=given.seconds)
    print("| from parameters to gradients | ms | ratio |")
    print("|---|---:|---:|")
    first = taken[next(iter(DISTANCES))]
    for name, times in taken.items():
        print(f"| {name} | {statistics.median(times) * 1e3:.2f} | {measure.ratio(times, first):.2f} |")


if __name__ == "__main__":
    main()
