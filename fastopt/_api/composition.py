"""What becomes of an optimizer's rule and scalars: plain functions of flat tuples, for kernels and for each step."""

from __future__ import annotations

import builtins
import functools
import itertools
import operator
from collections import namedtuple
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from .._kernels.compiler import EXACT
from .._kernels.parts import named_part, part
from .._kernels.symbols import contents_of, named_by_contents, names_in

Rule = Callable[..., Any]


@functools.cache
def _plain_tuple(kind: Any) -> Any:
    """Return the function that takes what a NamedTuple takes and returns a plain tuple."""
    names = ", ".join(kind._fields)
    plain: Any = eval(f"lambda {names}: ({names},)", {})  # noqa: S307  names of fields, as namedtuple does itself
    plain.__defaults__ = kind.__new__.__defaults__
    return named_part(plain, **EXACT)


#: For each `scalars` and its NamedTuple, what it referred to when it was last taken apart, and what became of it.
_taken: dict[tuple[Any, Any], tuple[list[Any], Any]] = {}


def without_names(function: Any, kind: Any) -> Callable[..., tuple[float, ...]]:
    """Return `function` with one that returns a plain tuple in the place of the NamedTuple `kind`.

    A NamedTuple of 8 that is made by keyword takes 0.6 µs of a step of 4; this 0.15. What the function refers to is
    taken as it is now. Where it does more with the NamedTuple than to make it, it stays as it is.
    """
    names = sorted(names_in(function.__code__))
    if not {"_make", "_replace", "_asdict", "_fields", *kind._fields}.isdisjoint(names):
        return function  # type: ignore[no-any-return]
    used = {name: function.__globals__[name] for name in names if name in function.__globals__}
    now = [*used.values(), *map(contents_of, function.__closure__ or ())]
    before, found = _taken.get((function, kind), ([], None))
    if found is not None and len(before) == len(now) and all(map(operator.is_, before, now)):
        return found  # type: ignore[no-any-return]
    plain = _plain_tuple(kind)
    scope = {name: plain if value is kind else value for name, value in used.items()}
    scope["__builtins__"] = function.__globals__.get("__builtins__", builtins)
    scope["__name__"] = function.__module__
    cells = tuple(CellType(plain) if contents_of(cell) is kind else cell for cell in function.__closure__ or ())
    copied = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
    copied.__kwdefaults__ = function.__kwdefaults__
    _taken[function, kind] = now, copied
    return copied


@functools.cache
def named_scalars(names: tuple[str, ...]) -> Any:
    """Return the NamedTuple that a rule is given: scalars, then flags."""
    return namedtuple("Scalars", names)  # noqa: PYI024  the names are known only now


