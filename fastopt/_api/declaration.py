"""What a class of optimizer declares beside its hyperparameters: states, named scalars and the rule, all of it checked.

The rule of a class is checked when the class is made, without compiling anything: it is called with numbers that only
note what is done to them, once for every way through its branches.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from types import CellType, FunctionType
from typing import Any, NoReturn, overload

from numba.core.errors import NumbaError
from numba.extending import register_jitable

from .._kernels.compiler import EXACT
from .._kernels.symbols import named_by_contents
from .arguments import Setting
from .hyperparameters import in_range
from .tracing import Recorder, Scalar

Rule = Callable[..., Any]


class State:
    """A state array of an optimizer; made by :func:`state`."""

    name: str

    def __init__(self, *, nonnegative: bool, when: str | None, init: float | str) -> None:
        self.nonnegative, self.when = nonnegative, when
        self.init = init if isinstance(init, str) else in_range("init", init, float("-inf"), float("inf"))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> State: ...
    @overload
    def __get__(self, instance: object, owner: type) -> NoReturn: ...
    def __get__(self, instance: object | None, owner: type) -> State:
        if instance is not None:
            raise AttributeError(f"{owner.__name__} has its states in opt.state[{self.name!r}]")
        return self


def state(*, nonnegative: bool = False, when: str | None = None, init: float | str = 0.0) -> State:
    """Declare a state: an array of the parameter's shape that the rule takes and returns, by the name it is given.

    Parameters
    ----------
    nonnegative : bool, default False
        It is never negative and something is divided by its root, as an average of squares: in 8 bits it is stored
        without a sign, and never as 0.
    when : str, optional
        The name of a hyperparameter: there is such a state only where it is true, or not 0. Elsewhere the rule is
        given the constant 0, what it returns is dropped, and the flag ``s.has_<state>`` is False.
    init : float or str, default 0.0
        What it holds before the first step, or the name of the hyperparameter that says so.

    Examples
    --------
    >>> import fastopt
    >>> from fastopt.rules import rate, state
    >>> class Signs(fastopt.Optimizer):
    ...     lr = rate(1e-3)
    ...     v = state()
    """
    return State(nonnegative=nonnegative, when=when, init=init)


def find_states(cls: type) -> dict[str, State]:
    """Return the states of a class, those of its bases first."""
    attributes = [item for base in reversed(cls.__mro__) for item in vars(base).items()]
    names = dict.fromkeys(name for name, value in attributes if isinstance(value, State))
    for name in names:
        if any(name in vars(base) and not isinstance(vars(base)[name], State) for base in cls.__mro__):
            raise TypeError(f"{cls.__name__} has a state {name!r}, which is the name of something else in its bases")
    found = {name: inspect.getattr_static(cls, name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, State)}


def scalars_type(cls: Any) -> Any:
    """Return the NamedTuple that ``scalars`` of a class is annotated with.

    Raises
    ------
    TypeError
        If it is not.
    """
    function = cls.scalars
    kind = function.__annotations__.get("return")
    if isinstance(kind, str):
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        kind = {**function.__globals__, **{name: _contents(cell) for name, cell in cells}}.get(kind)
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise TypeError(
            f"{cls.__name__}.scalars must say which NamedTuple it returns: def scalars(step, lr) -> Scalars, got the "
            f"annotation {function.__annotations__.get('return')!r}"
        )
    return kind


def depends_on_step(scalars: Any) -> bool:
    """Say whether the code of `scalars` looks at its first argument, whatever comes of it for some hyperparameters."""
    code = scalars.__code__
    step = code.co_varnames[0]
    used = (i.argval for i in dis.get_instructions(code) if i.opname.startswith("LOAD_"))
    # From Python 3.13 on one instruction may load two variables; one that an inner function has is in a cell.
    return step in code.co_cellvars or any(step == name or (type(name) is tuple and step in name) for name in used)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


@functools.cache
def _plain_tuple(kind: Any) -> Any:
    """Return the function that takes what a NamedTuple takes and returns a plain tuple."""
    names = ", ".join(kind._fields)
    plain: Any = eval(f"lambda {names}: ({names},)", {})  # noqa: S307  names of fields, as namedtuple does itself
    plain.__defaults__ = kind.__new__.__defaults__
    return register_jitable(**EXACT)(named_by_contents(plain))


def without_names(function: Any, kind: Any) -> Callable[..., tuple[float, ...]]:
    """Return `function` with one that returns a plain tuple in the place of the NamedTuple `kind`.

    A NamedTuple of 8 that is made by keyword takes 0.6 µs of a step of 4; this 0.15.
    """
    plain = _plain_tuple(kind)
    scope = {name: plain if value is kind else value for name, value in function.__globals__.items()}
    cells = tuple(CellType(plain) if _contents(cell) is kind else cell for cell in function.__closure__ or ())
    copied = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


@functools.cache
def named_scalars(names: tuple[str, ...]) -> Any:
    """Return the NamedTuple that a rule is given: scalars, then flags."""
    return namedtuple("Scalars", names)  # noqa: PYI024  the names are known only now


def _choose(places: tuple[int, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Return the function that returns these entries of a tuple, for use inside compiled code."""
    *others, last = places
    if not others:
        return register_jitable(named_by_contents(lambda values: (values[last],)))  # type: ignore[no-any-return]
    rest = _choose(tuple(others))
    return register_jitable(named_by_contents(lambda values: (*rest(values), values[last])))  # type: ignore[no-any-return]


def _copy_for_kernels(rule: Any) -> Any:
    """Return a copy of the author's function with a name that says what is in it."""
    copied = FunctionType(rule.__code__, rule.__globals__, rule.__name__, rule.__defaults__, rule.__closure__)
    copied.__kwdefaults__, copied.__qualname__ = rule.__kwdefaults__, rule.__qualname__
    return register_jitable(named_by_contents(copied))


