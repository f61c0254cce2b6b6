"""Which codecs the arrays of an optimizer have, which arrays there are beside the parameters, and their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import gpu
from .._arrays.lazy import lazy
from .._arrays.structure import Structure
from .._arrays.tensors import note_change
from .._kernels.cache import warn_if_useless
from .._storage.evaluator import constant
from .._storage.formats import param_codec, rows_of, state_codec
from .._storage.int8 import BLOCK
from .._storage.layout import CODECS
from . import threads
from .allocation import Place, Pool
from .gather import Gather
from .gpu import DeviceGroup, launch_on_devices
from .plan import Group, Members
from .reduce import Reduction
from .scalars import Update


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
    arrays: Sequence[Any],
    codecs: Sequence[tuple[str, ...]],
    names: Sequence[str],
    initial: Sequence[Mapping[str, float]],
) -> dict[str, list[Any]]:
    """Return all arrays beside the parameters, by name; None for parameters that have no such array.

    `names` are those of the states that the rule has, `initial` what those of each parameter hold before the first
    step.
    """
    made: list[dict[str, Any]] = [{} for _ in arrays]
    on_cpu = []
    for array, own, new in zip(arrays, codecs, made, strict=True):
        rows = rows_of_states(own, names)
        lengths = [-(-array.size // BLOCK) if per_block else None for _, _, per_block in rows]
        if gpu.device_of(array) is not None:
            new.update({r[0]: gpu.zeros_like(array, r[1], n) for r, n in zip(rows, lengths, strict=True)})
            continue
        for k, ((name, dtype, _), length) in enumerate(zip(rows, lengths, strict=True)):
            nbytes = (array.size if length is None else length) * dtype.itemsize
            place = Place.beside(array.ctypes.data, array.nbytes, k, len(rows))
            on_cpu.append(((nbytes, place), new, name, dtype, array if length is None else None))
    pool = Pool(memory for memory, *_ in on_cpu)
    for memory, new, name, dtype, like in on_cpu:
        flat = pool.take(*memory).view(dtype)
        new[name] = flat if like is None else flat.reshape(like.shape, order="C" if like.flags.c_contiguous else "F")
    for new, (_, *states), begin in zip(made, codecs, initial, strict=True):
        for name, codec in zip(names, states, strict=True):
            if first := begin.get(name):
                stored = constant(CODECS[codec], first)
                for row, part in zip((name, f"{name}_scale"), stored, strict=False):
                    gpu.fill(new[row], part)
    every = dict.fromkeys(name for own in made for name in own)
    return {name: [own.get(name) for own in made] for name in every}


def rows_of_states(codecs: Sequence[str], names: Sequence[str]) -> list[tuple[str, np.dtype[Any], bool]]:
    """Return the arrays of a tensor after its parameter, in the order in which kernels take them.

    Each with its name, its dtype, and whether it has an element for each block instead of for each element.
    """
    param, *states = codecs
    found = [(name, dtype, False) for name, dtype in zip(rows_of(param), CODECS[param].rows[1:], strict=True)]
    for name, codec in zip(names, states, strict=True):
        found.append((name, CODECS[codec].rows[0], False))
        if CODECS[codec].scaled:
            found.append((f"{name}_scale", CODECS[codec].rows[1], True))
    return found


def make_groups(
    structure: Structure,
    arrays: Sequence[Any],
    states: Mapping[str, Sequence[Any]],
    codecs: Sequence[tuple[str, ...]],
    names: Sequence[Sequence[str]],
    seed: int,
    zeroed: bool,
    capturable: bool,
    kernels: Sequence[Any],
    param_groups: Sequence[int],
) -> list[Group]:
    """Return the groups of arrays that one launch updates: those on one device, of one dtype, in the same codecs.

    `names` are those of the states that the rule of each group of parameters has. `kernels` says what the kernel of
    each depends on beside codecs, `param_groups` which of these groups each parameter is in: several of one kernel are
    updated by one launch.
    """
    groups: list[Group] = []
    if any(gpu.device_of(a) is None for a in arrays):
        warn_if_useless()
    of = [kernels.index(kernels[g]) for g in param_groups]
    kinds = [(gpu.device_of(a), a.dtype, own, k) for a, own, k in zip(arrays, codecs, of, strict=True)]
    for kind in dict.fromkeys(kinds):
        indices = [t for t, other in enumerate(kinds) if other == kind]
        stored = rows_of_states(kind[2], names[kind[3]])
        rows = [[a for t in indices if (a := states[name][t]) is not None] for name, *_ in stored]
        own_groups = [param_groups[t] for t in indices]
        members = Members(structure, indices, [arrays[t] for t in indices], rows, kind[2], seed, zeroed, own_groups)
        groups.append(Group(members) if kind[0] is None else DeviceGroup(members, capturable))
    return groups


class Plan:
    """A step as a small program of three verbs, for all groups of an optimizer.

    ``gather(grads)`` checks gradients and takes their addresses, and changes nothing else; without an argument it takes
    the bound ones. ``prepare(updates, rows, stream)`` compiles, fixes threads and grids and packs scalars; after it
    nothing can fail. ``run(step, ...)`` launches. ``release()`` lets the gradients go, unless they are bound.

    Attributes
    ----------
    arrays : Gather
        All arrays of a step.
    """

    def __init__(self, groups: Sequence[Group], arrays: Gather) -> None:
        self.arrays, self._groups = arrays, groups
        self.gather, self.release = arrays.gather, arrays.release
        self._on_devices = [group for group in groups if isinstance(group, DeviceGroup)]
        self._on_cpu = [group for group in groups if not isinstance(group, DeviceGroup)]
        #: What is called after a launch: tensors that changed have that noted.
        self.noted = ((note_change, arrays.tensors),) if arrays.tensors else ()
        if len(groups) == 1:  # a call less: 0.1 µs of 5
            self.prepare = groups[0].prepare  # type: ignore[method-assign]
        #: The launch of all parameters, where that is one on a GPU: the norm of its gradients need not be waited for.
        self.alone: DeviceGroup | None = self._on_devices[0] if len(groups) == len(self._on_devices) == 1 else None
        if len(groups) == len(self._on_cpu) == 1 and not self.noted:  # and a loop
            self.run = self._run_one  # type: ignore[method-assign]

    def prepare(self, updates: Sequence[Update], rows: Sequence[tuple[float, ...]], stream: Any) -> None:
        """Prepare a step, on a stream where arrays are on a GPU.

        For each group of parameters there is an update and its scalars.
        """
        for group in self._groups:
            group.prepare(updates, rows, stream)

    @lazy
    def reduction(self) -> Reduction:
        """The reduction of the gradients that were gathered."""
        return Reduction(self._groups)

    def use_scalars(self, rows: Sequence[tuple[float, ...]]) -> None:
        """Take other scalars for the step that is prepared."""
        for group in self._groups:
            group.pack(rows)

    def zero_grads(self) -> None:
        """Set the gradients that were gathered to 0."""
        for grad in self.arrays.grads:
            gpu.fill(gpu.as_view("a gradient", grad), 0)

    def read_step(self) -> int | None:
        """Return the number of steps that a device counted, after all work enqueued there; None if none counts."""
        return next((group.read_step() for group in self._on_devices if group.capturable), None)

    def set_clocks(self, step: int | None, lr: Callable[[int], float]) -> None:
        """Set `lr` where a device keeps it, and the number of steps taken unless it is None."""
        for group in self._on_devices:
            if group.capturable:
                group.write_clock(step, lr(1))

    def run(self, step: int, *others: tuple[Any, ...]) -> None:
        """Take step number `step`, for which every group is prepared, and make other calls, all of it or nothing."""
        launches = [group.launch(step) for group in self._on_cpu]
        if self._on_devices:
            launch_on_devices(self._on_devices, launches, step, *others, *self.noted)
        else:
            threads.launch(launches, *others, *self.noted)

    def _run_one(self, step: int, *others: tuple[Any, ...]) -> None:
        threads.launch((self._on_cpu[0].launch(step),), *others)
