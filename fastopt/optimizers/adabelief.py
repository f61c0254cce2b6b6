"""AdaBelief."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, power, rate, state

__all__ = ["AdaBelief", "adabelief"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    alpha: float  # lr / (1 - b1^t): the learning rate, with the bias correction of m
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float


class AdaBelief(Optimizer):
    r"""AdaBelief: Adam that divides by how far gradients are from their average, not by how large they are.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two averages, each in [0, 1).
    eps : float, default 1e-16
        Added to the root, >= 0.
    eps_root : float, default 1e-16
        Added to the average of squares in every step, >= 0: the average keeps it.
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
        ``state["m"]`` and ``state["v"]``, the average of gradients and that of their squared distances from it,
        arranged as `params`.
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
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \epsilon_{root} \\
        \hat m_t &= m_t / (1 - \beta_1^t), \quad \hat v_t = v_t / (1 - \beta_2^t) \\
        \theta_t &= \theta_{t-1} - \eta \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    The paper has one epsilon for both, 1e-8; the defaults are Optax's.

    Moves 28 bytes per float32 element: reads 16, writes 12.

    References
    ----------
    J. Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", arXiv:2010.07468,
    algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.AdaBelief(p, lr=0.1, betas=(0.5, 0.999))
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p.round(6)
    array([0.8, 2.2])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-16)
    eps_root: float = epsilon(1e-16)

    m = state()  # average of g
    v = state(nonnegative=True)  # average of (g - m)²

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root) -> Scalars:
        b1, b2 = betas
        return Scalars(
            alpha=lr / (1.0 - power(b1, step)),
            b1=b1,
            gain1=1.0 - b1,
            b2=b2,
            gain2=1.0 - b2,
            correction2=1.0 / (1.0 - power(b2, step)),
            eps_root=eps_root,
            eps=eps,
        )

    @staticmethod
    def rule(s, g, p, m, v):
        m = s.b1 * m + s.gain1 * g
        d = g - m
        v = s.b2 * v + s.gain2 * (d * d) + s.eps_root
        return p - s.alpha * m / (np.sqrt(s.correction2 * v) + s.eps), m, v


adabelief = as_function(AdaBelief)
