"""Measure Adam with states in fewer bytes beside PyTorch's fused float32 Adam at 2^26 elements; needs extra `peers`.

All in turn in one process; ratios are medians over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch

import fastopt
from fastopt import _measure

SIZE = 2**26
FORMATS = [None, "bfloat16", "float16", {"m": "bfloat16"}]


def main() -> None:
    torch.set_num_threads(fastopt.info()["threads"])
    rng = np.random.default_rng(0)
    p, g = rng.random(SIZE, np.float32), rng.random(SIZE, np.float32) + np.float32(0.5)
    tensor = torch.from_numpy(p).clone().requires_grad_()
    tensor.grad = torch.from_numpy(g).clone()
    functions: dict[str, Callable[[], object]] = {"PyTorch fused": torch.optim.Adam([tensor], fused=True).step}
    moved = {"PyTorch fused": 28}
    for name in FORMATS:
        opt = fastopt.Adam(p.copy(), state_dtype=name)
        opt.bind(g.copy())
        opt.step()
        functions[str(name)] = opt.step
        moved[str(name)] = 12 + 2 * sum(a.itemsize for a in opt.state.values())
        functions[f"streaming {name}"] = stream = _measure.stream(opt._groups[0])
        stream()
    taken = _measure.times(functions, rounds=1000, seconds=40)
    print("| state_dtype | bytes an element | ms | of streaming | PyTorch fused / this |\n|---|---:|---:|---:|---:|")
    for name, size in moved.items():
        streaming = taken.get(f"streaming {name}")
        fraction = f"{_measure.ratio(streaming, taken[name]):.2f}" if streaming else ""
        ratio = _measure.ratio(taken["PyTorch fused"], taken[name])
        print(f"| {name} | {size} | {statistics.median(taken[name]) * 1e3:.1f} | {fraction} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
