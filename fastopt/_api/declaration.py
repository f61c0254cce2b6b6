"""What a class of optimizer declares beside its hyperparameters: states, named scalars and the rule, all of it checked.

The rule of a class is checked when the class is made, without compiling anything: it is called with numbers that only
note what is done to them, once for every way through its branches.
"""

from __future__ import annotations

import dis
import inspect
import itertools
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, NoReturn, overload

from numba.core.errors import NumbaError

from .._kernels.compiler import EXACT
from .._kernels.parts import F, named_part
from .._kernels.symbols import contents_of
from .arguments import AROUND, Arguments, Setting
from .hyperparameters import Hyperparameter, in_range
from .tracing import Recorder, Scalar


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

    Raises
    ------
    TypeError, ValueError
        If `init` is no finite number; when the class is made, if `when` or `init` names no hyperparameter.

    Examples
    --------
    >>> import fastopt
    >>> from fastopt.rules import rate, state
    >>> class Signs(fastopt.Optimizer):
    ...     lr = rate(1e-3)
    ...     v = state()
    """
    return State(nonnegative=nonnegative, when=when, init=init)


def helper(function: F) -> F:
    """Make a function callable from rules and norms, for what several of them have in common, and return it.

    Parameters
    ----------
    function : callable
        Of numbers, and of `s` where it is to have it. It may be called from Python as before; its qualified name says
        what is in it.

    Raises
    ------
    TypeError
        If it is no Python function.

    Examples
    --------
    >>> from fastopt.rules import helper
    >>> @helper
    ... def average(before, new, factor, rest):
    ...     return factor * before + rest * new
    >>> average(1.0, 2.0, 0.5, 0.5)
    1.5
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"helper must decorate a Python function, got {function!r}")
    return named_part(function, **EXACT)


def find_states(cls: type) -> dict[str, State]:
    """Return the states of a class, those of its bases first."""
    attributes = [item for base in reversed(cls.__mro__) for item in vars(base).items()]
    names = dict.fromkeys(name for name, value in attributes if isinstance(value, State))
    for name in names:
        if any(name in vars(base) and not isinstance(vars(base)[name], State) for base in cls.__mro__):
            raise TypeError(f"{cls.__name__} has a state {name!r}, which is the name of something else in its bases")
    return {name: inspect.getattr_static(cls, name) for name in names}


def check_field(cls: type, name: str) -> Hyperparameter[Any]:
    """Return the hyperparameter of a class, which nothing else may be called.

    Raises
    ------
    TypeError
        If its name is taken, or a plain value stands in its place.
    """
    field = inspect.getattr_static(cls, name)
    if not isinstance(field, Hyperparameter):
        raise TypeError(f"{cls.__name__}.{name} must be declared with fastopt.rules, such as rate(0.1), got {field!r}")
    others = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
    if not all(isinstance(other, Hyperparameter) for other in others):
        raise TypeError(f"{cls.__name__} has a hyperparameter {name!r}, which is the name of something of its bases")
    if name in AROUND and field is not vars(Arguments)[name]:
        raise TypeError(f"{cls.__name__} has a hyperparameter {name!r}, which all optimizers have: choose another name")
    return field


def initial_value(declared: State, value: Any) -> float:
    """Return what a state holds before the first step.

    Raises
    ------
    TypeError, ValueError
        If that is no finite number, or negative where the state is not.
    """
    least = 0.0 if declared.nonnegative else float("-inf")
    return in_range(f"init of the state {declared.name!r}", value, least, float("inf"))


#: What an error shows of each function that returns a NamedTuple.
_EXAMPLES = {
    "scalars": "def scalars(step, lr) -> Scalars, with Scalars",
    "norms": "def norms(s, g, p) -> Norms, with Norms",
}


def returned_type(cls: Any, name: str) -> Any:
    """Return the NamedTuple that the function ``scalars`` or ``norms`` of a class is annotated with.

    Raises
    ------
    TypeError
        If it is not.
    """
    function = getattr(cls, name)
    kind = function.__annotations__.get("return")
    if isinstance(kind, str):
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        kind = {**function.__globals__, **{name: contents_of(cell) for name, cell in cells}}.get(kind)
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
        raise TypeError(
            f"{cls.__name__}.{name} must say which NamedTuple it returns: {_EXAMPLES[name]} defined before the class "
            f"and outside of it; got the annotation {function.__annotations__.get('return')!r}"
        )
    if not kind._fields:
        raise TypeError(f"{cls.__name__}.{name} returns {kind.__name__}, which has no fields")
    return kind


def depends_on_step(scalars: Any) -> bool:
    """Say whether the code of `scalars` looks at its first argument, whatever comes of it for some hyperparameters."""
    code = scalars.__code__
    step = code.co_varnames[0]
    used = (i.argval for i in dis.get_instructions(code) if i.opname.startswith("LOAD_"))
    # From Python 3.13 on one instruction may load two variables; one that an inner function has is in a cell.
    return step in code.co_cellvars or any(step == name or (type(name) is tuple and step in name) for name in used)


#: Names that arguments of an optimizer, its functions and its checkpoints have.
_TAKEN = {"p", "g", "stream", "step", "params", "state_dtype", "rounding", "master", "seed", "capturable", "optimizer"}
_TAKEN |= {"low", "compensation", "groups", "group", "average", "copy", "copy_to", "zero_grads"}


