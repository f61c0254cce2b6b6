"""RMSprop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import decay, epsilon, flag, rate, state

__all__ = ["RMSprop", "rmsprop"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    beta: float
    gain: float  # 1 - beta
    eps: float
    eps_root: float
    momentum: float
    zero: float


class RMSprop(Optimizer):
    r"""RMSprop: the gradient divided by a running root mean square of it.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-2
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    beta : float, default 0.9
        Decay factor of the running averages, in [0, 1).
    eps : float, default 0.0
        Added to the root, >= 0.
    eps_root : float, default 1e-8
        Added under the root, >= 0.
    centered : bool, default False
        Divide by the running standard deviation: subtract the squared running mean under the root.
        Adds the state ``mu``. Fixed once the optimizer exists.
    momentum : float, default 0.0
        Decay factor of a velocity that accumulates the divided gradients, in [0, 1); 0 means none.
        Above 0 adds the state ``v``; whether there is one is fixed once the optimizer exists.
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
        ``state["s"]``, the running mean of squared gradients, ``state["mu"]``, that of gradients, if
        `centered`, and ``state["v"]``, the velocity, if `momentum`; each arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        s_t &= \beta s_{t-1} + (1 - \beta) g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta \frac{g_t}{\sqrt{s_t + \epsilon_{root}} + \epsilon}

    Centered, with :math:`\mu_t = \beta \mu_{t-1} + (1 - \beta) g_t`, the root is of
    :math:`s_t - \mu_t^2 + \epsilon_{root}`, the difference taken as at least 0: rounding can bring it
    below, and without a floor its root is NaN. With momentum, :math:`v_t = \rho v_{t-1} + d_t` collects the
    quotient :math:`d_t` and :math:`\theta_t = \theta_{t-1} - \eta v_t`.

    Moves 20 bytes per float32 element (reads 12, writes 8), and 8 more for each of `centered` and
    `momentum`.

    References
    ----------
    T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera: Neural Networks for Machine Learning, 2012.
    A. Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, equations 38-45
    (centered, with momentum).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.RMSprop(p, lr=0.1, beta=0.75)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> p.round(6)
    array([0.8, 2.2])
    """

    lr = rate(1e-2)
    beta: float = decay(0.9)
    eps: float = epsilon(0.0)
    eps_root: float = epsilon(1e-8)
    centered: bool = flag(False)
    momentum: float = decay(0.0)

    s = state(nonnegative=True)  # average of g²
    mu = state(when="centered")  # average of g
    v = state(when="momentum")  # velocity

    @staticmethod
    def scalars(step: object, lr, beta, eps, eps_root, momentum) -> Scalars:
        return Scalars(lr=lr, beta=beta, gain=1.0 - beta, eps=eps, eps_root=eps_root, momentum=momentum, zero=0.0)

    @staticmethod
    def rule(s, g, p, sq, mu, v):
        sq = s.beta * sq + s.gain * (g * g)
        variance = sq
        if s.centered:
            mu = s.beta * mu + s.gain * g
            variance = np.maximum(sq - mu * mu, s.zero)  # rounding may bring it below 0
        d = g / (np.sqrt(variance + s.eps_root) + s.eps)
        if s.has_v:
            v = s.momentum * v + d
            d = v
        return p - s.lr * d, sq, mu, v


rmsprop = as_function(RMSprop)
