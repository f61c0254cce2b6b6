"""What an optimizer keeps and writes beside its states: an average of the parameters, and copies of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._arrays import gpu
from .._arrays.checks import check_array, check_disjoint, check_like, format_of
from .._arrays.structure import Structure, check_lasting
from .._arrays.tensors import as_array
from .._engine.extents import AVERAGE
from .._storage import formats
from .._storage.evaluator import converted
from .._storage.layout import CODECS, COPIES


def formats_by_state(state_dtype: formats.StateDtypes, names: Sequence[str], owner: str) -> dict[str, str]:
    """Return the format of each state that the argument ``state_dtype`` names; of the average if it does by name.

    Raises
    ------
    TypeError
        If it names a format or a state that is not there, or 8 bits for the average.
    """
    by_name = isinstance(state_dtype, Mapping)
    found = formats.by_state(state_dtype, names if by_name else [n for n in names if n != AVERAGE], owner)
    if found.get(AVERAGE) == "int8":
        raise TypeError("state_dtype of average must not be int8, whose error is larger than what a step changes")
    return found


def begin_averages(params: Sequence[Any], averages: Sequence[Any], codecs: Sequence[str]) -> None:
    """Have averages, in these codecs, begin with the parameters."""
    for param, average, codec in zip(params, averages, codecs, strict=True):
        stored = formats.raw(gpu.copy(param))
        gpu.fill(average, converted(stored, CODECS[str(format_of(param.dtype))], CODECS[codec]))


def check_copies(structure: Structure, params: Sequence[Any], given: Any) -> tuple[list[Any], list[str]]:
    """Return the arrays that copies of parameters go to, and their codecs; none without an argument.

    Raises
    ------
    TypeError, ValueError
        Naming what is wrong with them.
    """
    if given is None:
        return [], []
    found = structure.unpack("copy_to", given)
    check_lasting("copy_to", structure, given, found)
    arrays, codecs = [], []
    for t, (param, array) in enumerate(zip(params, found, strict=True)):
        name, like = structure.label("copy_to", t), structure.label("params", t)
        view = gpu.as_view(name, as_array(array))
        check_array(name, view, written=True)
        check_like(name, view, like, param)
        if gpu.device_of(view) != gpu.device_of(param):
            raise ValueError(f"{name} must be where {like} is: on the same GPU, or in the host's memory")
        format_, compute = str(format_of(view.dtype)), formats.compute_dtype(str(format_of(param.dtype)))
        allowed = [of_states for of_states in formats.STATES[compute] if of_states in COPIES]
        if format_ not in allowed:
            raise TypeError(
                f"{name} must have one of the dtypes {', '.join(allowed)} beside {like}, {param.dtype}; got "
                f"{view.dtype}"
            )
        arrays.append(view)
        codecs.append(COPIES[format_])
    check_disjoint(
        [
            (structure.label(name, t), a)
            for name, row in (("params", params), ("copy_to", arrays))
            for t, a in enumerate(row)
        ]
    )
    return arrays, codecs
