"""Schedules that are constant: everywhere, or between boundaries."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .._api.hyperparameters import _nonnegative
from .base import BaseSchedule, check_boundaries, check_entries


@dataclass(frozen=True, slots=True)
class constant(BaseSchedule):
    r"""The same learning rate at every step.

    Parameters
    ----------
    value : float
        The learning rate, >= 0.

    Raises
    ------
    TypeError, ValueError
        If `value` is no finite number >= 0.

    Notes
    -----
    .. math:: \eta_t = v

    As ``optax.constant_schedule``.

    Examples
    --------
    >>> from fastopt.schedules import constant
    >>> constant(0.1)(1000)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        self._hold(value=_nonnegative("value", self.value))

    def _after(self, t: int) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class piecewise_constant(BaseSchedule):
    r"""Learning rates that are constant between boundaries.

    Parameters
    ----------
    values : sequence of float
        The learning rates, >= 0.
    boundaries : sequence of int
        After how many updates each next one begins: increasing, >= 1, one fewer than `values`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    .. math:: \eta_t = v_i \quad \text{for} \quad b_{i-1} \le t < b_i

    for :math:`t = step - 1`. As ``optax.piecewise_constant_schedule`` and PyTorch's ``MultiStepLR(milestones=
    boundaries)``, which have factors where this has values.

    Examples
    --------
    >>> from fastopt.schedules import piecewise_constant
    >>> schedule = piecewise_constant([0.1, 0.01, 0.001], boundaries=[2, 4])
    >>> [schedule(step) for step in range(1, 7)]
    [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    """

    values: Sequence[float]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        values = tuple(
            _nonnegative(f"values[{i}]", value) for i, value in enumerate(check_entries("values", self.values))
        )
        self._hold(values=values, boundaries=check_boundaries(self.boundaries, "values", len(values)))

    def _after(self, t: int) -> float:
        return self.values[bisect_right(self.boundaries, t)]
