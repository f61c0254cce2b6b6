"""LARS: momentum with a learning rate for each tensor."""

from __future__ import annotations

from typing import NamedTuple

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import decay, epsilon, flag, nonnegative, rate, state, trust_ratio

__all__ = ["LARS", "lars"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    beta: float
    trust: float  # the trust coefficient
    eps: float
    one: float


class Norms(NamedTuple):
    """What the rule has the norms of."""

    size: float
    change: float


class LARS(Optimizer):
    r"""LARS: gradient descent with momentum, whose learning rate each tensor has for itself.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape. Each array is a layer.
    lr : float or callable, default 1.0
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    beta : float, default 0.9
        Decay factor of the velocity, in [0, 1).
    trust : float, default 1e-3
        The trust coefficient, >= 0: how much of its norm a tensor changes by, at a learning rate of 1.
    eps : float, default 0.0
        Added to the norm of the gradient, >= 0.
    nesterov : bool, default False
        Look ahead: step along ``beta * v + u``.
    weight_decay : float, default 0.0
        Decay factor, >= 0.
    decoupled : bool, default False
        Decay the parameter itself (``p -= lr * weight_decay * p``) instead of adding
        ``weight_decay * p`` to the gradient, whose norm it then is not a part of.
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
        ``state["v"]``, the velocity, which has the learning rate in it; arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        u_t &= \eta \, \frac{\tau \lVert \theta_{t-1} \rVert}{\lVert g_t \rVert + \epsilon} \, g_t \\
        v_t &= \beta v_{t-1} + u_t \\
        \theta_t &= \theta_{t-1} - v_t

    where :math:`\tau` is the trust coefficient, the norms are those of the tensor, and :math:`g_t` has the weight decay
    in it, as in Optax; the paper adds the norms of the two. Where a norm is 0 the quotient is 1; one NaN is a NaN for
    the whole tensor. If `decoupled`, :math:`\theta_{t-1}` has decayed before.

    Moves 20 bytes per float32 element (reads 12, writes 8), and reads 8 more first, for the norms.

    References
    ----------
    Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", arXiv:1708.03888, algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([3.0, 4.0])
    >>> opt = fastopt.LARS(p, trust=0.1)
    >>> opt.step(np.array([1.0, 0.0]))
    >>> p
    array([2.5, 4. ])
    """

    lr = rate(1.0)
    beta: float = decay(0.9)
    trust: float = nonnegative(1e-3)
    eps: float = epsilon(0.0)
    nesterov: bool = flag(False)

    v = state()  # velocity

    @staticmethod
    def scalars(step: object, lr, beta, trust, eps) -> Scalars:
        return Scalars(lr=lr, beta=beta, trust=trust, eps=eps, one=1.0)

    @staticmethod
    def norms(s, g, p, v) -> Norms:
        return Norms(size=p, change=g)

    @staticmethod
    def rule(s, g, p, v):
        u = s.lr * trust_ratio(s.size, s.change, s.trust, s.eps, s.one) * g
        v = s.beta * v + u
        d = v
        if s.nesterov:  # the velocity that the next step would have with this gradient
            d = s.beta * v + u
        return p - d, v


lars = as_function(LARS)
