"""The functions: one update of one parameter, with the caller's own state arrays."""

from __future__ import annotations

import inspect
from typing import Any, overload

import numpy as np

from .._arrays.checks import Array, check_integer
from .._engine.single import update_arrays
from .._storage.formats import PLAIN_ROUNDINGS
from .arguments import OF_CLASSES, Function, TimedFunction, Untimed, check_alone
from .method import Method


@overload
def as_function(cls: type[Untimed]) -> Function: ...
@overload
def as_function(cls: type[Method]) -> TimedFunction: ...
def as_function(cls: type[Any]) -> Any:
    """Return the function form of an optimizer class, named like it in lower case.

    Parameters
    ----------
    cls : type
        A subclass of :class:`fastopt.Optimizer` with a rule.

    Returns
    -------
    callable
        ``function(p, g, *states, step, lr, ...)``: one update of `p` and the states in place, which returns `p`. All
        are arrays of one shape and memory order; see the docstring of the function.

    Raises
    ------
    TypeError
        If the class has no rule.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> function = fastopt.as_function(fastopt.Momentum)
    >>> p, v = np.zeros(3), np.zeros(3)
    >>> function(p, np.ones(3), v, lr=1.0) is p
    True
    """
    if not hasattr(cls, "rule"):
        raise TypeError(f"cls must be a class with a rule, such as fastopt.Adam, got {cls!r}")
    name = cls.__name__.lower()
    every = cls.states
    timed = cls.timed
    methods = cls.with_hyperparameters

    def function(p: Array, g: Array, *states: Array, **keywords: Any) -> Array:
        if timed and "step" not in keywords:
            raise TypeError(f"{name}() needs step: the number of this update, counted from 1")
        step, stream = keywords.pop("step", None), keywords.pop("stream", None)
        if timed or step is not None:
            step = check_integer("step", step, 1)
        seed = check_integer("seed", keywords.pop("seed"), 0) if "seed" in keywords else 0
        rounding = keywords.pop("rounding", "nearest")
        if rounding not in PLAIN_ROUNDINGS:
            plain = " or ".join(PLAIN_ROUNDINGS)
            raise ValueError(f"rounding must be {plain}, got {rounding!r}; the classes have more")
        twice = [state for state in every[: len(states)] if state in keywords]
        if twice:
            raise TypeError(f"{name}() got multiple values for {', '.join(twice)}")
        rest = [keywords.pop(state, None) for state in every[len(states) :]]
        # What may change while it stays the same object, such as an array, must not be what a method is found by.
        constant = not keywords or all(map(_is_constant, keywords.values()))
        method = methods(**keywords) if constant else methods.__wrapped__(cls, **keywords)
        if callable(method.lr):
            raise TypeError(f"{name}() takes a number as lr: call the schedule yourself")
        if method._of_class:
            check_alone(f"{name}()", method.__dict__)
        active = method.active_states()
        prefix = len(states) == len(active) and active == every[: len(states)]
        if not prefix or any(state is None for state in states) or any(state is not None for state in rest):
            states = _check_states(name, every, active, (*states, *rest))
        update_arrays(method, (g, p, *states), ("g", "p", *active), step, stream=stream, rounding=rounding, seed=seed)
        return p

    function.__name__ = function.__qualname__ = name
    function.__module__ = cls.__module__
    function.__signature__ = _signature(cls, timed)  # type: ignore[attr-defined]
    function.__doc__ = _document(cls, name, timed)
    return function


def _is_constant(value: Any) -> bool:
    return type(value) in _CONSTANT or (type(value) is tuple and all(type(item) in _CONSTANT for item in value))


_CONSTANT = frozenset({bool, float, int, type(None), np.float32, np.float64, np.int64})


