"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, epsilon, flag, helper, nonnegative, power, rate, state
from ._cautious import Norms, factor, kept

__all__ = ["Adam", "AdamW", "adam", "adamw"]


class Scalars(NamedTuple):
    """Adam's quantities of a step."""

    alpha: float  # lr / (1 - b1^t): the learning rate, with the bias correction of m
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float  # eps + eps_hat / sqrt(1 - b2^t)
    one: float


@helper
def _moment(s, g, m):
    """Return the first moment after a step."""
    return s.b1 * m + s.gain1 * g


class Adam(Optimizer):
    r"""Adam: adaptive moment estimation.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0: the paper's epsilon.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    eps_hat : float, default 0.0
        Added to the root of the second moment before its bias is corrected, >= 0: the epsilon-hat of the
        paper's faster form, and what Keras and TensorFlow call epsilon.
    amsgrad : bool, default False
        Divide by the largest second moment so far, which lets no step grow again. Adds the state ``v_max``. Fixed once
        the optimizer exists.
    cautious : bool, default False
        Change only those elements whose change has the sign of the gradient, and these by as much more.
    weight_decay : float, default 0.0
        Decay factor, >= 0.
    decoupled : bool, default False
        Decay the parameter itself (``p -= lr * weight_decay * p``), as AdamW does, instead of adding
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
        ``state["m"]`` and ``state["v"]``, the first and the second moment, and ``state["v_max"]``, the largest second
        moment so far, if `amsgrad`; each arranged as `params`.
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
        \theta_t &= \theta_{t-1} - \eta \frac{\hat m_t}
            {\sqrt{\hat v_t + \epsilon_{root}} + \epsilon + \hat\epsilon / \sqrt{1 - \beta_2^t}}

    With `amsgrad`, :math:`\hat v_t` is :math:`\max(v_1, \dots, v_t) / (1 - \beta_2^t)`: the bias is corrected after the
    maximum, as PyTorch does. (Optax corrects it before; the paper does not.)

    With `cautious`, elements where :math:`m_t g_t \le 0` are not changed (but for weight decay), and the others by
    :math:`d / (k + 1)` times as much, where so many of the :math:`d` elements of a tensor are. One NaN is one in all.

    Moves 28 bytes per float32 element (reads 16, writes 12), and 8 more with `amsgrad`. If `cautious`, what is read is
    read once before.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980, algorithm 1.
    S. J. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond", arXiv:1904.09237, algorithm 2 (`amsgrad`).
    K. Liang et al., "Cautious optimizers: improving training with one line of code", arXiv:2411.16085, algorithm 1
    (`cautious`), with 1 beside the number of elements as in the authors' code.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Adam(p, lr=0.1)
    >>> opt.step(np.array([1.0, -1.0]))
    >>> p.round(6)
    array([0.9, 2.1])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-8)
    eps_root: float = epsilon(0.0)
    eps_hat: float = epsilon(0.0)
    amsgrad: bool = flag(False)
    cautious: bool = flag(False)

    norms_when = "cautious"
    m = state()  # first moment: average of g
    v = state(nonnegative=True)  # second moment: average of g²
    v_max = state(nonnegative=True, when="amsgrad")  # the largest v so far

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root, eps_hat) -> Scalars:
        b1, b2 = betas
        c1 = 1.0 - power(b1, step)
        c2 = 1.0 - power(b2, step)
        return Scalars(
            alpha=lr / c1,
            b1=b1,
            gain1=1.0 - b1,
            b2=b2,
            gain2=1.0 - b2,
            correction2=1.0 / c2,
            eps_root=eps_root,
            eps=eps + eps_hat / math.sqrt(c2),
            one=1.0,
        )

    @staticmethod
    def norms(s, g, p, m, v, v_max) -> Norms:
        m = _moment(s, g, m)
        return Norms(kept=kept(m, g, s.one), every=s.one)

    @staticmethod
    def rule(s, g, p, m, v, v_max):
        m = _moment(s, g, m)
        v = s.b2 * v + s.gain2 * (g * g)
        variance = v
        if s.amsgrad:
            variance = v_max = np.maximum(v_max, v)
        v_hat = s.correction2 * variance
        u = s.alpha * m / (np.sqrt(v_hat + s.eps_root) + s.eps)
        if s.cautious:
            u = factor(s.kept, s.every, s.one) * (kept(m, g, s.one) * u)
        return p - u, m, v, v_max


class AdamW(Adam):
    r"""AdamW: Adam with decoupled weight decay.

    Parameters
    ----------
    params, lr, betas, eps, eps_root, eps_hat, amsgrad, cautious, maximize
        As for :class:`Adam`.
    reproducible, groups, state_dtype, rounding, master, copy_to, zero_grads, seed, capturable
        As for :class:`Adam`.
    grad_scale, clip_value, clip_norm, nonfinite, ema
        What is done to gradients first, and an average of the parameters: as for :class:`fastopt.Optimizer`.
    weight_decay : float, default 1e-2
        Decay factor, >= 0.
    decoupled : bool, default True
        False makes this :class:`Adam`.

    Attributes
    ----------
    params, state, step_count
        As for :class:`Adam`.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math:: \theta_t = (1 - \eta \lambda) \theta_{t-1} - \eta \, u_t

    where :math:`u_t` is Adam's update. Moves 28 bytes per float32 element, as Adam does, and 8 more with `amsgrad`.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", arXiv:1711.05101, algorithm 2 (with
    the schedule multiplier inside the learning rate, as PyTorch has it).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.AdamW(p, lr=0.1, weight_decay=0.1)
    >>> opt.step(np.array([0.0, 0.0]))
    >>> p
    array([0.99, 1.98])
    """

    weight_decay: float = nonnegative(1e-2)
    decoupled: bool = flag(True)


adam = as_function(Adam)
adamw = as_function(AdamW)
