"""Gradient descent with momentum."""

from __future__ import annotations

from typing import NamedTuple

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import decay, flag, optional_fraction, rate, state

__all__ = ["Momentum", "momentum"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    beta: float
    gain: float  # 1 - dampening


class Momentum(Optimizer):
    r"""Gradient descent with momentum: Polyak's heavy ball, or Nesterov's accelerated gradient.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-2
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    beta : float, default 0.9
        Decay factor of the velocity, in [0, 1).
    dampening : float or None, default None
        The gradient enters the velocity with the factor ``1 - dampening``, in [0, 1]. None means
        `beta`, which makes the velocity an exponential average; PyTorch, Optax and Keras have 0.
    nesterov : bool, default False
        Look ahead: step along ``beta * v + (1 - dampening) * g``.
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
        ``state["v"]``, the velocity, arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        v_t &= \beta v_{t-1} + (1 - \delta) g_t \\
        \theta_t &= \theta_{t-1} - \eta v_t

    Moves 20 bytes per float32 element: reads 12, writes 8.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013,
    equations 1-4.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Momentum(p, lr=0.5)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> opt.state["v"]
    array([ 0.1, -0.1])
    """

    lr = rate(1e-2)
    beta: float = decay(0.9)
    dampening: float | None = optional_fraction(None)
    nesterov: bool = flag(False)

    v = state()  # velocity

    @property
    def gain(self) -> float:
        """The factor with which a gradient enters the velocity."""
        return 1.0 - (self.beta if self.dampening is None else self.dampening)

    @staticmethod
    def scalars(step: object, lr, beta, gain) -> Scalars:
        return Scalars(lr=lr, beta=beta, gain=gain)

    @staticmethod
    def rule(s, g, p, v):
        v = s.beta * v + s.gain * g
        d = v
        if s.nesterov:  # the velocity that the next step would have with this gradient
            d = s.beta * v + s.gain * g
        return p - s.lr * d, v


momentum = as_function(Momentum)
