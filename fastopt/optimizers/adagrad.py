"""Adagrad."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import epsilon, nonnegative, rate, state

__all__ = ["Adagrad", "adagrad"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    eps: float
    eps_root: float


class Adagrad(Optimizer):
    r"""Adagrad: the gradient divided by the root of the sum of all its squares so far.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-2
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    eps : float, default 1e-10
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    initial_accumulator_value : float, default 0.0
        What the sum of squares begins with, >= 0; read when the optimizer is made. For the function form the caller
        fills it.
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
        ``state["s"]``, the sum of squared gradients, arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        s_t &= s_{t-1} + g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta \frac{g_t}{\sqrt{s_t + \epsilon_{root}} + \epsilon}

    PyTorch's `lr_decay` is a learning rate of the step: ``lr=lambda step: 0.01 / (1 + (step - 1) * lr_decay)``.

    Moves 20 bytes per float32 element: reads 12, writes 8.

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    JMLR 12, 2011, with the diagonal of the matrix (section 1.1).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Adagrad(p, lr=0.1)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> opt.step(np.array([1.0, -1.0]))
    >>> p.round(6)
    array([0.829289, 2.170711])
    """

    lr = rate(1e-2)
    eps: float = epsilon(1e-10)
    eps_root: float = epsilon(0.0)
    initial_accumulator_value: float = nonnegative(0.0)

    s = state(nonnegative=True, init="initial_accumulator_value")  # sum of g²

    @staticmethod
    def scalars(step: object, lr, eps, eps_root) -> Scalars:
        return Scalars(lr=lr, eps=eps, eps_root=eps_root)

    @staticmethod
    def rule(s, g, p, sq):
        sq = sq + g * g
        return p - s.lr * g / (np.sqrt(sq + s.eps_root) + s.eps), sq


adagrad = as_function(Adagrad)
