"""What schedules share: how a step is counted, what an argument can be, and the way from one value to another."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from .._api.hyperparameters import Schedule, _nonnegative
from .._arrays.checks import check_integer


class BaseSchedule:
    """A schedule; a subclass provides ``_after``, and checks its arguments where it is made."""

    __slots__ = ()

    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`.

        Raises
        ------
        TypeError, ValueError
            If `step` is no integer >= 1.
        """
        if type(step) is not int or step < 1:  # what optimizers count passes without a call
            step = check_integer("step", step, 1)
        return self._after(step - 1)

    def _after(self, t: int) -> float:
        """Return the learning rate after `t` updates."""
        raise NotImplementedError

    def _hold(self, **checked: object) -> None:
        """Set checked arguments in the place of those that were given."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def check_entries(name: str, given: Any) -> tuple[Any, ...]:
    """Return the entries of a sequence.

    Raises
    ------
    TypeError
        If it is none.
    """
    try:
        return tuple(given)
    except TypeError:
        raise TypeError(f"{name} must be a sequence, got {type(given).__name__} {given!r}") from None


def check_boundaries(given: Any, between: str, number: int) -> tuple[int, ...]:
    """Return the boundaries between the `number` entries of the argument `between`.

    Raises
    ------
    TypeError, ValueError
        If they are not increasing integers >= 1, one fewer than there are entries.
    """
    if not number:
        raise ValueError(f"{between} must have at least one entry, got none")
    entries = check_entries("boundaries", given)
    boundaries = tuple(check_integer(f"boundaries[{j}]", entry, 1) for j, entry in enumerate(entries))
    if len(boundaries) != number - 1:
        raise ValueError(f"boundaries must have one entry fewer than {between}, {number - 1}, got {len(boundaries)}")
    for j, (before, after) in enumerate(pairwise(boundaries), 1):
        if after <= before:
            raise ValueError(f"boundaries[{j}] must be above boundaries[{j - 1}], {before}, got {after}")
    return boundaries


def remaining(t: float, steps: float) -> float:
    """Return the share of `steps` that is left after `t` updates, from 1 to 0."""
    return (steps - t) / steps if t < steps else 0.0


def blend(start: float, end: float, weight: float) -> float:
    """Return the mean of two values: exactly `start` at a weight of 1, exactly `end` at 0."""
    return weight * start + (1.0 - weight) * end


def value_of(name: str, schedule: float | Schedule, t: int) -> float:
    """Return the learning rate, after `t` updates, of what was combined.

    Raises
    ------
    TypeError, ValueError
        If a function of the caller's returns no finite number >= 0.
    """
    if isinstance(schedule, BaseSchedule):
        return schedule._after(t)
    if not callable(schedule):
        return schedule
    value = schedule(t + 1)
    if type(value) is float and 0 <= value < math.inf:  # what most functions return passes without a call
        return value
    return _nonnegative(f"{name}({t + 1})", value)
