"""Schedules that fall, or rise, without an end of their own: exponential, inverse square root."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._api.hyperparameters import _nonnegative, check_flag, in_range
from .._arrays.checks import check_integer
from .base import BaseSchedule


@dataclass(frozen=True, slots=True)
class exponential(BaseSchedule):
    r"""A learning rate that is multiplied by the same factor every so many steps.

    Parameters
    ----------
    start : float
        The first learning rate, > 0.
    factor : float
        What it is multiplied by in `steps` updates, > 0.
    steps : int, default 1
        The number of updates for one factor, >= 1.
    end : float, default 0.0
        The learning rate at which it stops, in [0, `start`]; at least `start` if `factor` is above 1.
    staircase : bool, default False
        Multiply once, after every `steps` updates, instead of a little at each of them.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    .. math:: \eta_t = \max(\eta_{start} \, \gamma^{t / T}, \eta_{end})

    for :math:`t = step - 1` and `steps`, :math:`T`; the exponent is rounded down with `staircase`, and
    :math:`\gamma > 1` takes the minimum. As ``optax.exponential_decay(start, steps, factor, staircase=staircase,
    end_value=end)``, and PyTorch's ``ExponentialLR(gamma=factor)`` or, with `staircase`, ``StepLR(steps,
    gamma=factor)``. A factor above 1 serves a range test, in which the learning rate
    rises until training diverges.

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", arXiv:1506.01186, section 3.3 (the
    range test, there with a linear schedule).

    Examples
    --------
    >>> from fastopt.schedules import exponential
    >>> schedule = exponential(1.0, 0.5, steps=2, end=0.3, staircase=True)
    >>> [schedule(step) for step in range(1, 7)]
    [1.0, 1.0, 0.5, 0.5, 0.3, 0.3]
    """

    start: float
    factor: float
    steps: int = 1
    end: float = 0.0
    staircase: bool = False

    def __post_init__(self) -> None:
        start = in_range("start", self.start, 0, math.inf, low_in=False, high_in=False)
        factor = in_range("factor", self.factor, 0, math.inf, low_in=False, high_in=False)
        steps, staircase = check_integer("steps", self.steps, 1), check_flag("staircase", self.staircase)
        if factor > 1:
            end = in_range("end", self.end, start, math.inf, high_in=False)
        else:
            end = in_range("end", self.end, 0, start)
        self._hold(start=start, factor=factor, steps=steps, end=end, staircase=staircase)

    def _after(self, t: int) -> float:
        try:
            value = self.start * self.factor ** (t // self.steps if self.staircase else t / self.steps)
        except OverflowError:  # of a factor above 1
            return self.end
        return min(value, self.end) if self.factor > 1 else max(value, self.end)


@dataclass(frozen=True, slots=True)
class inverse_sqrt(BaseSchedule):
    r"""A learning rate that falls with the square root of the step.

    Parameters
    ----------
    start : float
        The first learning rate, >= 0.
    timescale : float, default 1.0
        The number of updates after which it has fallen by the square root of 2, > 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    .. math:: \eta_t = \frac{\eta_{start}}{\sqrt{1 + t / \tau}}

    for :math:`t = step - 1` and `timescale`, :math:`\tau`; with the default it is :math:`\eta_{start} / \sqrt{step}`.
    The schedule of the Transformer, linear up to `peak` at step :math:`\tau` and
    :math:`peak \sqrt{\tau / step}` from there, is ``warmup(inverse_sqrt(peak, tau), steps=tau - 1, start=peak / tau)``.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980, section 4.
    A. Vaswani et al., "Attention is all you need", arXiv:1706.03762, equation 3.

    Examples
    --------
    >>> from fastopt.schedules import inverse_sqrt
    >>> schedule = inverse_sqrt(1.0, timescale=100)
    >>> [schedule(step) for step in (1, 301, 1501)]
    [1.0, 0.5, 0.25]
    """

    start: float
    timescale: float = 1.0

    def __post_init__(self) -> None:
        timescale = in_range("timescale", self.timescale, 0, math.inf, low_in=False, high_in=False)
        self._hold(start=_nonnegative("start", self.start), timescale=timescale)

    def _after(self, t: int) -> float:
        return self.start / math.sqrt(1.0 + t / self.timescale)
