"""The formats in which states can be stored, and what NumPy calls them.

NumPy has no bfloat16: its bits are kept as ``uint16``, the upper half of a float32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._arrays import Array

#: The dtype of an array in each format.
STORED: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
#: In which formats the states of parameters of a dtype can be. Arithmetic is in the dtype of the parameter, so a wider
#: format would hold nothing more. There is no exact way from float64 to 16 bits in one instruction.
_ALLOWED = {"float32": ("float32", "bfloat16", "float16"), "float64": ("float64", "float32")}


def name_of(given: Any) -> str:
    """Return the name of a format, given by its name, a dtype or a scalar type.

    Raises
    ------
    TypeError
        If there is no such format.
    """
    try:
        name = given if isinstance(given, str) else np.dtype(given).name
    except TypeError:
        name = repr(given)
    if name not in STORED:
        raise TypeError(f"state_dtype must be one of {', '.join(STORED)}, or a mapping of them by state; got {given!r}")
    return name


def by_state(given: Any, states: Sequence[str], owner: str) -> dict[str, str]:
    """Return the format of each state that the argument ``state_dtype`` names.

    Raises
    ------
    TypeError
        If it names a format or a state that is not there.
    """
    if given is None:
        return {}
    if not states:
        raise TypeError(f"{owner} with these hyperparameters has no states, so no state_dtype; got {given!r}")
    if not isinstance(given, Mapping):
        return dict.fromkeys(states, name_of(given))
    for state in given:
        if state not in states:
            raise TypeError(f"state_dtype names the state {state!r}; {owner} has {', '.join(states)}")
    return {state: name_of(name) for state, name in given.items()}


def stored(name: str | None, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a state in the format `name`, or in that of its parameter, whose dtype is `dtype`.

    Raises
    ------
    TypeError
        If the states of such parameters cannot be in this format.
    """
    if name is None:
        return dtype
    allowed = _ALLOWED[dtype.name]
    if name not in allowed:
        raise TypeError(f"state_dtype of {dtype.name} parameters must be one of {', '.join(allowed)}; got {name}")
    return STORED[name]


def shown(array: Array) -> Array:
    """Return a state as its user wants to see it: bfloat16 as such, if ml_dtypes is installed."""
    if array.dtype != STORED["bfloat16"] or importlib.util.find_spec("ml_dtypes") is None:
        return array
    import ml_dtypes  # 10 ms, and needed only to look at a state

    dtype: Any = ml_dtypes.bfloat16
    view: Array = array.view(dtype)
    return view


def raw(array: Array) -> Array:
    """Return the bits of a bfloat16 array, any other array as it is."""
    return array.view(STORED["bfloat16"]) if array.dtype.name == "bfloat16" else array