def _choose(places: tuple[int, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return the function that returns these entries of a tuple, for use inside compiled code."""
    *others, last = places
    if not others:
        return named_part(lambda values: (values[last],))
    rest = _choose(tuple(others))
    return named_part(lambda values: (*rest(values), values[last]))


def _copy_for_kernels(rule: Any) -> Any:
    """Return a copy of the author's function with a name that says what is in it."""
    copied = FunctionType(rule.__code__, rule.__globals__, rule.__name__, rule.__defaults__, rule.__closure__)
    copied.__kwdefaults__, copied.__qualname__ = rule.__kwdefaults__, rule.__qualname__
    return named_part(copied)


def _of_active(inner: Any, active: tuple[bool, ...], *, measures: bool) -> Any:
    """Return the function of `s`, `g`, `p`, a zero and the active states that returns `p` and these.

    Or, if it `measures`, that returns all that `inner` does.
    """

    def one(s: Any, g: Any, p: Any, zero: Any) -> Any:
        return (inner(s, g, p),)

    def every(s: Any, g: Any, p: Any, zero: Any, *states: Any) -> Any:
        return inner(s, g, p, *states)

    def some(s: Any, g: Any, p: Any, zero: Any, *states: Any) -> Any:
        return kept(inner(s, g, p, *given((zero, *states))))

    def some_measured(s: Any, g: Any, p: Any, zero: Any, *states: Any) -> Any:
        return inner(s, g, p, *given((zero, *states)))

    if all(active):
        return named_part(every if active or measures else one)
    taken = [k for k, is_active in enumerate(active) if is_active]
    given = _choose(tuple(taken.index(k) + 1 if k in taken else 0 for k in range(len(active))))
    kept = _choose((0, *(k + 1 for k in taken)))
    return named_part(some_measured if measures else some)


def decay_scalar(lr: float, weight_decay: float, decoupled: bool) -> float:
    """Return the factor of weight decay in a step: of the parameter if it is decoupled, else of what `g` gains."""
    return 1.0 - lr * weight_decay if decoupled else weight_decay


part(decay_scalar, **EXACT)


def compiled_scalars(
    plain: Any,
    numbers: tuple[Any, ...],
    first: tuple[float, ...],
    mean: tuple[float, ...],
    decays: bool,
    decoupled: bool,
    weight_decay: float,
) -> Any:
    """Return the scalars of a step for use inside compiled code, as a function of the step and `lr`."""
    scalars = part(plain, **EXACT)

    def values(step, lr):  # type: ignore[no-untyped-def]  # Numba infers them
        own = scalars(step, lr, *numbers)
        if decays:
            return (*first, decay_scalar(lr, weight_decay, decoupled), *mean, *own)
        return (*first, *mean, *own)

    return named_part(values, **EXACT)


class Around(NamedTuple):
    """What is done around the rule of an optimizer, which all have in common.

    Attributes
    ----------
    decay : {"", "coupled", "decoupled"}
        Whether parameters decay: by way of the gradient, or by themselves.
    maximize : bool
        Whether the step goes up.
    scaled, clipped : bool
        Whether the gradient is multiplied by a factor, and then kept within a bound.
    averaged, copied : bool
        Whether there are, after the states of the rule, an average of the parameter and a copy of it.
    """

    decay: str = ""
    maximize: bool = False
    scaled: bool = False
    clipped: bool = False
    averaged: bool = False
    copied: bool = False

    @property
    def scalars(self) -> int:
        """How many scalars that takes, before those of the rule.

        They are the factor, the bound, that of the decay, and the decay factor of the average and its complement.
        """
        return self.scaled + self.clipped + bool(self.decay) + 2 * self.averaged


@functools.cache
def compose(
    rule: Rule,
    scalars: tuple[str, ...],
    flags: tuple[tuple[str, bool], ...],
    active: tuple[bool, ...],
    around: Around,
    absent: tuple[str, ...] = (),
    *,
    measures: bool = False,
) -> Rule:
    """Return ``rule(s, g, p, *states) -> (p, *states)``, as kernels take it, of active states and flat scalars.

    Or, if it `measures`, such a function that returns what norms are taken of. The scalars that are `absent` are 0.
    Cached, because kernels are: one rule is one function object.
    """
    kind = named_scalars((*scalars, *absent, *(name for name, _ in flags)))
    zeros: Any = _choose((0,) * len(absent)) if absent else None
    values = tuple(value for _, value in flags)
    update = _of_active(_copy_for_kernels(rule), active, measures=measures)
    decay, maximize, scaled, clipped, averaged, copied = around
    first = around.scalars
    end = first + len(scalars)
    bound = 1 if scaled else 0
    last = bound + clipped
    coupled, decoupled, partial = decay == "coupled", decay == "decoupled", not all(active)

    def composed(s: Any, g: Any, p: Any, *states: Any) -> Any:
        # 0 in the dtype of the arithmetic: the scalars of a rule are finite.
        zero = s[first] - s[first]
        own = kind(*(s[first:end] + zeros((zero,)) + values)) if absent else kind(*(s[first:end] + values))
        if scaled:
            g = g * s[0]
        if clipped:
            g = np.minimum(np.maximum(g, -s[bound]), s[bound])
        if maximize:
            g = -g
        if coupled:
            g = g + s[last] * p
        if decoupled:
            p = s[last] * p
        if partial:
            return update(own, g, p, zero, *states)
        return update(own, g, p, p, *states)

    if (averaged or copied) and measures:
        return _of_own(named_part(composed), sum(active))
    if averaged or copied:
        return _extended(named_part(composed), sum(active), averaged, copied, first - 2)
    return named_by_contents(composed)


def _of_own(composed: Any, count: int) -> Rule:
    """Return a function of the first states alone, of more."""

    def of_own(s: Any, g: Any, p: Any, *states: Any) -> Any:
        return composed(s, g, p, *states[:count])

    return named_by_contents(of_own)


def _extended(composed: Any, count: int, averaged: bool, copied: bool, place: int) -> Rule:
    """Return a rule of so many states with an average of the parameter and a copy of it after these."""

    def average(s: Any, states: Any, p: Any) -> Any:
        return s[place] * states[count] + s[place + 1] * p

    def with_average(s: Any, g: Any, p: Any, *states: Any) -> Any:
        new = composed(s, g, p, *states[:count])
        return (*new, mean(s, states, new[0]))

    def with_copy(s: Any, g: Any, p: Any, *states: Any) -> Any:
        new = composed(s, g, p, *states[:count])
        return (*new, new[0])

    def with_both(s: Any, g: Any, p: Any, *states: Any) -> Any:
        new = composed(s, g, p, *states[:count])
        return (*new, mean(s, states, new[0]), new[0])

    mean = named_part(average)
    return named_by_contents(with_copy if not averaged else with_both if copied else with_average)


@functools.cache
def compose_for(
    cls: Any, around: Around, flags: tuple[bool, ...], has: tuple[bool, ...]
) -> tuple[Rule, Rule | None, tuple[str, ...]]:
    """Return the rule of a class for these constants, its norms, and the states that it has then."""
    there = dict(zip(cls._has, has, strict=True))
    active = tuple(there.get(f"has_{name}", True) for name in cls._declared)
    named = (*zip(cls._flags, flags, strict=True), *there.items())
    measured, absent = (cls._measured, ()) if dict(named).get(cls.norms_when, True) else ((), cls._measured)
    rule = compose(cls.rule, (*cls._scalars, *measured), named, active, around, absent)
    norms = compose(cls.norms, cls._scalars, named, active, around, measures=True) if measured else None
    return rule, norms, tuple(itertools.compress(cls._declared, active))
