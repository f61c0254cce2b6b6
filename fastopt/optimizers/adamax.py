"""Adamax."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, power, rate, state

__all__ = ["Adamax", "adamax"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    alpha: float  # lr / (1 - b1^t): the learning rate, with the bias correction of m
    b1: float
    gain1: float  # 1 - b1
    b2: float
    eps: float


class Adamax(Optimizer):
    r"""Adamax: Adam with the infinity norm in the place of the second moment.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 2e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the first moment and of the norm, each in [0, 1).
    eps : float, default 1e-8
        Added to the absolute value of the gradient, >= 0; 0 in the paper, which divides 0 by 0 where all gradients
        were 0.
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
        ``state["m"]``, the first moment, and ``state["u"]``, the exponentially weighted infinity norm, arranged as
        `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \frac{\eta}{1 - \beta_1^t} \frac{m_t}{u_t}

    Moves 28 bytes per float32 element: reads 16, writes 12.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Adamax(p, lr=0.1)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> p.round(6)
    array([0.9, 2.1])
    """

    lr = rate(2e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-8)

    m = state()  # first moment: average of g
    u = state(nonnegative=True)  # infinity norm of the gradients so far, each of them decayed

    @staticmethod
    def scalars(step: int, lr, betas, eps) -> Scalars:
        b1, b2 = betas
        return Scalars(alpha=lr / (1.0 - power(b1, step)), b1=b1, gain1=1.0 - b1, b2=b2, eps=eps)

    @staticmethod
    def rule(s, g, p, m, u):
        m = s.b1 * m + s.gain1 * g
        u = np.maximum(s.b2 * u, np.abs(g) + s.eps)
        return p - s.alpha * m / u, m, u


adamax = as_function(Adamax)
