"""Hyperparameters: declared once on the class, checked whenever they are set.

``eps: float = nonnegative(1e-8)`` in the body of an optimizer gives it a keyword argument with that default, an
attribute that can be read and set, and an error that names the argument, the bound and the value. The annotation is
for type checkers and editors, which take the signature of the class from it (PEP 681); nothing here reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, cast, overload

import numpy as np

T = TypeVar("T")

Schedule = Callable[[int], float]
#: What becomes of a step whose gradients have a NaN or an infinity.
Policy = Literal["propagate", "skip", "raise"]
POLICIES: tuple[Policy, ...] = ("propagate", "skip", "raise")
#: What an argument can be that a class alone knows.
Value = float | tuple[float, float] | None
Check = Callable[[str, Any], T]


class Hyperparameter(Generic[T]):
    """A descriptor that holds a checked value, and tells its owner of a change."""

    name: str

    def __init__(self, default: T, check: Check[T], *, guards: bool = False) -> None:
        self.default = default
        self.check = check
        #: Whether it keeps a divisor from zero.
        self.guards = guards
        #: Whether it is a flag: a constant of a kernel.
        self.constant = check is check_flag

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Hyperparameter[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Hyperparameter[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__[self.name]
        return value

    def __set__(self, instance: Any, value: T) -> None:
        instance._set_hyperparameters({self.name: value})


def _number(name: str, value: Any) -> float:
    if getattr(value, "shape", None) == () and hasattr(value, "item") and not isinstance(value, np.floating):
        value = value.item()  # an array without dimensions, of any library: what schedules of Optax's and JAX's return
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not real:
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    try:
        return float(value)
    except OverflowError:  # an integer beyond what a float holds is out of every range
        return math.inf if value > 0 else -math.inf


def in_range(name: str, value: Any, low: float, high: float, *, low_in: bool = True, high_in: bool = True) -> float:
    """Return `value` as a float.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is outside the range, infinite or NaN.
    """
    number = _number(name, value)
    above = number >= low if low_in else number > low
    below = number <= high if high_in else number < high
    if not (above and below and math.isfinite(number)):
        range_ = f"{'[' if low_in else '('}{low:g}, {high:g}{']' if high_in else ')'}"
        raise ValueError(f"{name} must be a finite number in {range_}, got {value!r}")
    return number


#: The largest float64 that each dtype rounds to 0: half of its least number.
_ROUNDED_TO_ZERO = {"f": 2.0**-150, "d": 0.0}


def check_not_lost(name: str, value: float, dtype: np.dtype[Any]) -> None:
    """Raise ValueError for a value above 0 that is 0 in a dtype."""
    if 0 < value <= _ROUNDED_TO_ZERO[dtype.char]:
        least = np.finfo(dtype).smallest_subnormal
        raise ValueError(f"{name} must be 0 or at least {least:.2g} where arithmetic is in {dtype}, got {value!r}")


def check_normal(name: str, value: float | None, dtype: np.dtype[Any], *, reciprocal: bool = False) -> None:
    """Raise ValueError unless a value above 0, or its reciprocal, is a normal number of a dtype; None is any."""
    if value is None:
        return
    info = np.finfo(dtype)
    low, high = float(info.smallest_normal), float(info.max)
    if not low <= (1.0 / value if reciprocal else value) <= high:
        low, high = (1.0 / high, 1.0 / low) if reciprocal else (low, high)
        raise ValueError(f"{name} must be in [{low:.2g}, {high:.2g}] where arithmetic is in {dtype}, got {value!r}")


def _decay(name: str, value: Any) -> float:
    return in_range(name, value, 0, 1, high_in=False)


def _nonnegative(name: str, value: Any) -> float:
    return in_range(name, value, 0, math.inf, high_in=False)


def _rate(name: str, value: Any) -> float | Schedule:
    return value if callable(value) else _nonnegative(name, value)


def _betas(name: str, value: Any) -> tuple[float, float]:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of numbers in [0, 1), got {value!r}") from None
    checked = _decay(f"{name}[0]", first), _decay(f"{name}[1]", second)
    return value if type(value) is tuple and checked == value else checked


def check_flag(name: str, value: Any) -> bool:
    """Return True or False.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _optional_flag(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    raise TypeError(f"{name} must be True or False, or None, got {value!r}")


def _optional_decay(name: str, value: Any) -> float | None:
    return None if value is None else _decay(name, value)


def _optional_scale(name: str, value: Any) -> float | None:
    return None if value is None else in_range(name, value, 0, math.inf, low_in=False, high_in=False)


def _optional_bound(name: str, value: Any) -> float | None:
    if value is not None and _number(name, value) == math.inf:
        return math.inf
    return _optional_scale(name, value)


def _policy(name: str, value: Any) -> Policy:
    for allowed in POLICIES:
        if isinstance(value, str) and value == allowed:
            return allowed
    raise ValueError(f"{name} must be one of {', '.join(POLICIES)}, got {value!r}")


def _optional_fraction(name: str, value: Any) -> float | None:
    return None if value is None else in_range(name, value, 0, 1)


#: The type of `lr` is that of the descriptor, with which a subclass can give another default and say nothing more.
Rate = Hyperparameter[float | Schedule]


def _declare(default: T, check: Check[T], *, guards: bool = False) -> T:
    """Return a hyperparameter, typed as what an instance has in its place: so does ``dataclasses.field``."""
    return cast("T", Hyperparameter(default, check, guards=guards))


def rate(default: float) -> Rate:
    """A learning rate: a finite number >= 0, or a callable of the step number (1, 2, ...).

    Setting it to anything else raises TypeError or ValueError, with its name, what is allowed, and what was given.
    """
    return Hyperparameter(default, _rate)


def decay(default: float) -> float:
    """A decay factor in [0, 1).

    Setting it to anything else raises TypeError or ValueError, with its name, what is allowed, and what was given.
    """
    return _declare(default, _decay)


def betas(first: float, second: float) -> tuple[float, float]:
    """A pair of decay factors, each in [0, 1).

    Setting it to anything else raises TypeError or ValueError, with its name, what is allowed, and what was given.
    """
    return _declare((first, second), _betas)


def nonnegative(default: float) -> float:
    """A finite number >= 0.

    Setting it to anything else raises TypeError or ValueError, with its name, what is allowed, and what was given.
    """
    return _declare(default, _nonnegative)


def epsilon(default: float) -> float:
    """A finite number >= 0 that keeps a divisor from zero: above 0, it is so in the dtype of the arithmetic, too.

    Setting it to anything else raises TypeError or ValueError, with its name, what is allowed, and what was given.
    """
    return _declare(default, _nonnegative, guards=True)


def optional_fraction(default: float | None) -> float | None:
    """A number in [0, 1], or None.

    Setting it to anything else raises TypeError or ValueError, with its name, what is allowed, and what was given.
    """
    return _declare(default, _optional_fraction)


def optional_decay(default: float | None) -> float | None:
    """A decay factor in [0, 1), or None."""
    return _declare(default, _optional_decay)


def optional_scale(default: float | None) -> float | None:
    """A finite number > 0, or None."""
    return _declare(default, _optional_scale)


def optional_bound(default: float | None) -> float | None:
    """A number > 0, which may be infinite, or None."""
    return _declare(default, _optional_bound)


def policy(default: Policy) -> Policy:
    """One of :data:`POLICIES`."""
    return _declare(default, _policy)


def optional_flag(default: bool | None) -> bool | None:
    """True, False or None."""
    return _declare(default, _optional_flag)


def flag(default: bool) -> bool:
    """True or False.

    Setting it to anything else raises TypeError, with its name, what is allowed, and what was given.
    """
    return _declare(default, check_flag)
