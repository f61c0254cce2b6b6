"""Measuring: sizes and models, in turn, with the correctness of every rival beside its time."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from .. import _compile, _measure, _threads
from .._arrays import Array
from .._info import info
from .._optimizer import registry
from .peers import BETAS, EPS, LR, PEERS, MissingPeerError

OWN = ("fastopt", "fastopt bound")
STEPS_CHECKED = 3
_SAMPLE = 4096
# Three steps change a parameter by at most 3 lr; what float32 rounding makes of that is far below this.
TOLERANCE = 1e-5


class Row(NamedTuple):
    """One rival on one set of arrays."""

    case: str
    tensors: int
    elements: int
    peer: str
    seconds: float
    low: float
    high: float
    error: float

    @property
    def right(self) -> bool:
        """Whether the parameters are those of the exact equation."""
        return self.error <= TOLERANCE


def models() -> dict[str, list[list[int]]]:
    """Return the shapes of the parameters of real models, by name."""
    shapes: dict[str, list[list[int]]] = json.loads(files(__package__).joinpath("models.json").read_text())
    return shapes


def exact(p: Array, g: Array, steps: int) -> Array:
    """Return parameters after `steps` Adam steps with a constant gradient, in float64 from the paper's equations."""
    p, g = p.astype(np.float64), g.astype(np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        p = p - LR * (m / (1 - BETAS[0] ** t)) / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPS)
    return p


def _ends(array: Array) -> Array:
    flat = array.reshape(-1)
    return flat if flat.size <= 2 * _SAMPLE else np.concatenate([flat[:_SAMPLE], flat[-_SAMPLE:]])


def _start(name: str, params: Sequence[Array], grads: Sequence[Array]) -> tuple[Callable[[], object], float]:
    """Return the step of a peer and its largest error after a few steps, looking at both ends of each array."""
    step, read = PEERS[name](params, grads)
    for _ in range(STEPS_CHECKED):
        step()
    errors = [
        np.max(np.abs(_ends(now) - exact(_ends(p), _ends(g), STEPS_CHECKED)), initial=0.0)
        for now, p, g in zip(read(), params, grads, strict=True)
    ]
    return step, float(np.max(errors))


def _streaming(elements: int) -> Callable[[], object]:
    """Return a function that moves as many bytes as an Adam step over as many elements."""
    optimizer = registry["Adam"](np.ones(elements, np.float32))
    optimizer.bind(np.ones(elements, np.float32))
    return _measure.stream(optimizer._groups[0])


def _seconds(functions: dict[str, Callable[[], object]], budget: float) -> dict[str, list[float]]:
    """Return the times of each function, called in turn, in as many rounds as `budget` seconds allow."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + budget
    while len(next(iter(times.values()))) < 5 or time.perf_counter() < end:
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - begin)
    return times


def compare(
    case: str, shapes: Iterable[Sequence[int]], peers: Sequence[str], budget: float, absent: dict[str, str]
) -> Iterator[Row]:
    """Yield a row for each peer and one for streaming; add to `absent` those that cannot run, and why."""
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    grads = [rng.uniform(0.5, 1.5, p.shape).astype(np.float32) for p in params]
    functions: dict[str, Callable[[], object]] = {}
    errors: dict[str, float] = {}
    for name in peers:
        if name not in absent:
            try:
                functions[name], errors[name] = _start(name, params, grads)
            except MissingPeerError as reason:
                absent[name] = str(reason)
    elements = sum(p.size for p in params)
    functions["streaming"], errors["streaming"] = _streaming(elements), 0.0
    functions["streaming"]()
    for name, taken in _seconds(functions, budget).items():
        low, median, high = statistics.quantiles(taken, n=4)
        yield Row(case, len(params), elements, name, median, low, high, errors[name])


def header(threads: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    found = info() | {"threads": threads}
    for package in ("torch", "jax", "optax", "deepspeed"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def set_threads(threads: int | None) -> int:
    """Give every rival the same number of threads and return it; JAX takes its number from the affinity alone."""
    import numba

    count = min(threads or _threads.budget(), _threads.budget())
    numba.set_num_threads(count)
    try:
        import torch
    except ImportError:
        return count
    torch.set_num_threads(count)
    return count


def warm() -> None:
    """Compile what will be measured."""
    spec = registry["Adam"].with_hyperparameters().spec(np.dtype(np.float32))
    for parallel in (False, True):
        _compile.sweep(spec, parallel)