def _check_names(own: str, states: Iterable[str], hyperparameters: Iterable[str]) -> None:
    """Raise for a state or a hyperparameter with a name that something else has."""
    for what, names in (("state", states), ("hyperparameter", hyperparameters)):
        for name in names:
            if name in _TAKEN or (what == "state" and name.removesuffix("_scale") in states and "_scale" in name):
                raise TypeError(f"{own} has a {what} {name!r}, which is the name of something that all optimizers have")


def check_class(cls: Any, states: Mapping[str, State], flags: Iterable[str], hyperparameters: Iterable[str]) -> None:
    """Raise for what is wrong with a class whose author gave it a rule.

    Raises
    ------
    TypeError
        Naming the class, what it declares, and what was expected.
    """
    own = cls.__name__
    _check_names(own, states, hyperparameters)
    measured = ("norms",) if hasattr(cls, "norms") else ()
    for name in ("scalars", "rule", *measured):
        if not isinstance(inspect.getattr_static(cls, name, None), staticmethod):
            raise TypeError(f"{own}.{name} must be a function of its own: put @staticmethod above it")
    for name, declared in states.items():
        for what, wanted in (("when", declared.when), ("init", declared.init)):
            if isinstance(wanted, str) and wanted not in hyperparameters:
                raise TypeError(
                    f"{own}.{name} = state({what}={wanted!r}) must name a hyperparameter: {', '.join(hyperparameters)}"
                )
    for name in ("rule", *measured):
        _check_arguments(f"{own}.{name}", getattr(cls, name), states)
    first, *rest = inspect.signature(cls.scalars).parameters
    if first != "step" or rest[:1] != ["lr"]:
        raise TypeError(f"{own}.scalars must take (step, lr, ...), got ({', '.join((first, *rest))})")
    for name in rest[1:]:
        if not hasattr(cls, name) or isinstance(inspect.getattr_static(cls, name), Setting):
            raise TypeError(f"{own}.scalars takes {name!r}, which is no hyperparameter: {', '.join(hyperparameters)}")
    scalars = returned_type(cls, "scalars")._fields
    if cls.norms_when and not (measured and cls.norms_when in flags):
        raise TypeError(f"{own}.norms_when must be the name of a flag of a class with norms, got {cls.norms_when!r}")
    if cls.own_decay and not {"weight_decay", "decoupled"} <= set(rest):
        raise TypeError(
            f"{own}.own_decay is for scalars that take weight_decay and decoupled; they take {', '.join(rest)}"
        )
    kinds = {"scalar": scalars, "norm": returned_type(cls, "norms")._fields if measured else (), "flag": tuple(flags)}
    for (kind, names), (other, others) in itertools.combinations(kinds.items(), 2):
        if both := [name for name in names if name in others]:
            raise TypeError(
                f"{own} has {both[0]!r} both as a {kind} and as a {other}, which the rule could not tell apart"
            )
    if measured:
        _trace(cls, "norms", states, scalars, kinds["flag"], kinds["norm"])
    _trace(cls, "rule", states, (*scalars, *kinds["norm"]), kinds["flag"], ("p", *states))


def _check_arguments(called: str, function: Any, states: Iterable[str]) -> None:
    """Raise for a function of an element that takes other arguments than it is given."""
    wanted = ["s", "g", "p", *states]
    arguments = list(inspect.signature(function).parameters)
    # A state may be called as another argument is, such as "s": its argument then has a name of its own.
    pairs = enumerate(zip(wanted, arguments, strict=False))
    misnamed = any(k < 3 or name not in wanted[:3] for k, (name, own) in pairs if name != own)
    if len(arguments) != len(wanted) or misnamed:
        raise TypeError(
            f"{called} must take ({', '.join(wanted)}), every declared state in order; it takes "
            f"({', '.join(arguments)})"
        )


def _trace(
    cls: Any,
    name: str,
    states: Mapping[str, State],
    scalars: tuple[str, ...],
    flags: tuple[str, ...],
    returns: tuple[str, ...],
) -> None:
    """Run a function of a class once for every way through its branches, and check what it returns."""
    own = f"{cls.__name__}.{name}"
    recorder = Recorder(own, scalars, flags)
    function = getattr(cls, name)
    for s in recorder.paths():
        given = [Scalar(recorder) for _ in ("g", "p", *states)]
        try:
            returned = function(s, *given)
        except (NumbaError, NotImplementedError):
            return  # it calls compiled code, of which only compiling tells what it returns
        values = returned if isinstance(returned, tuple) else (returned,)
        wanted = ", ".join(returns)
        if name == "norms" and getattr(returned, "_fields", returns) != returns:
            raise TypeError(f"{own} must return {wanted}; it returned {', '.join(returned._fields)}")
        if len(values) != len(returns):
            raise TypeError(f"{own} must return {wanted}; it returned {len(values)} value(s)")
        alone = name == "rule" and not states
        if isinstance(returned, tuple) == alone:
            wanted = "p alone, no tuple" if alone else f"a tuple of {wanted}"
            raise TypeError(f"{own} must return {wanted}; got {type(returned).__name__}")
        for called, value in zip(returns, values, strict=True):
            if not isinstance(value, Scalar):
                raise TypeError(
                    f"{own} returns {value!r} as {called}, which has a type of its own: return a number that is "
                    "computed from s, g, p and the states"
                )
