"""Which codecs the arrays of an optimizer have, which arrays there are beside the parameters, and their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _threads
from ._arrays import Array, Structure
from ._cache import warn_if_useless
from ._cuda import arrays as gpu
from ._cuda.plan import DeviceGroup, launch_on_devices
from ._formats import param_codec, rows_of, state_codec
from ._gather import Gather
from ._layout import CODECS
from ._method import Method
from ._place import PAGE, Pool, allocate, nbytes_of
from ._plan import Group, Members
from ._scaled import BLOCK


def codecs_of(
    format_: str,
    rounding: str,
    master: str | None,
    by_state: Mapping[str, str],
    names: Sequence[str],
    squares: Sequence[str],
) -> tuple[str, ...]:
    """Return the codecs of a parameter in `format_` and of its states."""
    states = (state_codec(by_state.get(name), format_, square=name in squares) for name in names)
    return param_codec(format_, rounding, master), *states


def make_states(
    arrays: Sequence[Array], codecs: Sequence[tuple[str, ...]], names: Sequence[str]
) -> dict[str, list[Array | None]]:
    """Return all arrays beside the parameters, by name, in the order in which kernels take them."""
    wanted = []
    for array, (param, *states) in zip(arrays, codecs, strict=True):
        beside = zip(rows_of(param), CODECS[param].rows[1:], strict=True)
        rows: list[tuple[str, np.dtype[Any], int | None]] = [(name, dtype, None) for name, dtype in beside]
        for name, codec in zip(names, states, strict=True):
            rows.append((name, CODECS[codec].rows[0], None))
            if CODECS[codec].scaled:
                rows.append((f"{name}_scale", CODECS[codec].rows[1], -(-array.size // BLOCK)))
        wanted.append(rows)
    made = _make(arrays, wanted)
    every = dict.fromkeys(name for own in made for name in own)
    return {name: [own.get(name) for own in made] for name in every}


Rows = Sequence[tuple[str, np.dtype[Any], int | None]]


def _make(arrays: Sequence[Array], wanted: Sequence[Rows]) -> list[dict[str, Array]]:
    """Return zeros by name for each array, of these dtypes and, if there are any, these lengths."""
    on_cpu = [gpu.device_of(a) is None for a in arrays]
    sizes = [nbytes_of(a, d, n) for a, rows, own in zip(arrays, wanted, on_cpu, strict=True) if own for _, d, n in rows]
    pool = Pool(size for size in sizes if size < PAGE)
    made: list[dict[str, Array]] = []
    for array, rows, own in zip(arrays, wanted, on_cpu, strict=True):
        made.append({})
        for k, (name, dtype, length) in enumerate(rows):
            if not own:
                made[-1][name] = gpu.zeros(array, dtype, length)
            elif nbytes_of(array, dtype, length) < PAGE:
                made[-1][name] = pool.take(array, dtype, length)
            else:
                made[-1][name] = allocate(array, k, len(rows), dtype, length)
    return made


def make_groups(
    structure: Structure,
    arrays: Sequence[Array],
    codecs: Sequence[tuple[str, ...]],
    states: Mapping[str, Sequence[Array | None]],
    seed: int,
    method: Method,
    capturable: bool,
) -> list[Group]:
    """Return the groups of arrays that one launch updates: those on one device, of one dtype, in the same codecs."""
    groups: list[Group] = []
    if any(gpu.device_of(a) is None for a in arrays):
        warn_if_useless()
    kinds = [(gpu.device_of(a), a.dtype, own) for a, own in zip(arrays, codecs, strict=True)]
    for kind in dict.fromkeys(kinds):
        indices = [t for t, other in enumerate(kinds) if other == kind]
        rows = [[array for t in indices if (array := row[t]) is not None] for row in states.values()]
        params = [arrays[t] for t in indices]
        members = Members(structure, indices, params, [row for row in rows if row], kind[2], seed)
        groups.append(Group(members) if kind[0] is None else DeviceGroup(members, method, capturable))
    return groups


class Plan:
    """What all groups of an optimizer do in a step.

    Attributes
    ----------
    gather : Gather
        The gradients of the step.
    """

    def __init__(self, groups: Sequence[Group], gather: Gather) -> None:
        self.gather = gather
        self._on_devices = [group for group in groups if isinstance(group, DeviceGroup)]
        self._on_cpu = [group for group in groups if not isinstance(group, DeviceGroup)]

    def read_step(self) -> int | None:
        """Return the number of steps that a device counted, after all that it was asked for; None if none counts."""
        return next((group.read_step() for group in self._on_devices if group.capturable), None)

    def set_clocks(self, step: int | None, lr: Callable[[int], float]) -> None:
        """Set `lr` where a device keeps it, and the number of steps taken unless it is None."""
        for group in self._on_devices:
            if group.capturable:
                group.write_clock(step, lr(1))

    def run(self, step: int, *others: tuple[Any, ...]) -> None:
        """Take step number `step`, for which every group is prepared, and make other calls, all of it or nothing."""
        launches = []
        for group in self._on_cpu:
            launches.append(group.launch(step))  # noqa: PERF401  a comprehension is 0.15 µs of 6
        if self._on_devices:
            launch_on_devices(self._on_devices, launches, step, *others)
        else:
            _threads.launch(launches, *others)
