"""Which codecs the arrays of an optimizer have, which arrays there are beside the parameters, and their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._arrays import Array, Structure
from ._cache import warn_if_useless
from ._cuda import arrays as gpu
from ._cuda.plan import DeviceGroup
from ._formats import param_codec, rows_of, state_codec
from ._layout import CODECS
from ._method import Method
from ._plan import Group, Members, allocate
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
    made = []
    for array, (param, *states) in zip(arrays, codecs, strict=True):
        beside = zip(rows_of(param), CODECS[param].rows[1:], strict=True)
        rows: list[tuple[str, np.dtype[Any], int | None]] = [(name, dtype, None) for name, dtype in beside]
        for name, codec in zip(names, states, strict=True):
            rows.append((name, CODECS[codec].rows[0], None))
            if CODECS[codec].scaled:
                rows.append((f"{name}_scale", CODECS[codec].rows[1], -(-array.size // BLOCK)))
        if gpu.device_of(array) is None:
            made.append({name: allocate(array, k, len(rows), d, n) for k, (name, d, n) in enumerate(rows)})
        else:
            made.append({name: gpu.zeros(array, dtype, length) for name, dtype, length in rows})
    every = dict.fromkeys(name for own in made for name in own)
    return {name: [own.get(name) for own in made] for name in every}


def make_groups(
    structure: Structure,
    arrays: Sequence[Array],
    codecs: Sequence[tuple[str, ...]],
    states: Mapping[str, Sequence[Array | None]],
    seed: int,
    method: Method,
    *,
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
