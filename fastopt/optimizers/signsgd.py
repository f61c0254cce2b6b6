"""SignSGD and Signum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import decay, rate, state

__all__ = ["SignSGD", "signsgd"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    beta: float  # momentum
    gain: float  # 1 - momentum


class SignSGD(Optimizer):
    r"""SignSGD: the sign of the gradient, or of its average (Signum), a step of the same length for every element.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-4
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    momentum : float, default 0.0
        Decay factor of the average whose sign is the step, in [0, 1). Above 0 this is Signum, and adds the state ``m``;
        whether it is 0 is fixed once the optimizer exists.
    weight_decay : float, default 0.0
        Decay factor, >= 0.
    decoupled : bool, default False
        Decay the parameter itself (``p -= lr * weight_decay * p``) instead of adding
        ``weight_decay * p`` to the gradient.
    maximize : bool, default False
        Ascend instead.
    grad_scale, clip_value, clip_norm, nonfinite, ema
        What is done to gradients first, and an average of the parameters: as for :class:`fastopt.Optimizer`.
    reproducible : bool, optional
        Round every operation by itself, for the same bits on every processor; by default where all arrays are
        float32 or float64.
    groups, state_dtype, rounding, master, copy_to, zero_grads, seed, capturable
        Which parameters have others, how numbers are stored, and where: as for :class:`fastopt.Optimizer`.

    Attributes
    ----------
    params : as given
    state : dict
        ``state["m"]``, the average of gradients, if `momentum`, arranged as `params`; else empty.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        m_t &= \beta m_{t-1} + (1 - \beta) g_t \\
        \theta_t &= \theta_{t-1} - \eta \, \mathrm{sign}(m_t)

    with :math:`\mathrm{sign}(0) = 0`; without `momentum`, :math:`m_t = g_t`. The bias of the average is not corrected:
    its sign has none.

    Moves 12 bytes per float32 element (reads 8, writes 4), and 8 more with `momentum`.

    References
    ----------
    J. Bernstein et al., "signSGD: compressed optimisation for non-convex problems", arXiv:1802.04434, algorithms 1
    and 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.SignSGD(p, lr=0.1)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p
    array([0.9, 2.1])
    """

    lr = rate(1e-4)
    momentum: float = decay(0.0)

    m = state(when="momentum")  # average of g

    @staticmethod
    def scalars(step: object, lr, momentum) -> Scalars:
        return Scalars(lr=lr, beta=momentum, gain=1.0 - momentum)

    @staticmethod
    def rule(s, g, p, m):
        d = g
        if s.has_m:
            m = s.beta * m + s.gain * g
            d = m
        return p - s.lr * np.sign(d), m


signsgd = as_function(SignSGD)