def _check_states(
    name: str, every: tuple[str, ...], active: tuple[str, ...], given: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return the active states of all that were given."""
    if len(given) > len(every):
        takes = ", ".join(("p", "g", *every))
        raise TypeError(f"{name}() takes the arrays {takes}; got {len(given) + 2} arrays")
    by_name = dict(zip(every, given, strict=True))
    for state, array in by_name.items():
        if (array is None) == (state in active):
            needs = "needs" if state in active else "has no use for"
            raise TypeError(f"{name}() with these hyperparameters {needs} the state {state}")
    return tuple(by_name[state] for state in active)


def _signature(cls: type[Any], timed: bool) -> inspect.Signature:
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    keyword = inspect.Parameter.KEYWORD_ONLY
    active = cls.with_hyperparameters().active_states()
    parameters = [inspect.Parameter(name, positional) for name in ("p", "g")]
    for state in cls.states:
        required = state in active and parameters[-1].default is inspect.Parameter.empty
        default = inspect.Parameter.empty if required else None
        parameters.append(inspect.Parameter(state, positional, default=default))
    parameters.append(inspect.Parameter("step", keyword, default=inspect.Parameter.empty if timed else None))
    own = {"rounding": "nearest", "seed": 0, "stream": None}
    others = [inspect.Parameter(n, keyword, default=d) for n, d in own.items()]
    hyper = [parameter for parameter in cls.parameters() if parameter.name not in OF_CLASSES]
    return inspect.Signature([*parameters, *hyper, *others])


def _document(cls: type[Any], name: str, timed: bool) -> str:
    """Return the docstring of the function, from that of the class."""
    states = ", ".join(cls.states)
    own = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
    whole = f"fastopt.{cls.__name__}" if own else f"{cls.__module__}.{cls.__qualname__}"
    called = f"fastopt.{name}" if own else name
    begin = {state: value for state, value in cls.with_hyperparameters().initial_values().items() if value}
    first = "".join(f", {state} {value:g}" for state, value in begin.items())
    lines = [
        f"Update one parameter in place as :class:`{whole}` does, and return it.",
        "",
        "Parameters",
        "----------",
        "p : ndarray, or array on a GPU",
        "    The parameter, updated in place: float64, float32, float16 or bfloat16 (or its bits as uint16), of any",
        "    shape, contiguous in C or Fortran order. The other arrays lie where it lies.",
        "g : ndarray",
        "    Its gradient, of the shape and memory order of `p`, in any of these dtypes that is not wider than the",
        "    arithmetic: float64 for float64 parameters, float32 for all others. Only read.",
    ]
    if states:
        lines += [
            f"{states} : ndarray",
            f"    The states, updated in place, zeros before the first step{first}; as for `g`, but none narrower than",
            "    float32 beside a float64 parameter. bfloat16 states are rounded stochastically.",
        ]
        extra = [s for s in cls.states if s not in cls.with_hyperparameters().active_states()]
        if extra:
            lines.append(f"    {', '.join(extra)}: only where the hyperparameters call for them.")
    lines += ["step : int" + ("" if timed else ", optional"), "    The number of this update, counted from 1."]
    if not timed:
        lines.append("    Needed only for stochastic rounding.")
    lines += [
        f"{', '.join(name for name in cls.hyperparameters if name not in OF_CLASSES)}",
        f"    As for :class:`{whole}`; `lr` is a number.",
        'rounding : {"nearest", "stochastic"}, default "nearest"',
        "    How a parameter of 16 bits is rounded.",
        "seed : int, default 0",
        "    Of stochastic rounding, which depends on it and on `step`; no effect otherwise.",
        "stream : object, optional",
        "    For arrays on a GPU: the stream to work on, as for :meth:`fastopt.Optimizer.step`.",
        "",
        "Returns",
        "-------",
        "ndarray",
        "    `p` itself.",
        "",
        "Raises",
        "------",
        "TypeError, ValueError",
        "    If an array or a hyperparameter is not acceptable; nothing has been written then.",
        "",
        "Notes",
        "-----",
        f"The formula, the bytes moved and the source are those of :class:`{whole}`.",
        "",
        "Examples",
        "--------",
        ">>> import numpy as np, fastopt",
        ">>> p, g = np.array([1.0, 2.0]), np.array([0.0, 0.0])",
    ]
    active = cls.with_hyperparameters().active_states()
    if active:
        targets = ", ".join(active) + "," * (len(active) == 1)
        lines.append(f">>> {targets} = np.zeros(({len(active)}, 2))")
    arguments = ", ".join(["p", "g", *active, *(["step=1"] if timed else []), "lr=0.1"])
    lines += [f">>> {called}({arguments}) is p", "True"]
    return "\n".join(lines)
