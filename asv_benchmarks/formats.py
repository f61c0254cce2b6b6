"""Measure Adam in fewer bytes beside PyTorch's fused float32 Adam at 2^26 elements; needs the extra `peers`.

All in turn in one process; ratios are medians over the rounds. Parameters and gradients, PyTorch's as ours, lie at
different places of a page, and each optimizer has two sets of arrays and counts with the better one: where arrays lie
makes up to a third of difference here (docs/performance.md). Memory is what the process holds more, from before an
optimizer and its arrays were made to after its second step. The bandwidth is that of a kernel which moves the bytes of
float32 and computes nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import render

import fastopt
from fastopt._bench import measure
from fastopt._bench.storages import STORAGES, Storage, selected, stored

MIXED = STORAGES["float32"]._replace(states={"m": "bfloat16", "v": "int8"})
#: Those that are measured.
CHOSEN = {
    **selected(("float32", "float32, bfloat16 states", "float32, float16 states")),
    MIXED.name: MIXED,
    **selected(
        (
            "float32, int8 states",
            "bfloat16, stochastic, bfloat16 states",
            "split8, bfloat16 states",
            "split8, int8 states",
            "split16, int8 states",
        )
    ),
}
BASELINE = "PyTorch fused, float32"
COPIES = 2


def resident() -> int:
    """Return the bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def params_and_grads(size: int, rng: np.random.Generator, storage: Storage) -> tuple[Any, Any]:
    """Return both, half a page apart, in lines of the cache from the beginning."""
    params = stored(rng.random(size, np.float32), storage.param)
    grads = stored(rng.standard_normal(size, np.float32), storage.grad)
    made = []
    for place, numbers in ((0, params), (2048, grads)):
        buffer = np.empty(numbers.nbytes + 4096, np.uint8)
        start = (place - buffer.ctypes.data) % 4096
        made.append(buffer[start : start + numbers.nbytes].view(numbers.dtype))
        made[-1][:] = numbers
    return made[0], made[1]


def baseline(size: int, rng: np.random.Generator) -> tuple[Callable[[], object], float]:
    import torch

    torch.set_num_threads(fastopt.info()["threads"])
    before = resident()
    params, grads = params_and_grads(size, rng, STORAGES["float32"])
    tensor = torch.from_numpy(params).requires_grad_()
    tensor.grad = torch.from_numpy(grads)
    step = torch.optim.Adam([tensor], fused=True).step
    for _ in range(2):
        step()
    return step, (resident() - before) / size


def ours(size: int, rng: np.random.Generator, storage: Storage) -> tuple[Any, float]:
    before = resident()
    params, grads = params_and_grads(size, rng, storage)
    optimizer = fastopt.Adam(params, **storage.options)
    optimizer.bind(grads)
    for _ in range(2):
        optimizer.step()
    return optimizer, (resident() - before) / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log2", type=int, default=26, help="of the number of elements")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="+", metavar="STORAGE", choices=CHOSEN, default=list(CHOSEN))
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    given = parser.parse_args()
    size, rng = 2**given.log2, np.random.default_rng(0)
    functions: dict[tuple[str, int], Callable[[], object]] = {}
    rows: dict[str, dict[str, float]] = {}
    for copy in range(COPIES):
        for name in (BASELINE, *given.only):
            storage = CHOSEN.get(name, STORAGES["float32"])
            if name == BASELINE:
                functions[name, copy], held = baseline(size, rng)
            else:
                optimizer, held = ours(size, rng, storage)
                functions[name, copy] = optimizer.step
            bytes_ = measure.bytes_of(storage.codecs())
            rows[name] = {"moved": bytes_.moved, "held": held, "theory": bytes_.read}
    streamed, _ = ours(size, rng, STORAGES["float32"])
    functions["streaming", 0] = measure.streaming(streamed)
    functions["streaming", 0]()
    taken = measure.times(functions, rounds=1000, seconds=given.seconds)
    best = {name: min((taken[name, copy] for copy in range(COPIES)), key=statistics.median) for name in rows}
    for name, row in rows.items():
        row |= {"ms": statistics.median(best[name]) * 1e3, "ratio": measure.ratio(best[BASELINE], best[name])}
    streaming = statistics.median(taken["streaming", 0])
    figures = {"elements": size, "gb_per_s": rows[BASELINE]["moved"] * size / streaming / 1e9, "rows": rows}
    print(render.formats(figures))
    if given.json:
        render.write(given.json, **figures)


if __name__ == "__main__":
    main()
