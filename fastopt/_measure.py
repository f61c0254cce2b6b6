"""How fast a step is here, as a fraction of what the memory allows, and beside plain NumPy.

Everything that is compared is measured in turn, round after round, and the median taken: the speed of a
shared machine's memory can change by half within minutes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from . import _compile, _threads
from ._optimizer import Optimizer
from ._plan import Group

T = TypeVar("T")


class Speed(NamedTuple):
    """What was measured of one optimizer, per step."""

    optimizer: str
    elements: int
    dtype: str
    bytes_per_element: int
    ms: float
    gb_per_s: float
    streaming_fraction: float
    numpy_ratio: float


def medians(functions: Mapping[T, Callable[[], object]], rounds: int, seconds: float) -> dict[T, float]:
    """Return the median time in seconds of each function, called in turn.

    At most `rounds` rounds, and no new one once `seconds` have passed and three are done.
    """
    times: dict[T, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    for done in range(rounds):
        if done >= 3 and time.perf_counter() > end:
            break
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def _make_stream(states: int) -> Callable[..., Any]:
    """Return a rule that does nothing but move the bytes of an optimizer with `states` states."""
    if states == 0:
        return lambda s, g, p: (p + s[0] * g,)
    if states == 1:
        return lambda s, g, p, a: (p + s[0] * g, a + s[0] * g)
    if states == 2:
        return lambda s, g, p, a, b: (p + s[0] * g, a + s[0] * g, b + s[0] * g)
    return lambda s, g, p, a, b, c: (p + s[0] * g, a + s[0] * g, b + s[0] * g, c + s[0] * g)


def stream(group: Group) -> Callable[[], None]:
    """Return a function that streams over the arrays of a group, reading and writing as a step does.

    Raises
    ------
    ValueError
        If no gradients were bound or read yet.
    """
    if not group.grads:
        raise ValueError("the group must have read gradients, got none")
    states = len(group.states)
    spec = _compile.Spec(_make_stream(states), states, 1, group.dtype)
    values = np.full(1, 1e-3, group.dtype)
    table = group.table.copy()
    table[0] = group.work[2]  # the gradients that were read; a step brings them into its own table
    arguments = (table, group.items, group.chunks, values)
    return lambda: _threads.launch(spec, group.elements, arguments)


def plain_numpy(optimizer: Optimizer, g: Any) -> Callable[[], None]:
    """Return a function that takes a step with the same formula in NumPy, one operation at a time."""
    p = optimizer.params.copy()
    arrays = [p, *(a.copy() for a in optimizer.state.values())]
    spec = optimizer.spec(p.dtype)
    scalars = tuple(p.dtype.type(value) for value in optimizer.values(1))

    def step() -> None:
        arrays[:] = spec.rule(scalars, g, *arrays)

    return step


def speed(cls: type[Optimizer], elements: int, dtype: Any, *, seconds: float = 3.0) -> Speed:
    """Measure one optimizer on one array of `elements` elements."""
    rng = np.random.default_rng(0)
    p = rng.random(elements, dtype=dtype)
    g = rng.random(elements, dtype=dtype)
    optimizer = cls(p)
    optimizer.bind(g)
    (group,) = optimizer._groups
    functions = {"stream": stream(group), "step": optimizer.step, "numpy": plain_numpy(optimizer, g)}
    for function in functions.values():
        function()  # compile, and touch all memory
    took = medians(functions, 1000, seconds)
    moved = (2 + 1 + 2 * len(group.states)) * p.itemsize
    return Speed(
        optimizer=cls.__name__,
        elements=elements,
        dtype=p.dtype.name,
        bytes_per_element=moved,
        ms=took["step"] * 1e3,
        gb_per_s=moved * elements / took["step"] / 1e9,
        streaming_fraction=took["stream"] / took["step"],
        numpy_ratio=took["numpy"] / took["step"],
    )
