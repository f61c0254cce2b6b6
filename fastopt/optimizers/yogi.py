"""Yogi."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, nonnegative, power, rate, state

__all__ = ["Yogi", "yogi"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    alpha: float  # lr / (1 - b1^t): the learning rate, with the bias correction of m
    b1: float
    gain1: float  # 1 - b1
    gain2: float  # 1 - b2
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float


class Yogi(Optimizer):
    r"""Yogi: Adam whose second moment moves towards the squared gradient by steps that do not depend on its own size.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-2
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two moments, each in [0, 1).
    eps : float, default 1e-3
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    initial_accumulator_value : float, default 1e-6
        What both moments begin with, >= 0; read when the optimizer is made. For the function form the caller fills
        them.
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
        v_t &= v_{t-1} - (1 - \beta_2) \, \mathrm{sign}(v_{t-1} - g_t^2) \, g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \quad \hat v_t = v_t / (1 - \beta_2^t) \\
        \theta_t &= \theta_{t-1} - \eta \frac{\hat m_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon}

    Where gradients become small, Adam's second moment decays by the factor :math:`\beta_2` in each step, and the steps
    grow again; that of Yogi shrinks by no more than their squares. The correction of the bias is Optax's, and the paper
    has none.

    Moves 28 bytes per float32 element: reads 16, writes 12.

    References
    ----------
    M. Zaheer, S. Reddi, D. Sachan, S. Kale, S. Kumar, "Adaptive methods for nonconvex optimization", NeurIPS 2018,
    algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Yogi(p, lr=0.1, initial_accumulator_value=0.0, eps=0.0)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p
    array([0.9, 2.1])
    """

    lr = rate(1e-2)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-3)
    eps_root: float = epsilon(0.0)
    initial_accumulator_value: float = nonnegative(1e-6)

    m = state(init="initial_accumulator_value")  # first moment: average of g
    v = state(nonnegative=True, init="initial_accumulator_value")  # second moment, of the size of g²

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root) -> Scalars:
        b1, b2 = betas
        return Scalars(
            alpha=lr / (1.0 - power(b1, step)),
            b1=b1,
            gain1=1.0 - b1,
            gain2=1.0 - b2,
            correction2=1.0 / (1.0 - power(b2, step)),
            eps_root=eps_root,
            eps=eps,
        )

    @staticmethod
    def rule(s, g, p, m, v):
        m = s.b1 * m + s.gain1 * g
        square = g * g
        v = v - s.gain2 * np.sign(v - square) * square  # never below 0: what is taken away is less than v
        return p - s.alpha * m / (np.sqrt(s.correction2 * v + s.eps_root) + s.eps), m, v


yogi = as_function(Yogi)
