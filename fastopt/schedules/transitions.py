"""Schedules from one learning rate to another: linear, polynomial, cosine, one cycle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._api.hyperparameters import _decay, _nonnegative, in_range
from .._arrays.checks import check_integer
from .base import BaseSchedule, blend, remaining


def cosine_of(share: float) -> float:
    """Return the weight of the first value in a cosine decay of which this share is left."""
    # (1 + cos(pi (1 - x))) / 2 = sin²(pi x / 2), which has all of its digits near 0, too.
    return math.sin(0.5 * math.pi * share) ** 2


@dataclass(frozen=True, slots=True)
class linear(BaseSchedule):
    r"""A straight line from one learning rate to another.

    Parameters
    ----------
    start, end : float
        The first and the last learning rate, >= 0.
    steps : int
        After how many updates the last one is reached, >= 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    .. math:: \eta_t = \Big(1 - \frac{t}{T}\Big) \eta_{start} + \frac{t}{T} \eta_{end}

    for :math:`t = step - 1` up to `steps`, :math:`T`, and :math:`\eta_{end}` from there. As
    ``optax.linear_schedule(start, end, steps)``, and PyTorch's ``LinearLR(start_factor=start / lr,
    end_factor=end / lr, total_iters=steps)``.

    Examples
    --------
    >>> from fastopt.schedules import linear
    >>> schedule = linear(1.0, 0.0, steps=4)
    >>> [schedule(step) for step in range(1, 8)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        start, end = _nonnegative("start", self.start), _nonnegative("end", self.end)
        self._hold(start=start, end=end, steps=check_integer("steps", self.steps, 1))

    def _after(self, t: int) -> float:
        return blend(self.start, self.end, remaining(t, self.steps))


@dataclass(frozen=True, slots=True)
class polynomial(BaseSchedule):
    r"""A power of the steps that are left, from one learning rate to another.

    Parameters
    ----------
    start, end : float
        The first and the last learning rate, >= 0.
    steps : int
        After how many updates the last one is reached, >= 1.
    power : float
        The exponent, > 0: 1 is :class:`linear`, above it the change is fastest at first.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    .. math:: \eta_t = \eta_{end} + (\eta_{start} - \eta_{end}) \Big(1 - \frac{t}{T}\Big)^P

    for :math:`t = step - 1` up to `steps`, :math:`T`, and :math:`\eta_{end}` from there. As
    ``optax.polynomial_schedule(start, end, power, steps)``; with ``end=0.0`` as PyTorch's
    ``PolynomialLR(total_iters=steps, power=power)``.

    Examples
    --------
    >>> from fastopt.schedules import polynomial
    >>> schedule = polynomial(1.0, 0.0, steps=4, power=2)
    >>> [schedule(step) for step in range(1, 7)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    start: float
    end: float
    steps: int
    power: float

    def __post_init__(self) -> None:
        start, end = _nonnegative("start", self.start), _nonnegative("end", self.end)
        power = in_range("power", self.power, 0, math.inf, low_in=False, high_in=False)
        self._hold(start=start, end=end, steps=check_integer("steps", self.steps, 1), power=power)

    def _after(self, t: int) -> float:
        return blend(self.start, self.end, remaining(t, self.steps) ** self.power)


@dataclass(frozen=True, slots=True)
class cosine(BaseSchedule):
    r"""Half a period of a cosine from one learning rate to another.

    Parameters
    ----------
    start : float
        The first learning rate, >= 0.
    steps : int
        After how many updates the last one is reached, >= 1.
    end : float, default 0.0
        The last learning rate, >= 0; it may be above the first one.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    .. math:: \eta_t = \eta_{end} + \frac{1}{2} (\eta_{start} - \eta_{end}) \Big(1 + \cos \frac{\pi t}{T}\Big)

    for :math:`t = step - 1` up to `steps`, :math:`T`, and :math:`\eta_{end}` from there. As
    ``optax.cosine_decay_schedule(start, steps, alpha=end / start)``, and up to there as PyTorch's
    ``CosineAnnealingLR(T_max=steps, eta_min=end)``, which rises again afterwards. Warm restarts are a
    :class:`sequence` of such schedules.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", arXiv:1608.03983, equation 5.

    Examples
    --------
    >>> from fastopt.schedules import cosine
    >>> schedule = cosine(1.0, steps=4)
    >>> [round(schedule(step), 4) for step in range(1, 7)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    start: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        start, end = _nonnegative("start", self.start), _nonnegative("end", self.end)
        self._hold(start=start, steps=check_integer("steps", self.steps, 1), end=end)

    def _after(self, t: int) -> float:
        return blend(self.start, self.end, cosine_of(remaining(t, self.steps)))


@dataclass(frozen=True, slots=True)
class one_cycle(BaseSchedule):
    r"""Half a cosine up to a peak, and half a cosine down to far below where it began.

    Parameters
    ----------
    peak : float
        The highest learning rate, >= 0.
    steps : int
        After how many updates the last one is reached, >= 1.
    pct_start : float, default 0.3
        The share of `steps` before the peak, in [0, 1).
    div_factor : float, default 25.0
        The peak divided by the first learning rate, >= 1.
    final_div_factor : float, default 1e4
        The first learning rate divided by the last one, >= 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    With :math:`t = step - 1`, `steps` :math:`T`, the peak :math:`\eta_{max}` after :math:`R = pct\_start \cdot T`
    updates, :math:`\eta_{start} = \eta_{max} / div\_factor` and
    :math:`\eta_{end} = \eta_{start} / final\_div\_factor`:

    .. math::
        \eta_t &= \eta_{max} + \frac{1}{2} (\eta_{start} - \eta_{max}) \Big(1 + \cos \frac{\pi t}{R}\Big)
            && \text{for} \quad t < R \\
        \eta_t &= \eta_{end} + \frac{1}{2} (\eta_{max} - \eta_{end}) \Big(1 + \cos \frac{\pi (t - R)}{T - R}\Big)
            && \text{for} \quad R \le t \le T

    As ``optax.cosine_onecycle_schedule(steps, peak, pct_start)``, which rounds :math:`R` down. PyTorch's
    ``OneCycleLR(peak, total_steps=n, pct_start=p)`` is at its end one update earlier, and so at its peak:
    ``steps=n - 1`` and ``pct_start=(p * n - 1) / (n - 1)`` make this the same; momentum, which it changes by default
    (``cycle_momentum``), stays what it is. A cycle of straight lines is a :class:`linear` schedule with a
    :class:`warmup`.

    References
    ----------
    L. N. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    arXiv:1708.07120. The cosine is fastai's.

    Examples
    --------
    >>> from fastopt.schedules import one_cycle
    >>> schedule = one_cycle(1.0, steps=10, pct_start=0.4, div_factor=10, final_div_factor=100)
    >>> [round(schedule(step), 4) for step in (1, 3, 5, 8, 11, 12)]
    [0.1, 0.55, 1.0, 0.5005, 0.001, 0.001]
    """

    peak: float
    steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        self._hold(
            peak=_nonnegative("peak", self.peak),
            steps=check_integer("steps", self.steps, 1),
            pct_start=_decay("pct_start", self.pct_start),
            div_factor=in_range("div_factor", self.div_factor, 1, math.inf, high_in=False),
            final_div_factor=in_range("final_div_factor", self.final_div_factor, 1, math.inf, high_in=False),
        )

    def _after(self, t: int) -> float:
        start, rise = self.peak / self.div_factor, self.pct_start * self.steps
        if t < rise:
            return blend(start, self.peak, cosine_of(remaining(t, rise)))
        return blend(self.peak, start / self.final_div_factor, cosine_of(remaining(t - rise, self.steps - rise)))
