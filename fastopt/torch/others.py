"""The other optimizers, each with the name and the arguments that PyTorch has for it."""

from __future__ import annotations

import torch

from .base import Fused
from .formulas import FORMULAS


class SGD(Fused, torch.optim.SGD):
    """Gradient descent, with momentum if so wished: :class:`fastopt.GD` and :class:`fastopt.Momentum`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1e-3
        Learning rate, >= 0; schedulers set that of the groups.
    momentum : float, default 0.0
        Decay factor of a velocity, in [0, 1); 0 means none.
    dampening : float, default 0.0
        What a gradient lacks when it enters the velocity, in [0, 1]; the first enters whole.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    nesterov : bool, default False
        Take the velocity that the next step would have.
    foreach, fused : bool, optional
        Which of PyTorch's own loops is meant; accepted, and of no effect.
    maximize : bool, default False
        Ascend instead.
    differentiable, capturable : False
        Refused if true, where PyTorch has them.
    state_dtype, rounding, master, seed, clip_norm, nonfinite
        How numbers are stored, and what is done to gradients first: as for :class:`fastopt.Optimizer`; `state_dtype`
        by state has PyTorch's names of the states. The norm is that of all shards of parameters that are DTensors.

    Attributes
    ----------
    state, param_groups, defaults
        PyTorch's. The state has ``momentum_buffer`` where there is momentum.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.
    """

    _formula = FORMULAS["SGD"]


class RMSprop(Fused, torch.optim.RMSprop):
    """The gradient divided by its running root mean square: :class:`fastopt.RMSprop`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1e-2
        Learning rate, >= 0; schedulers set that of the groups.
    alpha : float, default 0.99
        Decay factor of the averages, in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    momentum : float, default 0.0
        Decay factor of a velocity of quotients, in [0, 1); 0 means none.
    centered : bool, default False
        Divide by the running standard deviation.
    foreach, fused : bool, optional
        Which of PyTorch's own loops is meant; accepted, and of no effect.
    maximize : bool, default False
        Ascend instead.
    differentiable, capturable : False
        Refused if true, where PyTorch has them.
    state_dtype, rounding, master, seed, clip_norm, nonfinite
        How numbers are stored, and what is done to gradients first: as for :class:`fastopt.Optimizer`; `state_dtype`
        by state has PyTorch's names of the states. The norm is that of all shards of parameters that are DTensors.

    Attributes
    ----------
    state, param_groups, defaults
        PyTorch's. The state has ``step``, ``square_avg``, and, where they are
        used, ``momentum_buffer`` and ``grad_avg``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    Centered, the variance is taken as at least 0, where rounding brings PyTorch's below it and makes a NaN.
    """

    _formula = FORMULAS["RMSprop"]


class Adagrad(Fused, torch.optim.Adagrad):
    """The gradient divided by the root of the sum of its squares: :class:`fastopt.Adagrad`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1e-2
        Learning rate, >= 0; schedulers set that of the groups.
    lr_decay : float, default 0.0
        The learning rate of step t is ``lr / (1 + (t - 1) * lr_decay)``; >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    initial_accumulator_value : float, default 0.0
        What the sum begins with, >= 0.
    eps : float, default 1e-10
        Added to the root, >= 0.
    foreach, fused : bool, optional
        Which of PyTorch's own loops is meant; accepted, and of no effect.
    maximize : bool, default False
        Ascend instead.
    differentiable, capturable : False
        Refused if true, where PyTorch has them.
    state_dtype, rounding, master, seed, clip_norm, nonfinite
        How numbers are stored, and what is done to gradients first: as for :class:`fastopt.Optimizer`; `state_dtype`
        by state has PyTorch's names of the states. The norm is that of all shards of parameters that are DTensors.

    Attributes
    ----------
    state, param_groups, defaults
        PyTorch's. The state has ``step`` and ``sum``, from the beginning.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.
    """

    _formula = FORMULAS["Adagrad"]


class Adadelta(Fused, torch.optim.Adadelta):
    """Steps in the unit of the parameter: :class:`fastopt.Adadelta`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1.0
        Learning rate, >= 0; schedulers set that of the groups.
    rho : float, default 0.9
        Decay factor of the averages, in [0, 1).
    eps : float, default 1e-6
        Added under both roots, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    foreach, fused : bool, optional
        Which of PyTorch's own loops is meant; accepted, and of no effect.
    maximize : bool, default False
        Ascend instead.
    differentiable, capturable : False
        Refused if true, where PyTorch has them.
    state_dtype, rounding, master, seed, clip_norm, nonfinite
        How numbers are stored, and what is done to gradients first: as for :class:`fastopt.Optimizer`; `state_dtype`
        by state has PyTorch's names of the states. The norm is that of all shards of parameters that are DTensors.

    Attributes
    ----------
    state, param_groups, defaults
        PyTorch's. The state has ``step``, ``square_avg`` and ``acc_delta``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.
    """

    _formula = FORMULAS["Adadelta"]
