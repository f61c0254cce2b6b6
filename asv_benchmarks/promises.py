"""Measure the promises about speed that the README makes; needs the `peers` extra.

Everything that is compared is run in turn in one process, and the median taken. The machine's memory may be
twice as fast a minute later, so only the ratios mean something.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import render
import torch

import fastopt
from fastopt._bench import measure as _measure
from fastopt._bench import run as _run

RNG = np.random.default_rng(0)
Promise = dict[str, Any]


def torch_fused(arrays: list[np.ndarray], grads: list[np.ndarray]) -> Callable[[], object]:
    """Return a step of PyTorch's fused Adam on copies of the arrays, in PyTorch's own memory."""
    params = [torch.from_numpy(a).clone().requires_grad_() for a in arrays]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g).clone()
    return torch.optim.Adam(params, fused=True).step


def random(*shape: int) -> np.ndarray:
    return RNG.random(shape, dtype=np.float32)


def promise(
    what: str, value: float, seconds: dict[str, float], *, at_least: float | None = None, at_most: float | None = None
) -> Promise:
    """Return what was promised, a ratio, and the times that it is of; say so."""
    kept = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    bound = f">= {at_least:5.2f}" if at_most is None else f"<= {at_most:5.2f}"
    detail = ", ".join(f"{name} {taken * 1e6:.1f} µs" for name, taken in seconds.items())
    print(f"{what:58} {value:8.2f} {bound}  {'ok  ' if kept else 'MISS'}  {detail}", flush=True)
    return {"what": what, "at_least": at_least, "at_most": at_most, "value": value, "kept": kept, "seconds": seconds}


def measured(given: argparse.Namespace, functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for function in functions.values():
        function()
        function()
    return _measure.medians(functions, rounds, given.seconds)


def against_torch(given: argparse.Namespace) -> Iterator[Promise]:
    for log2, least, rounds in ((25, 1.0, 25), (20, 1.5, 200), (12, 3.0, 3000)):
        size = 2**log2 >> given.smaller
        p, g = random(size), random(size)
        opt = fastopt.Adam(p)
        opt.bind(g)
        functions = {
            "torch": torch_fused([p], [g]),
            "step": lambda opt=opt, g=g: opt.step(g),
            "stream": _measure.streaming(opt),
        }
        t = measured(given, functions, rounds)
        yield promise(f"2^{log2} float32 Adam: PyTorch fused / step", t["torch"] / t["step"], t, at_least=least)
        if log2 == 25:
            yield promise("2^25 float32 Adam: streaming / step", t["stream"] / t["step"], t, at_least=0.97)


def many_tensors(given: argparse.Namespace) -> Iterator[Promise]:
    count = max(1000 >> given.smaller, 1)
    params = [random(64) for _ in range(count)]
    grads, others = ([random(64) for _ in range(count)] for _ in range(2))
    opt, bound = fastopt.Adam(params), fastopt.Adam([p.copy() for p in params])
    bound.bind([g.copy() for g in grads])
    turn = [grads, others]

    def unbound() -> None:
        turn.reverse()
        opt.step(turn[0])

    t = measured(given, {"torch": torch_fused(params, grads), "unbound": unbound, "bound": bound.step}, 100)
    yield promise("1000 x 64 Adam: PyTorch fused / bound step", t["torch"] / t["bound"], t, at_least=50)
    yield promise("1000 x 64 Adam: PyTorch fused / step of new gradients", t["torch"] / t["unbound"], t, at_least=10)


def one_small(given: argparse.Namespace) -> Iterator[Promise]:
    p, g = random(64), random(64)
    opt = fastopt.Adam(p)
    q, (m, v) = p.copy(), np.zeros((2, 64), np.float32)
    functions = {
        "torch": torch_fused([p], [g]),
        "step": lambda: opt.step(g),
        "function": lambda: fastopt.adam(q, g, m, v, step=1),
    }
    t = measured(given, functions, 5000)
    yield promise("64 elements Adam: PyTorch fused / step", t["torch"] / t["step"], t, at_least=3)
    yield promise("64 elements Adam: PyTorch fused / function", t["torch"] / t["function"], t, at_least=3)


def growth(given: argparse.Namespace) -> Iterator[Promise]:
    """Sizes in turn, so that a change of the machine's speed meets all of them."""
    functions, sizes = {}, {f"2^{log2}": 2**log2 >> given.smaller for log2 in range(22, 28)}
    for name, size in sizes.items():
        opt = fastopt.Adam(random(size))
        opt.bind(random(size))
        functions[name] = opt.step
    t = measured(given, functions, 15)
    element = [t[name] / size for name, size in sizes.items()]
    yield promise("2^22 to 2^27 float32 Adam: slowest / fastest element", max(element) / min(element), t, at_most=1.3)


