"""How fast a step is here, as a fraction of what the memory allows, and beside plain NumPy.

Everything that is compared is measured in turn, round after round, and the median taken: the speed of a
shared machine's memory can change by half within minutes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba.extending import register_jitable

from .._api.optimizer import Optimizer
from .._engine import threads
from .._kernels import compiler, reference
from .._storage.int8 import BLOCK
from .._storage.layout import CODECS

T = TypeVar("T")


class Speed(NamedTuple):
    """What was measured of one optimizer, per step."""

    optimizer: str
    elements: int
    dtype: str
    bytes_per_element: float
    ms: float
    gb_per_s: float
    streaming_fraction: float
    numpy_ratio: float | None


class Bytes(NamedTuple):
    """How many bytes of each element a step reads, and how many it writes."""

    read: float
    written: float

    @property
    def moved(self) -> float:
        """Both together."""
        return self.read + self.written


def bytes_of(codecs: Sequence[str]) -> Bytes:
    """Return the bytes of a step on arrays in these codecs: the gradient's, the parameter's and the states'.

    The gradient is read, and written where it is zeroed; copies of the parameter are written, all else is both. So
    `read` is, without copies, also what all arrays together take.
    """
    gradient, *others = (
        sum(dtype.itemsize for dtype in codec.fields) + (codec.rows[-1].itemsize / BLOCK if codec.scaled else 0)
        for codec in map(CODECS.__getitem__, codecs)
    )
    zeroed, copied = gradient * CODECS[codecs[0]].zeroed, sum(others[-1:]) * CODECS[codecs[-1]].copied
    return Bytes(gradient + sum(others) - copied, sum(others) + zeroed)


def times(
    functions: Mapping[T, Callable[[], object]],
    *,
    rounds: int,
    seconds: float,
    turn: float = 0.0,
    call: Callable[[Callable[[], object], int], float] | None = None,
) -> dict[T, list[float]]:
    """Return the times of a call of each function in seconds, one per round.

    In a round every function has its turn, the order another in each. A turn is one call, or as many as fill about
    `turn` seconds, of which the mean counts; then a quarter as many go before, uncounted, so that neither what the
    one before left in the caches nor its waiting threads count. A function is done after `rounds` rounds, or after
    three when it has used up its share of `seconds`; so slow ones have fewer rounds than fast ones.
    `call` returns the time of one of so many calls, by default by the clock.
    """
    call = call or _call
    taken: dict[T, list[float]] = {name: [] for name in functions}
    calls = {name: max(1, round(turn / max(call(function, 1), 1e-9))) for name, function in functions.items()}
    left = dict.fromkeys(functions, seconds / max(len(functions), 1))
    order, shuffle = list(functions), random.Random(0).shuffle  # noqa: S311  an order, not a secret
    while order:
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            if calls[name] > 1:
                calls[name] = max(1, round(turn / max(call(functions[name], calls[name] // 4 + 1), 1e-9)))
            taken[name].append(call(functions[name], calls[name]))
            left[name] -= time.perf_counter() - start
        order = [name for name in order if len(taken[name]) < rounds and (len(taken[name]) < 3 or left[name] > 0)]
    return taken


def _call(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def medians(functions: Mapping[T, Callable[[], object]], rounds: int, seconds: float) -> dict[T, float]:
    """Return the median of :func:`times` of each function, called once in a turn."""
    taken = times(functions, rounds=rounds, seconds=seconds)
    return {name: statistics.median(t) for name, t in taken.items()}


def ratio(times: list[float], others: list[float]) -> float:
    """Return the median over the rounds of one function's time over another's in the same round.

    The machine's memory may be twice as fast in one round as in the next.
    """
    return statistics.median(x / y for x, y in zip(times, others, strict=False))


def _make_stream(states: int) -> Callable[..., Any]:
    """Return a rule that does nothing but move the bytes of an optimizer with `states` states."""
    if states == 0:
        return lambda s, g, p: (p + s[0] * g,)
    others = register_jitable(_make_stream(states - 1))
    return lambda s, g, p, *rest: (*others(s, g, p, *rest[:-1]), rest[-1] + s[0] * g)


def streaming(optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that streams over the arrays of an optimizer, reading and writing as a bound step does.

    Raises
    ------
    ValueError
        If no gradients were bound yet, or the parameters are of several formats.
    """
    (group,), gather = optimizer._groups, optimizer._plan.arrays
    if gather.bound is None:
        raise ValueError("the optimizer must have bound gradients, got none")
    states = len(group.codecs) - 2
    spec = compiler.Spec(_make_stream(states), 1, group.codecs, optimizer.is_reproducible(group.codecs))
    values = np.full((group.group_count, 1), 1e-3, spec.compute)
    table = group.table.copy()
    table[0] = gather.bound.found[0]
    arguments = (table, group.items, group.chunks, group.groups, values, 0, 0)
    kernels = threads.Kernels(functools.partial(compiler.sweep, spec), group.elements)

    def run() -> None:
        assert optimizer._groups  # kept alive here, as its arrays are in the table by their addresses alone
        kernels.prepare()
        threads.launch([(kernels, arguments)])

    return run


def memory() -> int:
    """Return how many bytes of memory this machine has, or this process may have."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # not Linux; or "max"
            limits.append(int(Path(file).read_text()))
    return min(limits, default=2**63)


def plain_numpy(optimizer: Optimizer, g: Any) -> Callable[[], None]:
    """Return a function that takes a step with the same formula in NumPy, one operation at a time."""
    p = optimizer.params.copy()
    arrays = [p, *(a.copy() for a in optimizer.state.values())]
    spec = optimizer.plain_spec(p.dtype)
    scalars = tuple(p.dtype.type(value) for value in optimizer.values(1))

    def step() -> None:
        arrays[:] = spec.rule(scalars + reference.norms_of(spec, scalars, [g, *arrays]), g, *arrays)

    return step


def speed(cls: type[Optimizer], elements: int, dtype: Any, *, seconds: float = 3.0, beside_numpy: bool = True) -> Speed:
    """Measure one optimizer on one array of `elements` elements."""
    rng = np.random.default_rng(0)
    p = rng.random(elements, dtype=dtype)
    g = rng.random(elements, dtype=dtype)
    optimizer = cls(p)
    optimizer.bind(g)
    (group,) = optimizer._groups
    functions = {"stream": streaming(optimizer), "step": optimizer.step}
    if beside_numpy:
        functions["numpy"] = plain_numpy(optimizer, g)
    for function in functions.values():
        function()  # compile, and touch all memory
    taken = times(functions, rounds=1000, seconds=seconds)
    return speed_of(cls, elements, p.dtype, bytes_of(group.codecs).moved, taken)


def speed_of(cls: type[Any], elements: int, dtype: Any, moved: float, taken: Mapping[str, list[float]]) -> Speed:
    """Return what the times of "step", "stream", and "numpy" if there are any, say of one optimizer."""
    step = statistics.median(taken["step"])
    return Speed(
        optimizer=cls.__name__,
        elements=elements,
        dtype=dtype.name,
        bytes_per_element=moved,
        ms=step * 1e3,
        gb_per_s=moved * elements / step / 1e9,
        streaming_fraction=ratio(taken["stream"], taken["step"]),
        numpy_ratio=ratio(taken["numpy"], taken["step"]) if "numpy" in taken else None,
    )
