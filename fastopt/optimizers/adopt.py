"""ADOPT."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, rate, state

__all__ = ["ADOPT", "adopt"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    b1: float
    gain1: float  # 1 - b1
    b2: float  # 0 in the first step: v begins with g²
    gain2: float  # 1 - b2
    bound: float  # (t - 1)^(1/4); 0 in the first step, which moves nothing
    eps: float  # 1 in the first step, which divides by the 0 that v begins with


class ADOPT(Optimizer):
    r"""ADOPT: Adam that divides by the second moment of the steps before, and takes the average after the quotient.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.9999)
        Decay factors of the average of quotients and of the second moment, each in [0, 1).
    eps : float, default 1e-6
        The least that is divided by, >= 0.
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
        ``state["m"]`` and ``state["v"]``, the average of quotients and the second moment, arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        u_t &= \frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)}, \quad c_t = \sqrt[4]{t - 1} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \min(\max(u_t, -c_t), c_t) \\
        \theta_t &= \theta_{t-1} - \eta \, m_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad v_1 = g_1^2

    No gradient is divided by what it is a part of, and so it converges for every :math:`\beta_2`. The first step does
    no more than to begin :math:`v`: its bound is 0. The paper counts from the second, where the bound is 1. Decoupled
    weight decay acts in the first, too.

    Moves 28 bytes per float32 element: reads 16, writes 12.

    References
    ----------
    S. Taniguchi et al., "ADOPT: modified Adam can converge with any beta2 with the optimal rate", arXiv:2411.02853,
    algorithm 2, with the bound of its section on clipping.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.ADOPT(p, lr=0.1)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> opt.step(np.array([0.5, -5.0]))
    >>> p.round(6)
    array([0.995, 2.01 ])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.9, 0.9999)
    eps: float = epsilon(1e-6)

    m = state()  # average of the quotients
    v = state(nonnegative=True)  # second moment: average of g²

    @staticmethod
    def scalars(step: int, lr, betas, eps) -> Scalars:
        b1, b2 = betas
        if step == 1:
            b2, eps = 0.0, 1.0
        return Scalars(
            lr=lr,
            b1=b1,
            gain1=1.0 - b1,
            b2=b2,
            gain2=1.0 - b2,
            bound=math.sqrt(math.sqrt(step - 1.0)),  # roots are the same everywhere, and powers are not
            eps=eps,
        )

    @staticmethod
    def rule(s, g, p, m, v):
        u = g / np.maximum(np.sqrt(v), s.eps)
        m = s.b1 * m + s.gain1 * np.minimum(np.maximum(u, -s.bound), s.bound)
        return p - s.lr * m, m, s.b2 * v + s.gain2 * (g * g)


adopt = as_function(ADOPT)
