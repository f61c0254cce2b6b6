"""Measure Adam in fewer bytes beside PyTorch's fused float32 Adam at 2^26 elements; needs the extra `peers`.

All in turn in one process; ratios are medians over the rounds. Parameters and gradients, PyTorch's as ours, lie at
different places of a page, and each optimizer has two sets of arrays and counts with the better one: where arrays lie
makes up to a third of difference here (docs/performance.md). Memory is what the process holds more, from before an
optimizer and its arrays were made to after its second step.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

import fastopt
from fastopt._bench import measure

# The dtype of parameters and gradients, and what is given to Adam.
FORMATS: dict[str, tuple[Any, dict[str, Any]]] = {
    "float32": (np.float32, {}),
    '`state_dtype="bfloat16"`': (np.float32, {"state_dtype": "bfloat16"}),
    '`state_dtype="float16"`': (np.float32, {"state_dtype": "float16"}),
    '`state_dtype={"m": "bfloat16", "v": "int8"}`': (np.float32, {"state_dtype": {"m": "bfloat16", "v": "int8"}}),
    '`state_dtype="int8"`': (np.float32, {"state_dtype": "int8"}),
    'bfloat16, `rounding="stochastic"`, bfloat16 states': (
        ml_dtypes.bfloat16,
        {"rounding": "stochastic", "state_dtype": "bfloat16"},
    ),
    'bfloat16, `master="split8"`, bfloat16 states': (
        ml_dtypes.bfloat16,
        {"master": "split8", "state_dtype": "bfloat16"},
    ),
    'bfloat16, `master="split8"`, int8 states': (ml_dtypes.bfloat16, {"master": "split8", "state_dtype": "int8"}),
    'bfloat16, `master="split16"`, int8 states': (ml_dtypes.bfloat16, {"master": "split16", "state_dtype": "int8"}),
}
BASELINE = "PyTorch fused, float32"
COPIES = 2


def resident() -> int:
    """Return the bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def params_and_grads(size: int, rng: np.random.Generator, kind: Any) -> tuple[Any, Any]:
    """Return both, half a page apart, in lines of the cache from the beginning."""
    made = []
    for place, numbers in ((0, rng.random(size, np.float32)), (2048, rng.standard_normal(size, np.float32))):
        buffer = np.empty(size * np.dtype(kind).itemsize + 4096, np.uint8)
        start = (place - buffer.ctypes.data) % 4096
        made.append(buffer[start : start + buffer.size - 4096].view(kind))
        made[-1][:] = numbers
    return made[0], made[1]


def baseline(size: int, rng: np.random.Generator) -> tuple[Callable[[], object], float]:
    before = resident()
    params, grads = params_and_grads(size, rng, np.float32)
    tensor = torch.from_numpy(params).requires_grad_()
    tensor.grad = torch.from_numpy(grads)
    step = torch.optim.Adam([tensor], fused=True).step
    for _ in range(2):
        step()
    return step, (resident() - before) / size


def ours(size: int, rng: np.random.Generator, kind: Any, kwargs: dict[str, Any]) -> tuple[Any, float, float]:
    before = resident()
    params, grads = params_and_grads(size, rng, kind)
    optimizer = fastopt.Adam(params, **kwargs)
    optimizer.bind(grads)
    for _ in range(2):
        optimizer.step()
    held = (resident() - before) / size
    states = sum(a.nbytes for row in optimizer._states.values() for a in row if a is not None)
    return optimizer, held, (3 * params.nbytes + 2 * states) / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log2", type=int, default=26, help="of the number of elements")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json")
    given = parser.parse_args()
    size, rng = 2**given.log2, np.random.default_rng(0)
    torch.set_num_threads(fastopt.info()["threads"])
    functions: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict[str, float]] = {}
    for copy in range(COPIES):
        functions[f"{BASELINE} {copy}"], held = baseline(size, rng)
        rows[BASELINE] = {"moved": 28, "held": held, "theory": 16}
        for name, (kind, kwargs) in FORMATS.items():
            optimizer, held, moved = ours(size, rng, kind, kwargs)
            own = np.dtype(kind).itemsize
            rows[name] = {"moved": moved, "held": held, "theory": own + (moved - own) / 2}
            functions[f"{name} {copy}"] = optimizer.step
    every = measure.times(functions, rounds=1000, seconds=given.seconds)
    taken = {}
    for name in rows:
        copies = (every[f"{name} {copy}"] for copy in range(COPIES))
        taken[name] = min(copies, key=statistics.median)
    print("| Adam | bytes moved | held (theory) | ms | PyTorch fused / this |")
    print("|---|---:|---:|---:|---:|")
    for name, row in rows.items():
        row |= {"ms": statistics.median(taken[name]) * 1e3, "ratio": measure.ratio(taken[BASELINE], taken[name])}
        memory = f"{row['held']:.2f} ({row['theory']:.2f})"
        print(f"| {name} | {row['moved']:.2f} | {memory} | {row['ms']:.1f} | {row['ratio']:.2f} |")
    if given.json:
        Path(given.json).write_text(json.dumps({"elements": size, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
