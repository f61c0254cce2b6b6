"""Adam and its kin, each with the name and the arguments that PyTorch has for it."""

from __future__ import annotations

import torch

from .base import Fused
from .formulas import FORMULAS


class Adam(Fused, torch.optim.Adam):
    """Adaptive moment estimation: :class:`fastopt.Adam`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1e-3
        Learning rate, >= 0; schedulers set that of the groups.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    amsgrad : bool, default False
        Divide by the largest second moment so far.
    decoupled_weight_decay : bool, default False
        Shrink the parameter itself instead.
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
        PyTorch's. The state has ``step``, ``exp_avg``, ``exp_avg_sq``, and with
        `amsgrad` ``max_exp_avg_sq``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.
    """

    _formula = FORMULAS["Adam"]


class AdamW(Fused, torch.optim.AdamW):
    """Adam whose parameters decay by themselves: :class:`fastopt.AdamW`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1e-3
        Learning rate, >= 0; schedulers set that of the groups.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    weight_decay : float, default 1e-2
        Decay factor, >= 0: each step multiplies parameters by ``1 - lr * weight_decay``.
    amsgrad : bool, default False
        Divide by the largest second moment so far.
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
        PyTorch's. The state has ``step``, ``exp_avg``, ``exp_avg_sq``, and with
        `amsgrad` ``max_exp_avg_sq``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Examples
    --------
    >>> import torch, fastopt.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fastopt.torch.AdamW([p], lr=0.1, weight_decay=0.0)
    >>> p.grad = torch.tensor([1.0, -1.0])
    >>> opt.step()
    >>> p.detach()
    tensor([0.9000, 2.1000])
    """

    _formula = FORMULAS["AdamW"]


class NAdam(Fused, torch.optim.NAdam):
    """Adam with Nesterov momentum that grows with the step: the rule of :class:`fastopt.NAdam`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 2e-3
        Learning rate, >= 0; schedulers set that of the groups.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    momentum_decay : float, default 4e-3
        How fast the factor of the momentum grows, >= 0.
    decoupled_weight_decay : bool, default False
        Shrink the parameter itself instead.
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
        PyTorch's. The state has ``step``, ``mu_product``, ``exp_avg`` and ``exp_avg_sq``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    The product of all factors of the momentum so far corrects its bias. It is kept for each parameter, as a number.
    """

    _formula = FORMULAS["NAdam"]


class RAdam(Fused, torch.optim.RAdam):
    """Adam whose first steps are rectified: :class:`fastopt.RAdam`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 1e-3
        Learning rate, >= 0; schedulers set that of the groups.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the root before its bias is corrected, >= 0.
    weight_decay : float, default 0.0
        Decay factor, >= 0, of which a multiple of the parameter is added to its gradient.
    decoupled_weight_decay : bool, default False
        Shrink the parameter itself instead.
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
        PyTorch's. The state has ``step``, ``exp_avg`` and ``exp_avg_sq``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.
    """

    _formula = FORMULAS["RAdam"]


class Adamax(Fused, torch.optim.Adamax):
    """Adam by the infinity norm: :class:`fastopt.Adamax`.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, or groups of it with hyperparameters for themselves.
    lr : float or torch.Tensor, default 2e-3
        Learning rate, >= 0; schedulers set that of the groups.
    betas : pair of float, default (0.9, 0.999)
        Decay factors of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the size of each gradient, >= 0.
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
        PyTorch's. The state has ``step``, ``exp_avg`` and ``exp_inf``.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.
    """

    _formula = FORMULAS["Adamax"]
