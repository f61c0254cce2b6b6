"""Which of fastopt's optimizers each of PyTorch's is: its hyperparameters, its states and the scalars of its steps.

No formula of an update is here: those are the rules of :mod:`fastopt.optimizers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch

from .. import optimizers
from .._api.groups import OF_ALL_GROUPS
from .._api.hyperparameters import in_range
from .._api.method import Method
from .._api.optimizer import Optimizer
from .._arrays.lazy import lazy

Group = Mapping[str, Any]
#: What is kept of a parameter beside arrays: the number of its steps, and what else PyTorch keeps as a number.
Clock = tuple[float, ...]

#: Names that are the same in both.
_SHARED = {"weight_decay": "weight_decay", "maximize": "maximize", "decoupled_weight_decay": "decoupled"}


#: Arguments of PyTorch's optimizers that mean what no step here can do.
REFUSED = {
    "differentiable": "a step here cannot be differentiated",
    "capturable": "for CUDA graphs give the tensors to fastopt's own class, with capturable=True",
}


def check_flags(group: Group) -> None:
    """Raise ValueError where a group asks for what no step here can do."""
    for name, reason in REFUSED.items():
        if group.get(name):
            raise ValueError(f"{name} must be False, got {group[name]!r}: {reason}")


def may_change(value: Any) -> bool:
    """Say whether a hyperparameter may become another one and be the same object."""
    return not (
        value is None or type(value) in (float, int, bool) or (type(value) is tuple and not any(map(may_change, value)))
    )


def plain(value: Any) -> Any:
    """Return a hyperparameter as Python numbers, which PyTorch takes as tensors too."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    return tuple(map(plain, value)) if isinstance(value, tuple | list) else value


#: What is no negative learning rate, but the end of a schedule such as LinearLR's to 0.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Formula:
    """How an optimizer of PyTorch is one of fastopt's.

    Attributes
    ----------
    kind : type
        fastopt's class.
    names : dict of str to str
        fastopt's name of each hyperparameter.
    keys : dict of str to str
        By fastopt's name, what PyTorch calls each state.
    fixed : dict
        What fastopt's other hyperparameters are.
    clock : dict of str to float
        What is kept of a parameter beside arrays, by PyTorch's name, and what it begins with.
    shown : tuple of str
        What of it is part of PyTorch's state.
    started_by : str
        The state that is there once a parameter has taken a step, where the clock has "started".
    """

    kind: type[Optimizer]
    names: Mapping[str, str]
    keys: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    clock: Mapping[str, float] = field(default_factory=lambda: {"step": 0.0})
    shown: tuple[str, ...] = ("step",)
    started_by: str = ""

    def kind_of(self, group: Group) -> type[Optimizer]:
        """Return the class of fastopt's whose rule a group has."""
        return self.kind

    @lazy
    def watched(self) -> tuple[str, ...]:
        """The names of all hyperparameters but `lr`."""
        return (*_SHARED, *self.names, *REFUSED)

    def method(self, group: Group, limits: Mapping[str, Any]) -> Method:
        """Return the formula of a group, with its hyperparameters.

        Raises
        ------
        TypeError, ValueError
            If one is not acceptable, by the name that PyTorch has for it.
        """
        kind = self.kind_of(group)
        values = {**kind.hyperparameters, **self.fixed, **limits}
        check_flags(group)
        self.rate(group)
        for name, own in {**_SHARED, **self.names}.items():
            if name in group and own in kind.hyperparameters:
                declared, value = kind._fields[own], plain(group[name])
                values[own] = declared.check(name, bool(value) if declared.constant else value)
        return kind._alone(values, _of_group=True)

    @staticmethod
    def check_number(name: str, group: Group) -> float:
        """Return a hyperparameter that must be a finite number >= 0."""
        value = group[name]
        if type(value) is float and 0.0 <= value < inf:
            return value
        return in_range(name, plain(value), 0, inf, high_in=False)

    @staticmethod
    def rate(group: Group) -> float:
        """Return the learning rate of a step, which roundings of a schedule may have left below 0."""
        value = group["lr"]
        if type(value) is float and -_ROUNDING < value < inf:
            return value
        value = plain(value)
        if isinstance(value, float) and -_ROUNDING < value < 0:
            return value
        return in_range("lr", value, 0, inf, high_in=False)

    def row(self, method: Method, group: Group, lr: float, clock: Clock) -> tuple[float, ...]:
        """Return the scalars of the next step of parameters with this clock."""
        return method.values_with(int(clock[0]) + 1, lr)

    def after(self, group: Group, clock: Clock) -> Clock:
        """Return the clock after that step."""
        return (clock[0] + 1,)


def _replaced(method: Method, values: tuple[float, ...], **others: float) -> tuple[float, ...]:
    """Return the scalars of a step with others in the place of some, by name."""
    leading = method._leading
    return (*values[:leading], *method._kind(*values[leading:])._replace(**others))


