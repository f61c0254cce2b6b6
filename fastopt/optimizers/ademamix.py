"""AdEMAMix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import betas, decay, epsilon, flag, nonnegative, power, rate, state

__all__ = ["AdEMAMix", "ademamix"]


class Scalars(NamedTuple):
    """The quantities of a step."""

    part1: float  # lr / (1 - b1^t): of m1, with its bias correction
    part2: float  # lr alpha: of m2, whose bias stays
    b1: float
    gain1: float  # 1 - b1
    b2: float
    gain2: float  # 1 - b2
    b3: float  # beta3, or what it has come to in the warm-up
    gain3: float  # 1 - b3
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float


class AdEMAMix(Optimizer):
    r"""AdEMAMix: Adam with a second average of gradients beside the first, which remembers far longer.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the fast average of gradients and of the second moment, each in [0, 1).
    beta3 : float, default 0.9999
        Decay factor of the slow average of gradients, in [0, 1).
    alpha : float, default 5.0
        How much the slow average counts beside the fast one, >= 0.
    beta3_warmup, alpha_warmup : float, default 0.0
        In how many steps the decay factor of the slow average goes from ``betas[0]`` to `beta3`, and its part from 0 to
        `alpha`, >= 0. Training from the beginning needs both: the paper has all steps of the run for either.
    eps : float, default 1e-8
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0.
    decoupled : bool, default True
        Decay the parameter itself (``p -= lr * weight_decay * p``), as the paper does, instead of adding
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
        ``state["m1"]`` and ``state["m2"]``, the fast and the slow average of gradients, and ``state["v"]``, the second
        moment; each arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        m_{1,t} &= \beta_1 m_{1,t-1} + (1 - \beta_1) g_t \\
        m_{2,t} &= \beta_3(t) \, m_{2,t-1} + (1 - \beta_3(t)) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= (1 - \eta \lambda) \theta_{t-1} - \eta \frac{m_{1,t} / (1 - \beta_1^t) + \alpha(t) \, m_{2,t}}
            {\sqrt{v_t / (1 - \beta_2^t) + \epsilon_{root}} + \epsilon}

    where :math:`\lambda` is the decoupled weight decay. In a warm-up of :math:`T` steps,
    :math:`\alpha(t) = \alpha t / T`, and :math:`1 / (1 - \beta_3(t))`, of how many gradients the slow average is one,
    goes from that of :math:`\beta_1` to that of :math:`\beta_3` on a line. The paper has the line in
    :math:`1 / \ln \beta_3(t)`; where :math:`\beta_1 \ge 0.9`, its :math:`1 - \beta_3(t)` is the same but for 1 part in
    1000, and here are no logarithms, which differ from one library to the next.

    The slow average is best kept in float32, as by ``state_dtype={"m1": "int8", "v": "int8"}``: a gradient changes it
    by so little that in 8 bits the errors of rounding may add up to more than the average is.

    Moves 36 bytes per float32 element: reads 20, writes 16.

    References
    ----------
    M. Pagliardini, P. Ablin, D. Grangier, "The AdEMAMix optimizer: better, faster, older", arXiv:2409.03137,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.AdEMAMix(p, lr=0.1, beta3=0.99, alpha=10.0)
    >>> opt.step(np.array([1.0, -5.0]))
    >>> p.round(6)
    array([0.89, 2.11])
    """

    lr = rate(1e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    beta3: float = decay(0.9999)
    alpha: float = nonnegative(5.0)
    beta3_warmup: float = nonnegative(0.0)
    alpha_warmup: float = nonnegative(0.0)
    eps: float = epsilon(1e-8)
    eps_root: float = epsilon(0.0)
    decoupled: bool = flag(True)

    m1 = state()  # fast average of g
    m2 = state()  # slow average of g
    v = state(nonnegative=True)  # second moment: average of g²

    @staticmethod
    def scalars(step: int, lr, betas, beta3, alpha, beta3_warmup, alpha_warmup, eps, eps_root) -> Scalars:
        b1, b2 = betas
        b3, gain3, part2 = beta3, 1.0 - beta3, lr * alpha
        if step < alpha_warmup:
            part2 = part2 * (step / alpha_warmup)
        if step < beta3_warmup:
            first, last = 1.0 / (1.0 - b1), 1.0 / (1.0 - beta3)
            gain3 = 1.0 / (first + (last - first) * (step / beta3_warmup))
            b3 = 1.0 - gain3
        return Scalars(
            part1=lr / (1.0 - power(b1, step)),
            part2=part2,
            b1=b1,
            gain1=1.0 - b1,
            b2=b2,
            gain2=1.0 - b2,
            b3=b3,
            gain3=gain3,
            correction2=1.0 / (1.0 - power(b2, step)),
            eps_root=eps_root,
            eps=eps,
        )

    @staticmethod
    def rule(s, g, p, m1, m2, v):
        m1 = s.b1 * m1 + s.gain1 * g
        m2 = s.b3 * m2 + s.gain3 * g
        v = s.b2 * v + s.gain2 * (g * g)
        root = np.sqrt(s.correction2 * v + s.eps_root) + s.eps
        return p - (s.part1 * m1 + s.part2 * m2) / root, m1, m2, v


ademamix = as_function(AdEMAMix)
