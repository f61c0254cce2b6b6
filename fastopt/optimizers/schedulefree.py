"""Schedule-free SGD and AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._api import checkpoint
from .._api.functional import as_function
from .._api.optimizer import Optimizer
from .._kernels.compiler import EXACT
from .._kernels.parts import part
from ..rules import betas, decay, epsilon, flag, power, rate, state

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeSGD", "schedulefreeadamw", "schedulefreesgd"]


def _average(optimizer: Optimizer, beta_of: Callable[[Any], float]) -> Any:
    """Return x = y - (1 - beta) / beta (z - y), arranged as `params`; groups may have a beta for themselves."""
    betas_of_groups = [beta_of(method) for method in optimizer._updates()]
    if 0.0 in betas_of_groups:
        raise ValueError("the average is not kept where beta is 0: params are the sequence z, and not between z and x")
    each = zip(
        checkpoint.decode(optimizer, "params"), checkpoint.decode(optimizer, "d"), optimizer._group_of, strict=True
    )
    factors = [(1.0 - beta) / beta for beta in betas_of_groups]
    return optimizer._structure.pack([y - y.dtype.type(factors[group]) * d for y, d, group in each])


def _moves(step: Any, lr: Any, beta: Any, weight_decay: Any, decoupled: Any) -> tuple[float, float, float, float]:
    """Return how far the gradient moves y and z - y, how near y comes to z, and what it keeps of the decay."""
    near = 1.0 / step
    far = beta * (1.0 - near)
    left = 1.0 - lr * weight_decay
    # Where nothing is left of p, nothing says what was taken from it.
    taken = lr * weight_decay / left if decoupled and left != 0.0 else 0.0
    return lr * (1.0 - far), lr * far, near, far * taken


part(_moves, **EXACT)


class Scalars(NamedTuple):
    """The quantities of a step of schedule-free SGD."""

    step_p: float  # lr (1 - beta (1 - 1/t)): how far the gradient moves y
    step_d: float  # lr beta (1 - 1/t): how much further it moves z
    near: float  # 1/t: how much of the way to z y goes
    keep: float  # 1 - 1/t
    pull: float  # beta (1 - 1/t) of what decoupled weight decay took from p, which y should have kept


class ScheduleFreeSGD(Optimizer):
    r"""Schedule-free SGD: gradient descent with an average of all its points in the place of a schedule.

    The parameters are the points at which gradients are taken; evaluate the model with what :meth:`averaged` returns.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 1.0
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    beta : float, default 0.9
        How near to the average gradients are taken, in [0, 1).
    weight_decay : float, default 0.0
        Decay factor, >= 0: ``weight_decay * p`` is added to what z is moved by.
    decoupled : bool, default False
        Of no consequence but for roundings: what is added to the gradient is divided by nothing. But if
        ``lr * weight_decay`` is 1, nothing is left of `p` to tell what the average should keep: not for that.
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
        ``state["d"]``, how far the sequence z is from the parameters, arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    .. math::
        y_t &= (1 - \beta) z_t + \beta x_t, \quad x_1 = z_1 \\
        z_{t+1} &= z_t - \eta (g_t + \lambda y_t) \\
        x_{t+1} &= (1 - 1/t) \, x_t + z_{t+1} / t

    where :math:`g_t` is the gradient at :math:`y_t`, the parameters, and :math:`\lambda` the weight decay. The state is
    :math:`d_t = z_t - y_t`, which begins at 0:

    .. math::
        y_{t+1} &= y_t + d_t / t - (1 - \beta (1 - 1/t)) \, \eta (g_t + \lambda y_t) \\
        d_{t+1} &= (1 - 1/t) (d_t - \beta \eta (g_t + \lambda y_t))

    so that :math:`z_t = y_t + d_t` and :math:`x_t = y_t - d_t (1 - \beta) / \beta`. All points count alike in the
    average; where the learning rate changes, as in a warm-up, the authors weight each by the square of the largest rate
    so far. Do not change `beta` between steps.

    Moves 20 bytes per float32 element: reads 12, writes 8. In a long run a gradient changes :math:`d` so little that in
    8 bits the errors of rounding add up to as much as it is: keep it in float32 or float16.

    References
    ----------
    A. Defazio et al., "The road less scheduled", arXiv:2405.15682, equations 3 to 5, with the average of
    algorithm 1, which begins with the second point.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.ScheduleFreeSGD(p, lr=0.5)
    >>> for _ in range(200):
    ...     opt.step(p.copy())  # the gradient of p² / 2
    >>> bool(abs(opt.averaged()).max() < 0.01)
    True
    """

    lr = rate(1.0)
    beta: float = decay(0.9)

    d = state()  # z - y

    @staticmethod
    def scalars(step: int, lr, beta, weight_decay, decoupled) -> Scalars:
        step_p, step_d, near, pull = _moves(step, lr, beta, weight_decay, decoupled)
        return Scalars(step_p=step_p, step_d=step_d, near=near, keep=1.0 - near, pull=pull)

    @staticmethod
    def rule(s, g, p, d):
        pull = s.pull * p
        return p + s.near * d - s.step_p * g + pull, s.keep * d - s.step_d * g - pull

    def averaged(self) -> Any:
        """Return the average x, at which the model is to be evaluated.

        Returns
        -------
        ndarray, list or dict
            Copies in the dtype of the arithmetic, arranged as `params`.

        Raises
        ------
        ValueError
            If the first decay factor is 0: then the parameters are z, and nothing keeps the average.
        """
        return _average(self, lambda method: method.beta)


class AdamWScalars(NamedTuple):
    """The quantities of a step of schedule-free AdamW: those of SGD, and those of the second moment."""

    step_p: float
    step_d: float
    near: float
    keep: float
    pull: float
    b2: float
    gain2: float  # 1 - b2
    correction2: float  # 1 / (1 - b2^t): the bias correction of v
    eps_root: float
    eps: float


class ScheduleFreeAdamW(Optimizer):
    r"""Schedule-free AdamW: AdamW with an average of all its points in the place of momentum and of a schedule.

    The parameters are the points at which gradients are taken; evaluate the model with what :meth:`averaged` returns.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float64, float32, float16 or bfloat16, of any shape.
    lr : float or callable, default 2.5e-3
        Learning rate, >= 0, or a function of the step number (1, 2, ...) that returns it.
    betas : pair of float, default (0.9, 0.999)
        How near to the average gradients are taken, and the decay factor of the second moment, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    eps_root : float, default 0.0
        Added under the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0: ``weight_decay * p`` is added to what z is moved by.
    decoupled : bool, default True
        Add it to the quotient, as AdamW does, instead of to the gradient.
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
        ``state["d"]``, how far the sequence z is from the parameters, and ``state["v"]``, the second moment; each
        arranged as `params`.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError, ValueError
        If an array or a hyperparameter is not acceptable; nothing has been written then.

    Notes
    -----
    Those of :class:`ScheduleFreeSGD`, with :math:`u_t` in the place of the gradient:

    .. math::
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad \hat v_t = v_t / (1 - \beta_2^t) \\
        u_t &= \frac{g_t}{\sqrt{\hat v_t + \epsilon_{root}} + \epsilon} \\
        z_{t+1} &= z_t - \eta (u_t + \lambda y_t)

    The bias is corrected as in Adam. The paper has the correction in the learning rate, so that in the first steps it
    scales weight decay and the weights of the average, too.

    Moves 28 bytes per float32 element: reads 16, writes 12. Of 8 bits for ``d`` the same is to be said.

    References
    ----------
    A. Defazio et al., "The road less scheduled", arXiv:2405.15682, algorithm 1, with equal weights.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.array([1.0, 2.0])
    >>> opt = fastopt.ScheduleFreeAdamW(p, lr=0.1)
    >>> for _ in range(2):
    ...     opt.step(np.array([1.0, -1.0]))
    >>> p.round(6)
    array([0.845, 2.155])
    >>> opt.averaged().round(6)
    array([0.85, 2.15])
    """

    lr = rate(2.5e-3)
    betas: tuple[float, float] = betas(0.9, 0.999)
    eps: float = epsilon(1e-8)
    eps_root: float = epsilon(0.0)
    decoupled: bool = flag(True)

    d = state()  # z - y
    v = state(nonnegative=True)  # second moment: average of g²

    @staticmethod
    def scalars(step: int, lr, betas, eps, eps_root, weight_decay, decoupled) -> AdamWScalars:
        beta, b2 = betas
        step_p, step_d, near, pull = _moves(step, lr, beta, weight_decay, decoupled)
        correction2 = 1.0 / (1.0 - power(b2, step))
        own = (b2, 1.0 - b2, correction2, eps_root, eps)
        return AdamWScalars(step_p, step_d, near, 1.0 - near, pull, *own)

    @staticmethod
    def rule(s, g, p, d, v):
        v = s.b2 * v + s.gain2 * (g * g)
        u = g / (np.sqrt(s.correction2 * v + s.eps_root) + s.eps)
        pull = s.pull * p
        return p + s.near * d - s.step_p * u + pull, s.keep * d - s.step_d * u - pull, v

    def averaged(self) -> Any:
        """Return the average x, at which the model is to be evaluated.

        Returns
        -------
        ndarray, list or dict
            Copies in the dtype of the arithmetic, arranged as `params`.

        Raises
        ------
        ValueError
            If the first decay factor is 0: then the parameters are z, and nothing keeps the average.
        """
        return _average(self, lambda method: method.betas[0])


schedulefreesgd = as_function(ScheduleFreeSGD)
schedulefreeadamw = as_function(ScheduleFreeAdamW)
