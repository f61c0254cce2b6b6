"""Measure the promises about speed that the README makes; needs the `peers` extra.

Everything that is compared is run in turn in one process, and the median taken. The machine's memory may be
twice as fast a minute later, so only the ratios mean something.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

import fastopt
from fastopt._bench import measure as _measure

RNG = np.random.default_rng(0)


def torch_fused(arrays: list[np.ndarray], grads: list[np.ndarray]) -> Callable[[], object]:
    """Return a step of PyTorch's fused Adam on copies of the arrays, in PyTorch's own memory."""
    params = [torch.from_numpy(a).clone().requires_grad_() for a in arrays]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g).clone()
    return torch.optim.Adam(params, fused=True).step


def random(*shape: int) -> np.ndarray:
    return RNG.random(shape, dtype=np.float32)


def report(what: str, promise: float, value: float, detail: str, *, at_most: bool = False) -> bool:
    kept = value <= promise if at_most else value >= promise
    relation = "<=" if at_most else ">="
    print(
        f"{what:58} {value:8.2f} {relation} {promise:5.2f}  {'ok  ' if kept else 'MISS'}  {detail}",
        flush=True,
    )
    return kept


def against_torch() -> list[bool]:
    kept = []
    for log2, promise, rounds in ((25, 1.0, 25), (20, 1.5, 200), (12, 3.0, 3000)):
        p, g = random(2**log2), random(2**log2)
        opt = fastopt.Adam(p)
        opt.bind(g)
        functions = {
            "torch": torch_fused([p], [g]),
            "step": lambda opt=opt, g=g: opt.step(g),
            "stream": _measure.streaming(opt),
        }
        t = measure(functions, rounds)
        detail = ", ".join(f"{k} {v * 1e6:.1f} µs" for k, v in t.items())
        kept.append(report(f"2^{log2} float32 Adam: PyTorch fused / step", promise, t["torch"] / t["step"], detail))
        if log2 == 25:
            kept.append(report("2^25 float32 Adam: streaming / step", 0.97, t["stream"] / t["step"], detail))
    return kept


def measure(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for function in functions.values():
        function()
        function()
    return _measure.medians(functions, rounds, 60)


def many_tensors() -> list[bool]:
    params = [random(64) for _ in range(1000)]
    grads, others = ([random(64) for _ in range(1000)] for _ in range(2))
    opt, bound = fastopt.Adam(params), fastopt.Adam([p.copy() for p in params])
    bound.bind([g.copy() for g in grads])
    turn = [grads, others]

    def unbound() -> None:
        turn.reverse()
        opt.step(turn[0])

    t = measure({"torch": torch_fused(params, grads), "unbound": unbound, "bound": bound.step}, 100)
    detail = ", ".join(f"{k} {v * 1e6:.1f} µs" for k, v in t.items())
    return [
        report("1000 x 64 Adam: PyTorch fused / bound step", 50, t["torch"] / t["bound"], detail),
        report("1000 x 64 Adam: PyTorch fused / step of new gradients", 10, t["torch"] / t["unbound"], detail),
    ]


def one_small() -> list[bool]:
    p, g = random(64), random(64)
    opt = fastopt.Adam(p)
    q, (m, v) = p.copy(), np.zeros((2, 64), np.float32)
    functions = {
        "torch": torch_fused([p], [g]),
        "step": lambda: opt.step(g),
        "function": lambda: fastopt.adam(q, g, m, v, step=1),
    }
    t = measure(functions, 5000)
    detail = ", ".join(f"{k} {v * 1e6:.1f} µs" for k, v in t.items())
    return [
        report("64 elements Adam: PyTorch fused / step", 3, t["torch"] / t["step"], detail),
        report("64 elements Adam: PyTorch fused / function", 3, t["torch"] / t["function"], detail),
    ]


def growth() -> list[bool]:
    """Sizes in turn, so that a change of the machine's speed meets all of them."""
    functions = {}
    for log2 in range(22, 28):
        opt = fastopt.Adam(random(2**log2))
        opt.bind(random(2**log2))
        functions[log2] = opt.step
    t = measure(functions, 15)
    per_element = {log2: seconds / 2**log2 * 1e9 for log2, seconds in t.items()}
    detail = ", ".join(f"2^{k} {v:.3f}" for k, v in per_element.items())
    ratio = max(per_element.values()) / min(per_element.values())
    return [report("2^22 to 2^27 float32 Adam: slowest / fastest element", 1.3, ratio, f"ns: {detail}", at_most=True)]


def start() -> list[bool]:
    step = "import numpy as np, fastopt; p, g = np.ones((2, 64), np.float32); fastopt.Adam(p).step(g)"
    times: dict[str, list[float]] = {"import numba": [], step: []}
    for code in times:
        subprocess.run([sys.executable, "-c", code], check=True)
    for _ in range(11):
        for code, taken in times.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken.append(time.perf_counter() - begin)
    numba, ours = (statistics.median(taken) for taken in times.values())
    detail = f"import numba {numba:.3f} s, fastopt {ours:.3f} s"
    return [report("a process: import and one Adam step / import numba", 2, ours / numba, detail, at_most=True)]


if __name__ == "__main__":
    torch.set_num_threads(fastopt.info()["threads"])
    results = [*against_torch(), *many_tensors(), *one_small(), *growth(), *start()]
    print(f"{sum(results)} of {len(results)} kept")
    sys.exit(not all(results))
