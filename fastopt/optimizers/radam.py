"""RAdam."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, power, rate, state

__all__ = ["RAdam", "radam"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    alpha: float  # lr / (1 - b1^t): the learning rate, with the bias correction of m
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float  # eps + eps_hat / sqrt(1 - b2^t)
    r: float  # the rectification; 0 in the first steps, in which the variance of 1 / sqrt(v) has no bound
    plain: float  # 1 in the first steps, then 0


class RAdam(Optimizer):
    r"""RAdam: Adam whose first steps are rectified for the variance of the adaptive learning rate.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    eps_hat : float, default 0.0
        Added to the root of the second moment before its bias is corrected, >= 0, as PyTorch does.
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
        ``state["m"]`` and ``state["v"]``, the first and the second moment, arranged as `params`.
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
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \quad \hat v_t = v_t / (1 - \beta_2^t) \\
        \rho_\infty &= 2 / (1 - \beta_2) - 1, \quad \rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t) \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}} \\
        \theta_t &= \theta_{t-1} - \eta \begin{cases}
            r_t \hat m_t / (\sqrt{\hat v_t + \epsilon_{root}} + \epsilon + \hat\epsilon / \sqrt{1 - \beta_2^t})
            & \text{if } \rho_t > 5 \\ \hat m_t & \text{otherwise} \end{cases}

    The threshold is 5, as in the authors' code, PyTorch and Optax; the paper has 4 and no epsilon.

    Moves 28 bytes per float32 element: reads 16, writes 12.

    References
    ----------
    L. Liu et al., "On the variance of the adaptive learning rate and beyond", arXiv:1908.03265, algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.RAdam(p, lr=0.1)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p
    array([0.9, 2.5])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-8)
    eps_root: float = epsilon(0.0)
    eps_hat: float = epsilon(0.0)

    m = state()  # first moment: average of g
    v = state(nonnegative=True)  # second moment: average of g²

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root, eps_hat) -> Scalars:
        b1, b2 = betas
        decayed = power(b2, step)
        c2 = 1.0 - decayed
        # Of how many gradients v is an average: in the end, and now.
        rho_inf = 2.0 / (1.0 - b2) - 1.0
        rho = rho_inf - 2.0 * step * decayed / c2
        r, plain, eps = 0.0, 1.0, eps + eps_hat / math.sqrt(c2)
        if rho > 5.0:
            r = math.sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))
            plain = 0.0
        else:
            eps = 1.0  # 0 is divided by the root, which must not be 0
        return Scalars(
            alpha=lr / (1.0 - power(b1, step)),
            b1=b1,
            gain1=1.0 - b1,
            b2=b2,
            gain2=1.0 - b2,
            correction2=1.0 / c2,
            eps_root=eps_root,
            eps=eps,
            r=r,
            plain=plain,
        )

    @staticmethod
    def rule(s, g, p, m, v):
        m = s.b1 * m + s.gain1 * g
        v = s.b2 * v + s.gain2 * (g * g)
        root = np.sqrt(s.correction2 * v + s.eps_root) + s.eps
        return p - s.alpha * m * (s.r / root + s.plain), m, v  # a branch here would make two loops of one


radam = as_function(RAdam)