def formula_of(kind: type[Optimizer]) -> Formula:
    """Return the formula of one of fastopt's optimizers, with its own names for everything."""
    names = {name: name for name in kind.hyperparameters if name not in (*OF_ALL_GROUPS, "lr")}
    return Formula(kind, names, {name: name for name in kind.states})


class _SGD(Formula):
    def kind_of(self, group: Group) -> type[Optimizer]:
        return optimizers.Momentum if plain(group["momentum"]) else optimizers.GD

    def row(self, method: Method, group: Group, lr: float, clock: Clock) -> tuple[float, ...]:
        values = super().row(method, group, lr, clock)
        if not clock[1] and isinstance(method, optimizers.Momentum):
            return _replaced(method, values, gain=1.0)  # the first velocity is the whole gradient
        return values

    def after(self, group: Group, clock: Clock) -> Clock:
        return clock[0] + 1, 1.0


class _NAdam(Formula):
    def method(self, group: Group, limits: Mapping[str, Any]) -> Method:
        self.check_number("momentum_decay", group)
        return super().method(group, limits)

    @staticmethod
    def momentum(group: Group, step: float) -> float:
        """Return the factor of the momentum in a step."""
        decay: float = 0.96 ** (step * plain(group["momentum_decay"]))
        return float(plain(group["betas"][0])) * (1.0 - 0.5 * decay)

    def row(self, method: Method, group: Group, lr: float, clock: Clock) -> tuple[float, ...]:
        step, product = self.after(group, clock)
        following = self.momentum(group, step + 1)
        # The bias of a momentum that changes is the product of all its factors so far.
        parts = {
            "part_m": following / (1.0 - product * following),
            "part_g": (1.0 - self.momentum(group, step)) / (1.0 - product),
        }
        return _replaced(method, super().row(method, group, lr, clock), **parts)

    def after(self, group: Group, clock: Clock) -> Clock:
        step, product = clock
        return step + 1, product * self.momentum(group, step + 1)


class _Adagrad(Formula):
    def method(self, group: Group, limits: Mapping[str, Any]) -> Method:
        self.check_number("lr_decay", group)
        return super().method(group, limits)

    def row(self, method: Method, group: Group, lr: float, clock: Clock) -> tuple[float, ...]:
        return super().row(method, group, lr / (1.0 + clock[0] * plain(group["lr_decay"])), clock)


_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}
_ADAM = {"betas": "betas", "eps": "eps"}
_NO_EPS = {"eps_root": 0.0, "eps_hat": 0.0}

#: By the name of the optimizer.
FORMULAS: Mapping[str, Formula] = {
    "SGD": _SGD(
        optimizers.GD,
        {"momentum": "beta", "dampening": "dampening", "nesterov": "nesterov"},
        {"v": "momentum_buffer"},
        clock={"step": 0.0, "started": 0.0},
        shown=(),
        started_by="momentum_buffer",
    ),
    "RMSprop": Formula(
        optimizers.RMSprop,
        {"alpha": "beta", "eps": "eps", "momentum": "momentum", "centered": "centered"},
        {"s": "square_avg", "mu": "grad_avg", "v": "momentum_buffer"},
        {"eps_root": 0.0},
    ),
    "Adam": Formula(
        optimizers.Adam,
        {**_ADAM, "amsgrad": "amsgrad"},
        {**_MOMENTS, "v_max": "max_exp_avg_sq"},
        {**_NO_EPS, "decoupled": False},
    ),
    "AdamW": Formula(
        optimizers.AdamW,
        {**_ADAM, "amsgrad": "amsgrad"},
        {**_MOMENTS, "v_max": "max_exp_avg_sq"},
        {**_NO_EPS, "decoupled": True},
    ),
    "NAdam": _NAdam(
        optimizers.NAdam,
        _ADAM,
        _MOMENTS,
        {"eps_root": 0.0},
        clock={"step": 0.0, "mu_product": 1.0},
        shown=("step", "mu_product"),
    ),
    "RAdam": Formula(optimizers.RAdam, {"betas": "betas", "eps": "eps_hat"}, _MOMENTS, {"eps": 0.0, "eps_root": 0.0}),
    "Adamax": Formula(optimizers.Adamax, _ADAM, {"m": "exp_avg", "u": "exp_inf"}),
    "Adagrad": _Adagrad(
        optimizers.Adagrad,
        {"eps": "eps", "initial_accumulator_value": "initial_accumulator_value"},
        {"s": "sum"},
        {"eps_root": 0.0},
    ),
    "Adadelta": Formula(optimizers.Adadelta, {"rho": "rho", "eps": "eps_root"}, {"s": "square_avg", "u": "acc_delta"}),
}
