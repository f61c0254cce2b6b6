"""In which formats parameters and states can be stored, what NumPy calls them, and which codec that is."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from .._arrays.checks import Array

#: How a parameter of 16 bits can be rounded without anything beside it.
PlainRounding = Literal["nearest", "stochastic"]
#: How it can be rounded.
Rounding = Literal[PlainRounding, "kahan"]
#: What can be hidden beside a parameter in bfloat16, in bits.
Master = Literal["split8", "split16"]
#: How a state can be stored.
Format = Literal["float64", "float32", "bfloat16", "float16", "int8"]
StateDtype = Format | np.dtype[Any] | type[Any]
StateDtypes = StateDtype | Mapping[str, StateDtype] | None

PLAIN_ROUNDINGS: tuple[PlainRounding, ...] = get_args(PlainRounding)
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
MASTERS: tuple[Master, ...] = get_args(Master)

_SUFFIX = {"nearest": "", "stochastic": "-stochastic", "kahan": "-kahan"}
#: The arrays beside the first that a codec of a parameter has, by the name of the state that shows them.
_BESIDE = {"kahan": "compensation", "split8": "low", "split16": "low"}
#: In which formats the states can be, by the dtype in which is computed. A wider one would hold nothing more, and
#: there is no exact way from float64 to 16 bits in one instruction.
STATES = {"float32": ("float32", "bfloat16", "float16", "int8"), "float64": ("float64", "float32")}
_NAMES: tuple[Format, ...] = get_args(Format)
BFLOAT16 = np.dtype(np.uint16)


def compute_dtype(format_: str) -> str:
    """Return the dtype in which parameters of a format are updated."""
    return "float64" if format_ == "float64" else "float32"


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
    if name not in _NAMES:
        raise TypeError(f"state_dtype must be one of {', '.join(_NAMES)}, or a mapping of them by state; got {given!r}")
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


def state_codec(name: str | None, format_: str, *, square: bool) -> str:
    """Return the codec of a state of parameters in `format_`, in the format `name` or that of their arithmetic.

    Raises
    ------
    TypeError
        If the states of such parameters cannot be in this format.
    """
    number = compute_dtype(format_)
    if name is None:
        return number
    if name not in STATES[number]:
        allowed = ", ".join(STATES[number])
        raise TypeError(f"state_dtype of {format_} parameters must be one of {allowed}; got {name}")
    if name == "int8":
        return "uint8" if square else "int8"
    return "bfloat16-stochastic" if name == "bfloat16" else name


def check_rounding(rounding: Any, master: Any, formats: Sequence[str]) -> None:
    """Raise unless these arguments go with parameters in these formats.

    Raises
    ------
    ValueError
        If there is no such rounding or master, or if not both can be.
    TypeError
        If there are no parameters that they could be meant for.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(ROUNDINGS)}; got {rounding!r}")
    if master is not None and master not in MASTERS:
        raise ValueError(f"master must be None or one of {', '.join(MASTERS)}; got {master!r}")
    if master is not None and rounding != "nearest":
        raise ValueError(
            f"rounding={rounding!r} has no use with master={master!r}: its bits are rounded in their own way"
        )
    if rounding != "nearest" and not {"float16", "bfloat16"} & set(formats):
        raise TypeError(f"rounding={rounding!r} is for parameters of 16 bits, got {', '.join(dict.fromkeys(formats))}")
    if master is not None and ("bfloat16" not in formats or "float16" in formats):
        raise TypeError(f"master={master!r} is for parameters in bfloat16, got {', '.join(dict.fromkeys(formats))}")


def param_codec(format_: str, rounding: str, master: str | None) -> str:
    """Return the codec of a parameter in `format_`."""
    if format_ in ("float64", "float32"):
        return format_
    return f"{format_}-{master}" if master else format_ + _SUFFIX[rounding]


def rows_of(codec: str) -> tuple[str, ...]:
    """Return the names of the states that a parameter in a codec has by itself."""
    return tuple(name for ending, name in _BESIDE.items() if codec.endswith(ending))


def shown(array: Array) -> Array:
    """Return a state as its user wants to see it: bfloat16 as such, if ml_dtypes is installed."""
    if array.dtype != BFLOAT16 or importlib.util.find_spec("ml_dtypes") is None:
        return array
    import ml_dtypes  # 10 ms, and needed only to look at a state

    dtype: Any = ml_dtypes.bfloat16
    view: Array = array.view(dtype)
    return view


def raw(array: Array) -> Array:
    """Return the bits of a bfloat16 array, any other array as it is."""
    return array.view(BFLOAT16) if array.dtype.name == "bfloat16" else array
