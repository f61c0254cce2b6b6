"""A method: an optimizer's formula and its hyperparameters, without any arrays.

:class:`fastopt.Optimizer` adds the arrays, the functions of :mod:`fastopt._api.functional` take them from
the caller, and :mod:`fastopt._api.jitable` takes them inside compiled code. All three share what is here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numba.extending import register_jitable

from .._kernels.compiler import EXACT, Spec
from .._kernels.symbols import named_by_contents
from . import hyperparameters as _hyper

Rule = Callable[..., Any]

#: The largest float64 that each dtype rounds to 0: half of its least number.
_ROUNDED_TO_ZERO = {"float32": 2.0**-150, "float64": 0.0}


@functools.cache
def _compose(
    make: Callable[..., Rule],
    flags: tuple[tuple[str, bool], ...],
    coupled: bool,
    decoupled: bool,
    maximize: bool,
) -> Rule:
    """Return the rule for these flags, with what all optimizers have in common around it.

    Cached, because kernels are: one rule is one function object.
    """
    inner = named_by_contents(make(**dict(flags)))
    if not (coupled or decoupled or maximize):
        return inner
    inner = register_jitable(inner)

    def rule(s, g, p, *state):
        if maximize:
            g = -g
        if coupled:
            g = g + s[0] * p
        if decoupled:
            p = s[0] * p
        return inner(s[1:], g, p, *state)

    return named_by_contents(rule)


class Method:
    """The formula of an optimizer and the hyperparameters that it is used with.

    A subclass gives `states`, `scalars` and `make`, and declares its hyperparameters with the functions
    of :mod:`fastopt._api.hyperparameters`.
    """

    states: ClassVar[tuple[str, ...]] = ()
    """Every state that the optimizer may have, in the order in which its rule takes them."""

    squares: ClassVar[tuple[str, ...]] = ()
    """Those of them that are averages of squares: never negative, and something is divided by their root."""

    lr = _hyper.rate(1e-2)
    weight_decay = _hyper.nonnegative(0.0)
    decoupled = _hyper.flag(False)
    maximize = _hyper.flag(False)
    reproducible = _hyper.optional_flag(None)

    hyperparameters: ClassVar[Mapping[str, Any]]
    """The name and the default of every hyperparameter."""

    _fields: ClassVar[dict[str, _hyper.Hyperparameter[Any]]]
    _rule: Rule
    _specs: dict[tuple[str, ...], Spec]
    _guards: ClassVar[tuple[str, ...]] = ()
    _settable: ClassVar[frozenset[str]] = frozenset()
    _arguments: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        attributes = [item for base in reversed(cls.__mro__) for item in vars(base).items()]
        names = [name for name, value in attributes if isinstance(value, _hyper.Hyperparameter)]
        setters = {name for name, value in attributes if getattr(value, "fset", None) is not None}
        cls._settable = frozenset({*names, *setters})
        shared = ("weight_decay", "decoupled", "maximize", "reproducible")
        order = [*dict.fromkeys(name for name in names if name not in shared), *shared]
        cls._fields = {name: inspect.getattr_static(cls, name) for name in order}
        cls.hyperparameters = {name: field.default for name, field in cls._fields.items()}
        cls._guards = tuple(name for name, field in cls._fields.items() if field.guards)
        if "scalars" in vars(cls):
            cls._arguments = tuple(inspect.signature(cls.scalars).parameters)[2:]

    scalars: ClassVar[Callable[..., tuple[float, ...]]]
    """``scalars(step, lr, ...)``: what the rule needs to know of a step, in float64, computed once per step.

    The arguments after `lr` are attributes, by name. Plain arithmetic on numbers, because it is compiled too,
    for :func:`fastopt.jitable`."""

    make: ClassVar[Callable[..., Rule]]
    """``make(**flags)`` returns the rule, ``rule(s, g, p, *states) -> (p, *states)``, for one element."""

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """Return the hyperparameters as the parameters of a signature."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        items = cls.hyperparameters.items()
        return [inspect.Parameter(name, keyword, default=default) for name, default in items]

    def flags(self) -> dict[str, bool]:
        """Return the arguments of `make`."""
        return {}

    def active_states(self) -> tuple[str, ...]:
        """Return the names of the states that the rule for these hyperparameters has."""
        return self.states

    @classmethod
    @functools.lru_cache(maxsize=256, typed=True)
    def with_hyperparameters(cls, **hyperparameters: Any) -> Method:
        """Return a method with these hyperparameters, a new one only if they are new."""
        method = cls.__new__(cls)
        method._set_hyperparameters(dict(cls.hyperparameters) | hyperparameters)
        return method

    def _set_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Check all of `values` and set them; if one is wrong, none is set."""
        own = type(self).__name__
        for name in values:
            if name not in self._fields:
                allowed = ", ".join(self._fields)
                raise TypeError(f"{own} does not take {name!r}; it takes {allowed}")
        checked = {name: self._fields[name].check(name, value) for name, value in values.items()}
        before = dict(self.__dict__)
        self.__dict__.update(checked)
        try:
            self._changed()
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _changed(self) -> None:
        """Take note that hyperparameters changed."""
        decays, decoupled, maximize = self.weight_decay != 0, self.decoupled, self.maximize
        flags = tuple(self.flags().items())
        rule = _compose(type(self).make, flags, decays and not decoupled, decays and decoupled, maximize)
        kernel = (rule, self.reproducible)
        if kernel != self.__dict__.get("_kernel"):  # another one; most changes are of numbers alone
            self._kernel, self._rule, self._specs = kernel, rule, {}
        self._wrapped = decays or maximize
        self._numbers = tuple(getattr(self, name) for name in self._arguments)

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of step number `step`."""
        lr: Any = self.__dict__["lr"]  # without the descriptor, which takes 0.1 µs of 4
        return _hyper.in_range(f"lr({step})", lr(step), 0, float("inf"), high_in=False) if callable(lr) else lr

    def values(self, step: int) -> tuple[float, ...]:
        """Return all scalars of step number `step`: those of the decay and those of the rule."""
        lr = self._learning_rate(step)
        values = self.scalars(step, lr, *self._numbers)
        return (self._decay_scalar(lr), *values) if self._wrapped else values

    def _decay_scalar(self, lr: float) -> float:
        return 1.0 - lr * self.weight_decay if self.decoupled else self.weight_decay

    def spec(self, codecs: tuple[str, ...], scalars: int | None = None) -> Spec:
        """Return what the kernel for a gradient, a parameter and states in these codecs is compiled from.

        `scalars` is how many :meth:`values` returns, for those who know.
        """
        spec = self._specs.get(codecs)
        if spec is not None and scalars not in (None, spec.scalars):
            raise TypeError(f"{type(self).__name__}.scalars returned {scalars} numbers, and {spec.scalars} before")
        if spec is None:
            scalars = len(self.values(1)) if scalars is None else scalars
            spec = Spec(self._rule, scalars, codecs, self.is_reproducible(codecs))
            self.check_dtype(spec.number)
            self._specs[codecs] = spec
        return spec

    def is_reproducible(self, codecs: tuple[str, ...]) -> bool:
        """Say whether arrays in these codecs are updated by operations that are all rounded by themselves."""
        return set(codecs) <= {"float32", "float64"} if self.reproducible is None else self.reproducible

    def check_dtype(self, dtype: np.dtype[Any]) -> None:
        """Raise unless what keeps divisors from zero does so in arithmetic of this dtype.

        Raises
        ------
        ValueError
            If a number above 0 would be rounded to 0.
        """
        for name in self._guards:
            value = self.__dict__[name]
            if 0 < value <= _ROUNDED_TO_ZERO[dtype.name]:
                least = np.finfo(dtype).smallest_subnormal
                raise ValueError(
                    f"{name} must be 0 or at least {least:.2g} where arithmetic is in {dtype}, got {value!r}"
                )

    def plain_spec(self, dtype: np.dtype[Any]) -> Spec:
        """Return the same for arrays that are all of `dtype`, float32 or float64."""
        return self.spec((dtype.name,) * (2 + len(self.active_states())))

    def compiled_values(self) -> Any:
        """Return :meth:`values` for use inside compiled code, as a function of the step and `lr`.

        The step is passed as a float, for which Numba takes the power as Python does.
        """
        scalars = register_jitable(**EXACT)(type(self).scalars)
        numbers, wrapped, decoupled = self._numbers, self._wrapped, self.decoupled
        weight_decay = self.weight_decay

        def values(step, lr):
            own = scalars(step, lr, *numbers)
            if wrapped:
                return (1.0 - lr * weight_decay if decoupled else weight_decay, *own)
            return own

        return register_jitable(**EXACT)(named_by_contents(values))

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name.startswith("_") or name in self._settable):
            raise AttributeError(f"{type(self).__name__} has no {name!r} to set; it has {', '.join(self._fields)}")
        super().__setattr__(name, value)

    def describe(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the value of every hyperparameter."""
        for name in self._fields:
            yield name, getattr(self, name)
