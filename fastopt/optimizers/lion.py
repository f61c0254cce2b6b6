"""Lion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, flag, helper, rate, state
from ._cautious import Norms, factor, kept

__all__ = ["Lion", "lion"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    lr: float
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    one: float


@helper
def _direction(s, g, m):
    """Return that of which the step has the sign: the gradient counts for more in it than in the momentum."""
    return s.b1 * m + s.gain1 * g


class Lion(Optimizer):
    r"""Lion: evolved sign momentum, a step of the same length for every element.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-4
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.99)
        Decay factors, each in [0, 1): that of the average whose sign is the step, and that of the momentum.
    weight_decay : float, default 0.0
        Decay factor, >= 0.
    decoupled : bool, default True
        Decay the parameter itself (``p -= lr * weight_decay * p``), as the paper does, instead of adding
        ``weight_decay * p`` to the gradient.
    cautious : bool, default False
        Change only those elements whose change has the sign of the gradient, and these by as much more.
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
        ``state["m"]``, the momentum, arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        \theta_t &= (1 - \eta \lambda) \theta_{t-1} - \eta \, \mathrm{sign}(c_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    With `cautious`, elements where :math:`c_t g_t \le 0` are not changed (but for weight decay), and the others by
    :math:`d / (k + 1)` times as much, where so many of the :math:`d` elements of a tensor are. And
    :math:`\lambda` is the decoupled weight decay and :math:`\mathrm{sign}(0) = 0`. The steps are longer than
    Adam's: the paper takes a learning rate that is 3 to 10 times smaller, and a weight decay as many times larger.

    Moves 20 bytes per float32 element (reads 12, writes 8), and reads 12 more first if `cautious`.

    References
    ----------
    X. Chen et al., "Symbolic discovery of optimization algorithms", arXiv:2302.06675, algorithm 2.
    K. Liang et al., "Cautious optimizers: improving training with one line of code", arXiv:2411.16085 (`cautious`).

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.Lion(p, lr=0.1)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p
    array([0.9, 2.1])
    """

    lr = rate(1e-4)
    betas: tuple[float, float] = betas(0.9, 0.99)
    decoupled: bool = flag(True)
    cautious: bool = flag(False)

    norms_when = "cautious"
    m = state()  # momentum

    @staticmethod
    def scalars(step: object, lr, betas) -> Scalars:
        b1, b2 = betas
        return Scalars(lr=lr, b1=b1, gain1=1.0 - b1, b2=b2, gain2=1.0 - b2, one=1.0)

    @staticmethod
    def norms(s, g, p, m) -> Norms:
        return Norms(kept=kept(_direction(s, g, m), g, s.one), every=s.one)

    @staticmethod
    def rule(s, g, p, m):
        u = s.lr * np.sign(_direction(s, g, m))
        if s.cautious:
            u = factor(s.kept, s.every, s.one) * (kept(u, g, s.one) * u)
        return p - u, s.b2 * m + s.gain2 * g


lion = as_function(Lion)
