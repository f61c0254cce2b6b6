"""Schedules made of others: warm-up, and a sequence."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .._api.hyperparameters import Schedule, _nonnegative, _rate
from .._arrays.checks import check_integer
from .base import BaseSchedule, blend, check_boundaries, check_entries, remaining, value_of


@dataclass(frozen=True, slots=True)
class warmup(BaseSchedule):
    r"""A straight line up to the first learning rate of a schedule, and then this schedule from its first step.

    Parameters
    ----------
    schedule : callable or float
        What follows: one of these schedules, a function of the step number (1, 2, ...), or a number >= 0.
    steps : int
        The number of updates before it, >= 1.
    start : float, default 0.0
        The first learning rate, >= 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable; when called, if a function returns no finite number >= 0.

    Notes
    -----
    With :math:`t = step - 1`, `steps` :math:`W` and the learning rates :math:`f(1), f(2), \dots` of `schedule`:

    .. math::
        \eta_t &= \Big(1 - \frac{t}{W}\Big) \eta_{start} + \frac{t}{W} f(1) && \text{for} \quad t < W \\
        \eta_t &= f(t - W + 1) && \text{for} \quad t \ge W

    As Optax's ``warmup_cosine_decay_schedule`` and its like, whose `decay_steps` count those of the warm-up too, and as
    PyTorch's ``LinearLR(start_factor=start / lr, total_iters=steps)`` before another in ``SequentialLR(...,
    milestones=[steps])``. At the default of `start` the first update leaves parameters as they are, and updates the
    states; with ``start=peak / (steps + 1)`` the learning rate of step :math:`s` is
    :math:`peak \cdot s / (steps + 1)` in the warm-up.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv:1706.02677, section 2.2.

    Examples
    --------
    >>> from fastopt.schedules import warmup
    >>> schedule = warmup(lambda step: 1.0 / step, steps=4)
    >>> [schedule(step) for step in range(1, 8)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.3333333333333333]
    """

    schedule: float | Schedule
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        schedule, start = _rate("schedule", self.schedule), _nonnegative("start", self.start)
        self._hold(schedule=schedule, steps=check_integer("steps", self.steps, 1), start=start)

    def _after(self, t: int) -> float:
        if t < self.steps:
            return blend(self.start, value_of("schedule", self.schedule, 0), remaining(t, self.steps))
        return value_of("schedule", self.schedule, t - self.steps)


@dataclass(frozen=True, slots=True)
class sequence(BaseSchedule):
    r"""Schedules that follow one another, each from its first step.

    Parameters
    ----------
    schedules : sequence of callable or float
        What follows one another: these schedules, functions of the step number (1, 2, ...), numbers >= 0.
    boundaries : sequence of int
        After how many updates each next one begins: increasing, >= 1, one fewer than `schedules`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable; when called, if a function returns no finite number >= 0.

    Notes
    -----
    .. math:: \eta_t = f_i(t - b_{i-1} + 1) \quad \text{for} \quad b_{i-1} \le t < b_i

    for :math:`t = step - 1` and :math:`b_0 = 0`. As ``optax.join_schedules(schedules, boundaries)``, and PyTorch's
    ``SequentialLR(optimizer, schedulers, milestones=boundaries)``.

    Examples
    --------
    >>> from fastopt.schedules import linear, sequence
    >>> schedule = sequence([1.0, linear(1.0, 0.0, steps=2), linear(0.5, 0.0, steps=2)], boundaries=[2, 4])
    >>> [schedule(step) for step in range(1, 9)]
    [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.0, 0.0]
    """

    schedules: Sequence[float | Schedule]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        entries = check_entries("schedules", self.schedules)
        schedules = tuple(_rate(f"schedules[{i}]", entry) for i, entry in enumerate(entries))
        self._hold(schedules=schedules, boundaries=check_boundaries(self.boundaries, "schedules", len(schedules)))

    def _after(self, t: int) -> float:
        i = bisect_right(self.boundaries, t)
        began = self.boundaries[i - 1] if i else 0
        return value_of(f"schedules[{i}]", self.schedules[i], t - began)
