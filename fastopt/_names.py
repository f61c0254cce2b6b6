"""Names for compiled functions that say what is in them.

Numba calls a compiled function by its qualified name and a number that counts the functions compiled in this process.
Two kernels from one factory that were compiled in two processes and kept on disk can so have one and the same
symbol. A third process that loads both silently runs one of them in place of the other. Here every function that comes
out of a factory gets a name that holds a digest of its code and of everything that it refers to, so that equal symbols
mean equal contents. The disk cache goes by the same digest; Numba's own is a hash of a pickle, which differs between a
process that compiled a module's bytecode and one that loaded it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def digest(function: Callable[..., Any]) -> str:
    """Return a digest of `function`, its closure and the globals it uses; the same in every process."""
    return hashlib.sha256(_describe(function, set()).encode()).hexdigest()[:16]


def named_by_contents(function: F) -> F:
    """Give `function` a qualified name of its own, and return it."""
    function.__qualname__ = f"{function.__qualname__}_{digest(function)}"
    return function


def _describe(thing: Any, seen: set[int]) -> str:
    thing = getattr(thing, "py_func", thing)  # what an njit function was made of
    if isinstance(thing, (tuple, list)):
        return f"({', '.join(_describe(item, seen) for item in thing)})"
    if isinstance(thing, ModuleType):
        return thing.__name__
    if isinstance(thing, CodeType):
        return f"{thing.co_code!r} {_describe(thing.co_consts, seen)} {thing.co_names}"
    if isinstance(thing, FunctionType):
        if id(thing) in seen:
            return thing.__name__
        seen.add(id(thing))
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        used = [thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__]
        return f"{_describe(thing.__code__, seen)} {_describe(cells, seen)} {_describe(used, seen)}"
    text = repr(thing)
    return text if " at 0x" not in text else f"{type(thing).__name__} {getattr(thing, '__name__', '')}"
