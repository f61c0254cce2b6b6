"""NAdam."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, power, rate, state

__all__ = ["NAdam", "nadam"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    part_m: float  # b1 / (1 - b1^(t+1)): of m, with the bias correction that it will have in the next step
    part_g: float  # (1 - b1) / (1 - b1^t): of the gradient
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov momentum.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 2e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
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
        \bar m_t &= \frac{\beta_1 m_t}{1 - \beta_1^{t+1}} + \frac{(1 - \beta_1) g_t}{1 - \beta_1^t}, \quad
            \hat v_t = \frac{v_t}{1 - \beta_2^t} \\
        \theta_t &= \theta_{t-1} - \eta \frac{\bar m_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon}

    The factor of the momentum is constant, as Optax has it. In PyTorch and Keras it grows with the step
    (`momentum_decay`), and the bias correction is a running product of all factors so far, which is no function of the
    step alone: theirs is another optimizer.

    Moves 28 bytes per float32 element: reads 16, writes 12.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR 2016 workshop, algorithm 2, with a constant mu, and
    without the further factor of beta2 before v.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.NAdam(p, lr=0.1)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> p.round(6)
    array([0.852632, 2.147368])
    """

    lr = rate(2e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-8)
    eps_root: float = epsilon(0.0)

    m = state()  # first moment: average of g
    v = state(nonnegative=True)  # second moment: average of g²

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root) -> Scalars:
        b1, b2 = betas
        return Scalars(
            lr=lr,
            part_m=b1 / (1.0 - power(b1, step + 1)),
            part_g=(1.0 - b1) / (1.0 - power(b1, step)),
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
        v = s.b2 * v + s.gain2 * (g * g)
        v_hat = s.correction2 * v
        m_bar = s.part_m * m + s.part_g * g  # the momentum of the next step, with the gradient of this one
        return p - s.lr * m_bar / (np.sqrt(v_hat + s.eps_root) + s.eps), m, v


nadam = as_function(NAdam)