def shapes_of(model: str, given: argparse.Namespace) -> list[tuple[int, ...]]:
    """Return the shapes of a model's parameters; made smaller, the first few of one dimension each."""
    shapes = [tuple(shape) for shape in _run.models()[model]]
    return [(max(math.prod(shape) >> given.smaller, 1),) for shape in shapes[:20]] if given.smaller else shapes


def clipped(given: argparse.Namespace) -> Iterator[Promise]:
    """The norm of all gradients, their scale and what is not finite, beside PyTorch's clipping and its fused step."""
    sizes = {
        "1000 x 64": ([(64,)] * max(1000 >> given.smaller, 1), 10, 60),
        "ResNet-50": (shapes_of("ResNet-50", given), 1.3, 15),
        "2^26": ([(2**26 >> given.smaller,)], 1.3, 7),
    }
    for name, (shapes, least, rounds) in sizes.items():
        params, grads = ([random(*shape) for shape in shapes] for _ in range(2))
        theirs = [torch.from_numpy(p).clone().requires_grad_() for p in params]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.from_numpy(g).clone()
        adamw = torch.optim.AdamW(theirs, fused=True)

        def clip_and_step(theirs: Any = theirs, adamw: Any = adamw) -> None:
            torch.nn.utils.clip_grad_norm_(theirs, 1.0)
            adamw.step()

        opt = fastopt.AdamW(params, clip_norm=1.0, grad_scale=2.0, nonfinite="skip")
        opt.bind(grads)
        t = measured(given, {"torch": clip_and_step, "step": opt.step}, rounds)
        yield promise(f"{name} AdamW: PyTorch clip + fused / clip_norm step", t["torch"] / t["step"], t, at_least=least)


def grouped(given: argparse.Namespace) -> Iterator[Promise]:
    """Two groups, of which one does not decay, beside one."""
    shapes = shapes_of("GPT-2 124M", given)
    params, others, grads = ([np.zeros(shape, np.float32) for shape in shapes] for _ in range(3))
    one = fastopt.AdamW(params, weight_decay=0.1)
    one.bind(grads)
    decays = [len(shape) > 1 or (bool(given.smaller) and t % 2 > 0) for t, shape in enumerate(shapes)]

    def split(arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
        return [[a for a, d in zip(arrays, decays, strict=True) if d is which] for which in (True, False)]

    decay, plain = split(others)
    two = fastopt.AdamW([{"params": decay}, {"params": plain, "weight_decay": 0.0}], weight_decay=0.1)
    two.bind(split(grads))
    t = measured(given, {"one": one.step, "two": two.step}, 15)
    yield promise("GPT-2 124M AdamW: two groups / one", t["two"] / t["one"], t, at_most=1.03)


def start(given: argparse.Namespace) -> Iterator[Promise]:
    step = "import numpy as np, fastopt; p, g = np.ones((2, 64), np.float32); fastopt.Adam(p).step(g)"
    times: dict[str, list[float]] = {"import numba": [], step: []}
    for turn in range(1 + given.processes):
        for code, taken in times.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            if turn:  # the first fills the caches
                taken.append(time.perf_counter() - begin)
    t = dict(zip(("import numba", "fastopt"), map(statistics.median, times.values()), strict=True))
    ratio = t["fastopt"] / t["import numba"]
    yield promise("a process: import and one Adam step / import numba", ratio, t, at_most=2)


PARTS = (against_torch, many_tensors, one_small, growth, clipped, grouped, start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--smaller", type=int, default=0, metavar="K", help="2^K times fewer elements: to try this script"
    )
    parser.add_argument("--seconds", type=float, default=60, help="at most, for what is compared with one another")
    parser.add_argument("--processes", type=int, default=11, help="of each kind, for the last promise")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    given = parser.parse_args()
    torch.set_num_threads(fastopt.info()["threads"])
    promises = [p for part in PARTS for p in part(given)]
    kept = sum(p["kept"] for p in promises)
    print(f"{kept} of {len(promises)} kept")
    if given.json:
        render.write(given.json, promises=promises)
    return int(kept < len(promises))


if __name__ == "__main__":
    sys.exit(main())