def _of_active(inner: Any, active: tuple[bool, ...]) -> Any:
    """Return the function of `s`, `g`, `p`, a zero and the active states that returns `p` and these."""

    def one(s: Any, g: Any, p: Any, zero: Any) -> Any:
        return (inner(s, g, p),)

    def every(s: Any, g: Any, p: Any, zero: Any, *states: Any) -> Any:
        return inner(s, g, p, *states)

    def some(s: Any, g: Any, p: Any, zero: Any, *states: Any) -> Any:
        return kept(inner(s, g, p, *given((zero, *states))))

    if not all(active):
        taken = [k for k, is_active in enumerate(active) if is_active]
        given = _choose(tuple(taken.index(k) + 1 if k in taken else 0 for k in range(len(active))))
        kept = _choose((0, *(k + 1 for k in taken)))
        return register_jitable(named_by_contents(some))
    return register_jitable(named_by_contents(every if active else one))


@functools.cache
def compose(
    rule: Rule,
    scalars: tuple[str, ...],
    flags: tuple[tuple[str, bool], ...],
    active: tuple[bool, ...],
    decay: str,
    maximize: bool,
) -> Rule:
    """Return ``rule(s, g, p, *states) -> (p, *states)``, as kernels take it, of active states and flat scalars.

    Around the author's rule is what all optimizers have in common. `decay` is "coupled", "decoupled" or "": the first
    of the scalars is then its factor. The last is 0 where a state is not active. Cached, because kernels are: one
    rule is one function object.
    """
    kind = named_scalars((*scalars, *(name for name, _ in flags)))
    values = tuple(value for _, value in flags)
    update = _of_active(_copy_for_kernels(rule), active)
    first = 1 if decay else 0
    end = first + len(scalars)
    coupled, decoupled, partial = decay == "coupled", decay == "decoupled", not all(active)

    def composed(s: Any, g: Any, p: Any, *states: Any) -> Any:
        own = kind(*(s[first:end] + values))
        if maximize:
            g = -g
        if coupled:
            g = g + s[0] * p
        if decoupled:
            p = s[0] * p
        if partial:
            return update(own, g, p, s[end], *states)
        return update(own, g, p, p, *states)

    return named_by_contents(composed)


def check_class(cls: Any, states: Mapping[str, State], flags: Iterable[str], hyperparameters: Iterable[str]) -> None:
    """Raise for what is wrong with a class whose author gave it a rule.

    Raises
    ------
    TypeError
        Naming the class, what it declares, and what was expected.
    """
    own = cls.__name__
    for name in ("scalars", "rule"):
        if not isinstance(inspect.getattr_static(cls, name, None), staticmethod):
            raise TypeError(f"{own}.{name} must be a function of its own: put @staticmethod above it")
    for name, declared in states.items():
        for what, wanted in (("when", declared.when), ("init", declared.init)):
            if isinstance(wanted, str) and wanted not in hyperparameters:
                raise TypeError(
                    f"{own}.{name} = state({what}={wanted!r}) must name a hyperparameter: {', '.join(hyperparameters)}"
                )
    wanted_arguments = ["s", "g", "p", *states]
    arguments = list(inspect.signature(cls.rule).parameters)
    pairs = zip(wanted_arguments[3:], arguments[3:], strict=False)
    # A state may be called as another argument is, such as "s": its argument then has a name of its own.
    misnamed = any(name not in (argument, *wanted_arguments[:3]) for name, argument in pairs)
    if len(arguments) != len(wanted_arguments) or misnamed:
        raise TypeError(
            f"{own}.rule must take ({', '.join(wanted_arguments)}), every declared state in order; it takes "
            f"({', '.join(arguments)})"
        )
    first, *rest = inspect.signature(cls.scalars).parameters
    if first != "step" or rest[:1] != ["lr"]:
        raise TypeError(f"{own}.scalars must take (step, lr, ...), got ({', '.join((first, *rest))})")
    for name in rest[1:]:
        if not hasattr(cls, name) or isinstance(inspect.getattr_static(cls, name), Setting):
            raise TypeError(f"{own}.scalars takes {name!r}, which is no hyperparameter: {', '.join(hyperparameters)}")
    scalars = scalars_type(cls)._fields
    both = [name for name in scalars if name in flags]
    if both:
        raise TypeError(f"{own} has {both[0]!r} both as a scalar and as a flag, which the rule could not tell apart")
    _trace(cls, states, scalars, tuple(flags))


def _trace(cls: Any, states: Mapping[str, State], scalars: tuple[str, ...], flags: tuple[str, ...]) -> None:
    """Run the rule of a class once for every way through its branches, and check what it returns."""
    own = cls.__name__
    recorder = Recorder(own, scalars, flags)
    for s, number in recorder.paths():
        given = [number(name) for name in ("g", "p", *states)]
        try:
            returned = cls.rule(s, *given)
        except (NumbaError, NotImplementedError):
            return  # it calls compiled code, of which only compiling tells what it returns
        values = returned if isinstance(returned, tuple) else (returned,)
        if len(values) != 1 + len(states):
            wanted = ", ".join(("p", *states))
            raise TypeError(f"{own}.rule must return {wanted}; it returned {len(values)} value(s)")
        if states and not isinstance(returned, tuple):
            raise TypeError(f"{own}.rule must return a tuple, got {type(returned).__name__}")
        for name, value in zip(("p", *states), values, strict=True):
            if not isinstance(value, Scalar):
                raise TypeError(
                    f"{own}.rule returns {value!r} as {name}, which has a type of its own: return a number that is "
                    "computed from s, g, p and the states"
                )
