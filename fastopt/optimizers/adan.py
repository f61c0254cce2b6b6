"""Adan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, decay, epsilon, flag, power, rate, state

__all__ = ["Adan", "adan"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    part_m: float  # lr / (1 - b1^t): of m, with its bias correction
    part_v: float  # lr b2 / (1 - b2^t): of v, with its bias correction
    b1: float
    gain1: float  # 1 - b1
    b2: float  # 0 in the first step, before which there is no gradient
    gain2: float  # 1 - b2; 0 in the first step
    b3: float
    gain3: float  # 1 - b3
    correction3: float  # 1 / (1 - b3^t): the bias correction of n
    eps_root: float
    eps: float


class Adan(Optimizer):
    r"""Adan: adaptive Nesterov momentum, by way of the difference of two gradients in a row.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.98, 0.92)
        Decay factors, each in [0, 1): of the average of gradients, and of that of their differences; the paper's 1 -
        beta1 and 1 - beta2.
    beta3 : float, default 0.99
        Decay factor of the average of squares, in [0, 1); the paper's 1 - beta3.
    eps : float, default 1e-8
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0.
    decoupled : bool, default True
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
        ``state["m"]``, ``state["v"]`` and ``state["n"]``, the averages of gradients, of their differences and of
        squares, and ``state["last"]``, the gradient of the step before; each arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        d_t &= g_t - g_{t-1}, \quad d_1 = 0 \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t \\
        n_t &= \beta_3 n_{t-1} + (1 - \beta_3) (g_t + \beta_2 d_t)^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \quad \hat v_t = v_t / (1 - \beta_2^t), \quad
            \hat n_t = n_t / (1 - \beta_3^t) \\
        \theta_t &= (1 - \eta \lambda) \theta_{t-1}
            - \eta \frac{\hat m_t + \beta_2 \hat v_t}{\sqrt{\hat n_t + \epsilon_{root}} + \epsilon}

    where :math:`\lambda` is the decoupled weight decay. The paper divides by :math:`1 + \eta \lambda` after the step;
    to first order in :math:`\eta \lambda` that is the same. The correction of the bias is that of the authors' code.
    Optax multiplies :math:`d_t` and :math:`\hat v_t` by :math:`1 - \beta_2`, where the paper has what here is
    :math:`\beta_2`: with the same arguments it takes other steps.

    Moves 44 bytes per float32 element: reads 24, writes 20.

    References
    ----------
    X. Xie et al., "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", arXiv:2208.06677,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Adan(p, lr=0.1)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p.round(6)
    array([0.9, 2.1])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.98, 0.92)
    beta3: float = decay(0.99)
    eps: float = epsilon(1e-8)
    eps_root: float = epsilon(0.0)
    decoupled: bool = flag(True)

    m = state()  # average of g
    v = state()  # average of the differences
    n = state(nonnegative=True)  # average of the squares
    last = state()  # g of the step before

    @staticmethod
    def scalars(step: int, lr, betas, beta3, eps, eps_root) -> Scalars:
        b1, b2 = betas
        later = 1.0 if step > 1 else 0.0
        return Scalars(
            part_m=lr / (1.0 - power(b1, step)),
            part_v=lr * b2 / (1.0 - power(b2, step)),
            b1=b1,
            gain1=1.0 - b1,
            b2=later * b2,
            gain2=later * (1.0 - b2),
            b3=beta3,
            gain3=1.0 - beta3,
            correction3=1.0 / (1.0 - power(beta3, step)),
            eps_root=eps_root,
            eps=eps,
        )

    @staticmethod
    def rule(s, g, p, m, v, n, last):
        d = g - last  # counts 0 in the first step, by the scalars
        ahead = g + s.b2 * d  # the gradient where the momentum leads
        m = s.b1 * m + s.gain1 * g
        v = s.b2 * v + s.gain2 * d
        n = s.b3 * n + s.gain3 * (ahead * ahead)
        return p - (s.part_m * m + s.part_v * v) / (np.sqrt(s.correction3 * n + s.eps_root) + s.eps), m, v, n, g


adan = as_function(Adan)
