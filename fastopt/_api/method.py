"""A method: an optimizer's formula and its hyperparameters, without any arrays.

:class:`fastopt.Optimizer` adds the arrays, the functions of :mod:`fastopt._api.functional` take them from
the caller, and :mod:`fastopt._api.jitable` takes them inside compiled code. All three share what is here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from .._engine.extents import AVERAGE
from .._kernels.compiler import Spec
from . import hyperparameters as _hyper
from .arguments import AROUND, SHARED, Arguments
from .composition import Around, Rule, compiled_scalars, compose_for, decay_scalar, without_names
from .declaration import State, check_class, check_field, depends_on_step, find_states, initial_value, returned_type


class Method(Arguments):
    """The formula of an optimizer and the hyperparameters that it is used with.

    A subclass gives `scalars` and `rule`, and declares hyperparameters and states with :mod:`fastopt.rules`.
    """

    states: ClassVar[tuple[str, ...]] = ()
    """Every state that the optimizer may have, in the order in which its rule takes them."""

    squares: ClassVar[tuple[str, ...]] = ()
    """Those of them that are never negative, such as averages of squares."""

    hyperparameters: ClassVar[Mapping[str, Any]]
    """The name and the default of every hyperparameter."""

    # An attribute that is annotated here would be an argument, if it is no ClassVar: those of instances are annotated
    # where they are set.
    _fields: ClassVar[dict[str, _hyper.Hyperparameter[Any]]]
    _guards: ClassVar[tuple[str, ...]] = ()
    _settable: ClassVar[frozenset[str]] = frozenset()
    _setters: ClassVar[frozenset[str]] = frozenset()
    _arguments: ClassVar[tuple[str, ...]]
    _declared: ClassVar[dict[str, State]] = {}
    _flags: ClassVar[tuple[str, ...]] = ()
    _has: ClassVar[tuple[str, ...]] = ()
    _whens: ClassVar[tuple[str, ...]] = ()
    _scalars: ClassVar[tuple[str, ...]] = ()
    _kind: ClassVar[Any]
    _measured: ClassVar[tuple[str, ...]] = ()
    _norms: ClassVar[Rule | None] = None
    # Those of instances, set in `_changed` by way of their dictionary; without ClassVar they would be arguments.
    _active: ClassVar[tuple[str, ...]]
    _fixed: ClassVar[tuple[float, ...] | None]
    _kernel_key: ClassVar[tuple[Any, ...]]
    _numbers: ClassVar[tuple[Any, ...]]
    _plain: ClassVar[Any]
    _quick: ClassVar[bool]
    _decays: ClassVar[bool]
    _first: ClassVar[tuple[float, ...]]
    _leading: ClassVar[int]
    _of_all: ClassVar[bool]
    _of_class: ClassVar[bool]
    _scaled: ClassVar[bool]
    _mean: ClassVar[tuple[float, ...]]
    _copied: ClassVar[bool] = False  #: Whether a step makes copies of the parameters.
    # Whether it is that of some parameters among others, whose kernel it shares whether they decay or not; then, what
    # they have for themselves, and the optimizer.
    _of_group: ClassVar[bool] = False
    _own: ClassVar[dict[str, Any] | None] = None
    _whole: ClassVar[Any] = None
    _rule: ClassVar[Rule]
    _specs: ClassVar[dict[tuple[str, ...], Spec]]
    timed: ClassVar[bool] = False  #: Whether :attr:`scalars` depends on the number of the step.

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._declared = find_states(cls)
        attributes = [item for base in reversed(cls.__mro__) for item in vars(base).items()]
        names = [name for name, value in attributes if isinstance(value, _hyper.Hyperparameter)]
        setters = {name for name, value in attributes if getattr(value, "fset", None) is not None}
        cls._setters = frozenset(setters - {"step_count"})
        cls._settable = frozenset({*names, *setters})
        order = [*dict.fromkeys(name for name in names if name not in SHARED), *SHARED]
        cls._fields = {name: check_field(cls, name) for name in order}
        cls.hyperparameters = {name: field.default for name, field in cls._fields.items()}
        cls._guards = tuple(name for name, field in cls._fields.items() if field.guards)
        cls.states = tuple(cls._declared)
        cls.squares = tuple(name for name, declared in cls._declared.items() if declared.nonnegative)
        cls._flags = tuple(name for name, field in cls._fields.items() if field.constant and name not in SHARED)
        if hasattr(cls, "rule") or hasattr(cls, "scalars"):
            optional = {f"has_{name}": declared.when for name, declared in cls._declared.items() if declared.when}
            cls._has, cls._whens = tuple(optional), tuple(optional.values())
            check_class(cls, cls._declared, (*cls._flags, *cls._has), cls._fields)
            cls._arguments = tuple(inspect.signature(cls.scalars).parameters)[2:]
            cls._kind = returned_type(cls, "scalars")
            cls._scalars = cls._kind._fields
            cls._measured = returned_type(cls, "norms")._fields if hasattr(cls, "norms") else ()
            cls.timed = depends_on_step(cls.scalars)

    scalars: ClassVar[Callable[..., tuple[float, ...]]]
    """``scalars(step, lr, ...) -> Scalars``: what the rule needs to know of a step, in float64, once per step.

    The arguments after `lr` are attributes, by name. `Scalars` is a NamedTuple. Plain arithmetic on numbers, because it
    is compiled too, for :func:`fastopt.jitable`."""

    rule: ClassVar[Rule]
    """``rule(s, g, p, *states) -> (p, *states)`` for one element; `s` has the scalars and the flags by name.

    And, of the numbers in the NamedTuple ``norms(s, g, p, *states) -> Norms``, if there is one, norms over a tensor."""

    norms_when: ClassVar[str] = ""  #: The flag without which there are no norms: 0 for the rule, without a pass.
    own_decay: ClassVar[bool] = False  #: Whether the rule decays, by its scalars, where `decoupled`.

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """Return the hyperparameters as the parameters of a signature."""
        made = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
        return [made(name, default=default) for name, default in cls.hyperparameters.items()]

    def active_states(self) -> tuple[str, ...]:
        """Return the names of the states that there are with these hyperparameters."""
        return self._active

    def initial_values(self) -> dict[str, float]:
        """Return what each state holds before the first step."""
        inits = ((declared, declared.init) for declared in self._declared.values())
        return {d.name: initial_value(d, getattr(self, init) if isinstance(init, str) else init) for d, init in inits}

    @classmethod
    @functools.lru_cache(maxsize=256, typed=True)
    def with_hyperparameters(cls, **hyperparameters: Any) -> Method:
        """Return a method with these hyperparameters, a new one only if they are new."""
        return cls._alone(dict(cls.hyperparameters) | hyperparameters)

    @classmethod
    def _alone(cls, hyperparameters: Mapping[str, Any], /, **attributes: Any) -> Self:
        """Return a method with all of these hyperparameters, without arrays, and with other attributes first."""
        method = cls.__new__(cls)
        method.__dict__.update(attributes)
        method._set_hyperparameters(hyperparameters)
        return method

    def _set_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Check all of `values` and set them; if one is wrong, none is set."""
        own = type(self).__name__
        for name in values:
            if name not in self._fields:
                allowed = ", ".join(self._fields)
                raise TypeError(f"{own} does not take {name!r}; it takes {allowed}")
        self._set_attributes({name: self._fields[name].check(name, value) for name, value in values.items()})

    def _set_attributes(self, new: Mapping[str, Any]) -> None:
        """Set attributes and take note of it; if that cannot be, all stay as they were."""
        before = dict(self.__dict__)
        self.__dict__.update(new)
        try:
            self._changed()
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _changed(self) -> None:
        """Take note that hyperparameters changed."""
        now, cls = self.__dict__, type(self)
        decay = "coupled" if now["weight_decay"] else ""
        if now["decoupled"]:  # a factor of 1 leaves every number as it is
            decay = "decoupled" if (now["weight_decay"] or self._of_group) and not cls.own_decay else ""
        scaled = now["grad_scale"] is not None or now["clip_norm"] is not None
        of_all = now["clip_norm"] is not None or now["nonfinite"] != "propagate"
        averaged = now["ema"] is not None
        around = (decay, now["maximize"], scaled, now["clip_value"] is not None, averaged, self._copied)
        flags = [now[name] for name in self._flags]
        has = [bool(getattr(self, when)) for when in self._whens]
        constants = (cls, around, of_all, now["reproducible"], *flags, *has)
        if constants != now.get("_constants"):  # most changes are of numbers alone
            rule, norms, active = compose_for(cls, Around(*around), tuple(flags), tuple(has))  # type: ignore[arg-type]  # has a hash
            now["_decays"], now["_leading"], now["_of_all"] = bool(decay), Around(*around).scalars, of_all
            now["_of_class"] = of_all or averaged
            now["_constants"], now["_rule"], now["_norms"] = constants, rule, norms
            now["_active"] = (*active, AVERAGE) if averaged else active
            now["_kernel_key"], now["_specs"] = (rule, norms, now["reproducible"]), {}
            now["_plain"] = without_names(cls.scalars, cls._kind)
        now["_scaled"], first = scaled, (self._factor(),) if scaled else ()
        now["_first"] = first if now["clip_value"] is None else (*first, now["clip_value"])
        now["_mean"] = (now["ema"], 1.0 - now["ema"]) if averaged else ()
        now["_numbers"] = tuple([getattr(self, name) for name in self._arguments])
        if self._setters and self._whole is not None:  # properties, which groups have in common
            each = ((self._whole if name in self._setters else self, name) for name in self._arguments)
            now["_numbers"] = tuple([getattr(source, name) for source, name in each])
        now["_fixed"] = None  # the scalars of every step, where all steps have the same
        now["_quick"] = cls.timed and type(now["lr"]) is float and not now["_leading"]

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of step number `step`."""
        lr = self.lr
        return _hyper.in_range(f"lr({step})", lr(step), 0, float("inf"), high_in=False) if callable(lr) else lr

    def values(self, step: int) -> tuple[float, ...]:
        """Return all scalars of step number `step`: those of the decay and those of the rule."""
        if self._quick:
            return self._plain(step, self.__dict__["lr"], *self._numbers)  # type: ignore[no-any-return]
        if self._fixed is not None:
            return self._fixed
        values = self.values_with(step, self._learning_rate(step))
        if not (self.timed or callable(self.lr)):
            self.__dict__["_fixed"] = values
        return values

    def values_with(self, step: int, lr: float) -> tuple[float, ...]:
        """Return the same with another learning rate."""
        values: tuple[float, ...] = self._plain(step, lr, *self._numbers)
        decay = (decay_scalar(lr, self.weight_decay, self.decoupled),) if self._decays else ()
        return (*self._first, *decay, *self._mean, *values) if self._leading else values

    def _factor(self) -> float:
        """Return what gradients are multiplied by before they are clipped."""
        return 1.0 / (self.grad_scale or 1.0)

    def spec(self, codecs: tuple[str, ...], scalars: int | None = None) -> Spec:
        """Return what the kernel for a gradient, a parameter and states in these codecs is compiled from.

        `scalars` is how many :meth:`values` returns, for those who know.
        """
        spec = self._specs.get(codecs)
        if spec is not None and scalars is not None and scalars != spec.scalars:
            raise TypeError(f"{type(self).__name__}.scalars returned {scalars} numbers, and {spec.scalars} before")
        if spec is None:
            scalars = len(self.values(1)) if scalars is None else scalars
            own = scalars - self._leading
            if own != len(self._scalars):
                names = ", ".join(self._scalars)
                raise TypeError(f"{type(self).__name__}.scalars returned {own} numbers, and its NamedTuple has {names}")
            measured = len(self._measured) if self._norms else 0
            spec = Spec(self._rule, scalars, codecs, self.is_reproducible(codecs), self._norms, measured)
            self.check_dtypes(spec.compute)
            self._specs[codecs] = spec
        return spec

    def is_reproducible(self, codecs: tuple[str, ...]) -> bool:
        """Say whether every operation on arrays in these codecs is rounded by itself."""
        if self.reproducible is not None:
            return self.reproducible
        if self.clip_value is not None and "int8" in codecs:
            return True  # fused, the kernels for one thread and for several would differ
        read = codecs[:-1] if self._copied else codecs
        return {name.partition("-")[0] for name in read} <= {"float32", "float64"}

    def check_dtypes(self, *dtypes: np.dtype[Any]) -> None:
        """Raise ValueError unless what keeps divisors from zero, and scales gradients, does so in these dtypes."""
        for dtype in dtypes:
            for name in self._guards:
                _hyper.check_not_lost(name, self.__dict__[name], dtype)
            if self._first:
                _hyper.check_normal("grad_scale", self.grad_scale, dtype, reciprocal=True)
                _hyper.check_normal("clip_value", self.clip_value, dtype)

    def plain_spec(self, dtype: np.dtype[Any]) -> Spec:
        """Return the same for arrays that are all of `dtype`, float32 or float64."""
        return self.spec((dtype.name,) * (2 + len(self.active_states())))

    def compiled_from(self) -> tuple[Any, ...]:
        """Return the numbers that :meth:`compiled_values` depends on."""
        first = self._first
        if self._of_all and self._scaled:
            first = (1.0, *first[1:])  # a GPU puts the factor there itself
        return self._plain, self._numbers, first, self._mean, self._decays, self.decoupled, self.weight_decay

    def compiled_values(self) -> Any:
        """Return :meth:`values` for use inside compiled code, as a function of the step and `lr`.

        The step is passed as a float, for which Numba takes the power as Python does.
        """
        return compiled_scalars(*self.compiled_from())

    if not TYPE_CHECKING:  # type checkers know which attributes there are, unless they see this

        def __setattr__(self, name: str, value: Any) -> None:
            if not (name.startswith("_") or name in self._settable):
                raise AttributeError(f"{type(self).__name__} has no {name!r} to set; it has {', '.join(self._fields)}")
            super().__setattr__(name, value)
            if name in self._setters:  # a property that `scalars` may take
                self._changed()

    def describe(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the value of every hyperparameter; of those around the rule unless they are as usual."""
        for name in self._fields:
            value = getattr(self, name)
            if name not in AROUND or value != self.hyperparameters[name]:
                yield name, value
