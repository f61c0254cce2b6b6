"""LAMB: Adam with a learning rate for each tensor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, flag, helper, power, rate, state, trust_ratio

__all__ = ["LAMB", "lamb"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    correction1: float  # 1 / (1 - b1^t): the bias correction of m
    correction2: float  # 1 / (1 - b2^t): that of v
    eps_root: float
    eps: float
    decay: float  # decoupled weight decay
    one: float


class Norms(NamedTuple):
    """What the rule has the norms of."""

    size: float
    change: float


@helper
def _update(s, g, p, m, v):
    """Return the moments, and what a step of Adam with weight decay changes `p` by, but for the learning rate."""
    m = s.b1 * m + s.gain1 * g
    v = s.b2 * v + s.gain2 * (g * g)
    root = np.sqrt(s.correction2 * v + s.eps_root)
    return m, v, s.correction1 * m / (root + s.eps) + s.decay * p


class LAMB(Optimizer):
    r"""LAMB: Adam, whose learning rate each tensor has for itself.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape. Each array is a layer.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two moments, each in [0, 1).
    eps : float, default 1e-6
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0: ``weight_decay * p`` is added to the change, and is a part of its norm.
    decoupled : bool, default True
        Add it to Adam's quotient; False adds it to the gradient.
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
        ``state["m"]`` and ``state["v"]``, the first and the second moment; each arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad \hat m_t = m_t / (1 - \beta_1^t) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad \hat v_t = v_t / (1 - \beta_2^t) \\
        u_t &= \frac{\hat m_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon} + \lambda \theta_{t-1} \\
        \theta_t &= \theta_{t-1} - \eta \, \frac{\lVert \theta_{t-1} \rVert}{\lVert u_t \rVert} \, u_t

    with the norms of the tensor; where one of them is 0 the quotient is 1, and one NaN is a NaN for the whole
    tensor. The paper's bounds on the norm of the parameters are not applied, as in Optax.

    Moves 28 bytes per float32 element (reads 16, writes 12), and reads 16 more first, for the norms.

    References
    ----------
    Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", arXiv:1904.00962,
    algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([3.0, 4.0])
    >>> opt = fastopt.LAMB(p, lr=0.1, eps=0.0)
    >>> opt.step(np.array([1.0, -2.0]))
    >>> p.round(6)
    array([2.646447, 4.353553])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-6)
    eps_root: float = epsilon(0.0)
    decoupled: bool = flag(True)
    own_decay = True

    m = state()  # first moment: average of g
    v = state(nonnegative=True)  # second moment: average of g²

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root, weight_decay, decoupled) -> Scalars:
        b1, b2 = betas
        return Scalars(
            lr=lr,
            b1=b1,
            gain1=1.0 - b1,
            b2=b2,
            gain2=1.0 - b2,
            correction1=1.0 / (1.0 - power(b1, step)),
            correction2=1.0 / (1.0 - power(b2, step)),
            eps_root=eps_root,
            eps=eps,
            decay=weight_decay if decoupled else 0.0,
            one=1.0,
        )

    @staticmethod
    def norms(s, g, p, m, v) -> Norms:
        m, v, u = _update(s, g, p, m, v)
        return Norms(size=p, change=u)

    @staticmethod
    def rule(s, g, p, m, v):
        m, v, u = _update(s, g, p, m, v)
        return p - s.lr * trust_ratio(s.size, s.change, s.one, s.one - s.one, s.one) * u, m, v


lamb = as_function(LAMB)
