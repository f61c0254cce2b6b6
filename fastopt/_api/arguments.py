"""What all optimizers and all functions take, as type checkers and editors see it.

An optimizer's signature is declared by the attributes of its class. When Python runs it is put together from them, in
``__init_subclass__``; type checkers put it together from their annotations, by PEP 681, as that of a dataclass.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, dataclass_transform, overload

from .._arrays.structure import AnyArray, Gradient, Params
from .._storage.formats import Master, PlainRounding, Rounding, StateDtypes
from .hyperparameters import (
    Hyperparameter,
    Policy,
    Rate,
    T,
    Value,
    flag,
    nonnegative,
    optional_bound,
    optional_decay,
    optional_flag,
    optional_scale,
    policy,
    rate,
)

if TYPE_CHECKING:
    from .param_group import ParamGroup

S = TypeVar("S")
P = TypeVar("P", bound=AnyArray)


class Setting(Generic[S]):
    """A descriptor of what is given as an S when an optimizer is made, and read afterwards."""

    name: str

    def __init__(self, doc: str, default: Any) -> None:
        self.__doc__, self.default = doc, default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        return self if instance is None else getattr(instance, f"_{self.name}")

    def __set__(self, instance: object, value: S) -> None:
        raise AttributeError(f"{self.name} is fixed when an optimizer is made")

    def parameter(self) -> inspect.Parameter:
        """Return it as a parameter of a signature."""
        required = self.default is inspect.Parameter.empty
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if required else inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, kind, default=self.default)


#: Hyperparameters of groups, by the patterns that select parameters.
Selections = Mapping[str | tuple[str, ...], Mapping[str, Value]] | Mapping[str, Mapping[str, Value]]


class GroupsSetting(Setting[Selections | None]):
    """The groups of parameters: selections when an optimizer is made, and read as what became of them."""

    @overload
    def __get__(self, instance: None, owner: type) -> GroupsSetting: ...
    @overload
    def __get__(self, instance: object, owner: type) -> tuple[ParamGroup, ...]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance._param_groups


def groups_setting(doc: str, *, default: Any, kw_only: bool = True) -> Any:
    """Declare the groups."""
    return GroupsSetting(doc, default)


def setting(doc: str, *, default: Any = inspect.Parameter.empty, kw_only: bool = True) -> Any:
    """Declare a setting. `kw_only` is for type checkers: whether it can be given by position."""
    return Setting(doc, default)


def positional(declared: T, *, default: T, kw_only: bool) -> T:
    """Return what is declared. The rest is for type checkers: there is a default, and it can be given by position."""
    return declared


#: What editors show as the default of an argument whose default is another one for each class.
CLASS_DEFAULT: Any = ...


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(setting, groups_setting, positional))
class Declared:
    """The annotated attributes of a subclass are arguments: keywords with a default, if nothing else is said."""


class Arguments(Declared):
    """The arguments that all optimizers have."""

    params: Final[Setting[Params]] = setting("The parameters, as they were given.", kw_only=False)
    lr: Rate = positional(rate(1e-2), default=CLASS_DEFAULT, kw_only=False)
    weight_decay: float = nonnegative(0.0)
    decoupled: bool = flag(False)
    maximize: bool = flag(False)
    grad_scale: float | None = optional_scale(None)
    clip_value: float | None = optional_scale(None)
    clip_norm: float | None = optional_bound(None)
    nonfinite: Policy = policy("propagate")
    ema: float | None = optional_decay(None)
    reproducible: bool | None = optional_flag(None)

    groups: Final[GroupsSetting] = groups_setting(
        "The groups of parameters, whose hyperparameters can be set.", default=None
    )
    state_dtype: Final[StateDtypes] = setting("How states are stored, as it was given.", default=None)
    rounding: Final[Rounding] = setting("How parameters are rounded.", default="nearest")
    master: Final[Master | None] = setting("What is kept beside parameters in bfloat16.", default=None)
    copy_to: Final[Params | None] = setting("Where copies of the parameters go.", default=None)
    zero_grads: Final[bool] = setting("Whether steps leave gradients at 0.", default=False)
    seed: Final[int] = setting("What stochastic rounding depends on.", default=0)
    capturable: Final[bool] = setting(
        "Whether the step number and `lr` are kept on the GPU, so that a CUDA graph can hold steps.", default=False
    )


#: What all optimizers have besides `lr`, in the order in which signatures end.
SHARED = tuple(
    name for name, declared in vars(Arguments).items() if isinstance(declared, Hyperparameter) and name != "lr"
)
#: Those of them that are about gradients, and of these the ones about those of all parameters together.
OF_GRADIENTS = ("grad_scale", "clip_value", "clip_norm", "nonfinite")
OF_ALL = ("clip_norm", "nonfinite")
#: What is done around the rule, whatever it is; not shown where it is the default.
AROUND = (*OF_GRADIENTS, "ema")
#: Those that functions do not have.
OF_CLASSES = (*OF_ALL, "ema")


def check_alone(name: str, hyperparameters: Mapping[str, Any]) -> None:
    """Raise where hyperparameters are about what `name` does not have.

    Raises
    ------
    TypeError
        If one of :data:`OF_CLASSES` is not the default.
    """
    given = [n for n in OF_CLASSES if hyperparameters[n] != vars(Arguments)[n].default]
    if "ema" in given:
        raise TypeError(f"{name} has no place for the average that ema is the decay factor of: use the class")
    if given:
        raise TypeError(f"{name} takes one parameter, and {' and '.join(given)} is about those of all: use the class")


#: The last of these, and `params` before them.
SETTINGS: dict[str, Setting[Any]] = {
    name: declared for name, declared in vars(Arguments).items() if isinstance(declared, Setting)
}


class TimedFunction(Protocol):
    """The function form of an optimizer whose scalars depend on the number of the step."""

    __name__: str

    def __call__(
        self,
        p: P,
        g: Gradient,
        *states: AnyArray | None,
        step: int,
        lr: float = ...,
        weight_decay: float = ...,
        decoupled: bool = ...,
        maximize: bool = ...,
        grad_scale: float | None = ...,
        clip_value: float | None = ...,
        reproducible: bool | None = ...,
        rounding: PlainRounding = ...,
        seed: int = ...,
        stream: object = ...,
        **others: Value | AnyArray,
    ) -> P:
        """Update `p` and the states in place, and return `p`."""
        ...


class Function(TimedFunction, Protocol):
    """The function form of an optimizer whose scalars do not: it needs `step` for stochastic rounding alone."""

    def __call__(
        self,
        p: P,
        g: Gradient,
        *states: AnyArray | None,
        step: int | None = ...,
        lr: float = ...,
        weight_decay: float = ...,
        decoupled: bool = ...,
        maximize: bool = ...,
        grad_scale: float | None = ...,
        clip_value: float | None = ...,
        reproducible: bool | None = ...,
        rounding: PlainRounding = ...,
        seed: int = ...,
        stream: object = ...,
        **others: Value | AnyArray,
    ) -> P:
        """Update `p` and the states in place, and return `p`."""
        ...


class Untimed(Protocol):
    """What has scalars that take any object as the number of the step, so that they do not depend on it."""

    @staticmethod
    def scalars(step: object, /, *arguments: Any, **keywords: Any) -> tuple[float, ...]:
        """Return the scalars of a step."""
        ...
