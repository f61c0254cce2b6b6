"""Gradient descent."""

from __future__ import annotations

from typing import NamedTuple

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import rate

__all__ = ["GD", "gd"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float


class GD(Optimizer):
    r"""Gradient descent.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-2
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
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
        Empty: gradient descent has no state.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math:: \theta_t = \theta_{t-1} - \eta g_t

    Moves 12 bytes per float32 element: reads 8, writes 4.

    References
    ----------
    A. Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées", 1847.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.GD(p, lr=0.5)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> p
    array([0.5, 2.5])
    """

    lr = rate(1e-2)

    @staticmethod
    def scalars(step: object, lr) -> Scalars:
        return Scalars(lr=lr)

    @staticmethod
    def rule(s, g, p):
        return p - s.lr * g


gd = as_function(GD)
