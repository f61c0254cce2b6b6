"""Names for compiled functions that say what is in them.

Numba calls a compiled function by its qualified name and a number that counts the functions compiled in this process.
Two functions from one factory that were compiled in two processes and kept on disk can so have one and the same
symbol. A third process that loads both silently runs one of them in place of the other. Here every function that
reaches compiled code gets a name that holds a digest of its code and of everything that it refers to, so that equal
symbols mean equal contents. The disk cache goes by the same digest; Numba's own is a hash of a pickle, which differs
between a process that compiled a module's bytecode and one that loaded it.

What a digest cannot follow has a digest of its own in each process: it is then never found in a cache, and never
taken for anything else.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from enum import Enum
from importlib.util import find_spec
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.types import Type
from numba.extending import _Intrinsic

F = TypeVar("F", bound=Callable[..., Any])

#: The modules of this package that make machine code in ways that no digest of a compiled function sees: what
#: intrinsics are made of, and how all is compiled. A test holds the list against the imports.
SOURCES = (
    "_array_tuples",
    "_blocks",
    "_cache",
    "_codecs",
    "_compile",
    "_float16",
    "_layout",
    "_noise",
    "_pairs",
    "_scaled",
    "_storage",
)
# Their functions are known by name; Numba's version is a part of every key in a disk cache.
_KNOWN = frozenset({"builtins", "llvmlite", "math", "numba", "numpy", "operator"})
#: What the digest of something unknown begins with.
UNKNOWN = "unknown"
_process = f"{UNKNOWN} {os.urandom(16).hex()}"
_unknown: list[Any] = []  # kept, so that no two of them have one identity


@functools.cache
def stamp() -> str:
    """Return a digest of the modules of :data:`SOURCES`: of their contents, wherever they were installed and when."""
    found = []
    for name in SOURCES:
        module = f"{__package__}.{name}"
        spec = find_spec(module)
        loader: Any = spec.loader if spec else None
        source = loader.get_source(module)
        found.append(source if source is not None else _describe(loader.get_code(module), set()))
    return hashlib.sha256("\0".join(found).encode()).hexdigest()[:16]


def digest(*things: Any) -> str:
    """Return a digest of functions, with their closures, defaults and the globals they use, and of constants.

    The same in every process, unless one of them refers to something unknown.
    """
    text = f"{stamp()} {_describe(things, set())}"
    return (UNKNOWN if _process in text else "") + hashlib.sha256(text.encode()).hexdigest()[:16]


def named_by_contents(function: F) -> F:
    """Give `function` a qualified name that holds its digest, and return it."""
    return named(function, digest(function))


def named(function: F, digest: str) -> F:
    """Give `function` a qualified name that ends in `digest`, and return it."""
    function.__qualname__ = f"{function.__qualname__}_{digest}"
    return function


def _describe(thing: Any, seen: set[int]) -> str:
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes, type(...))):
        return f"{type(thing).__name__} {thing!r}"
    if isinstance(thing, (np.ndarray, np.generic)):
        return f"{thing.dtype.str} {thing.shape} {hashlib.sha256(thing.tobytes()).hexdigest()}"
    if isinstance(thing, (tuple, list)):
        return f"{type(thing).__name__} ({', '.join(_describe(item, seen) for item in thing)})"
    if isinstance(thing, (dict, MappingProxyType)):
        return f"dict {_describe(list(thing.items()), seen)}"
    if isinstance(thing, (set, frozenset)):
        return f"set {sorted(_describe(item, seen) for item in thing)}"
    if isinstance(thing, CodeType):
        parts = (thing.co_code, thing.co_exceptiontable, thing.co_consts, thing.co_names, thing.co_argcount)
        return _describe((*parts, thing.co_posonlyargcount, thing.co_kwonlyargcount, thing.co_flags), seen)
    if isinstance(thing, Dispatcher):
        options = {k: v for k, v in thing.targetoptions.items() if isinstance(v, (bool, str, set, dict))}
        return f"compiled {_describe((thing.py_func, sorted(options), list(options.values())), seen)}"
    if isinstance(thing, _Intrinsic):
        return f"intrinsic {_describe(thing._defn, seen)}"
    if isinstance(thing, FunctionType):
        return _function(thing, seen)
    if isinstance(thing, ModuleType):
        return f"module {thing.__name__}"
    if isinstance(thing, functools._lru_cache_wrapper):
        return _describe(thing.__wrapped__, seen)
    return _named(thing)


def _named(thing: Any) -> str:
    """Return the description of what its name, or its text, says all of."""
    if isinstance(thing, (type, BuiltinFunctionType, np.ufunc)):
        fields = getattr(thing, "_fields", ())  # of a named tuple
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing.__name__)} {fields}"
    text = repr(thing)
    if " at 0x" not in text and (isinstance(thing, (np.dtype, Type, Enum)) or _package(type(thing)) in _KNOWN):
        return f"{type(thing).__name__} {text}"
    if _package(thing) in _KNOWN and hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    if not any(thing is other for other in _unknown):
        _unknown.append(thing)
    return f"{_process} {id(thing)}"


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", None)).partition(".")[0]


def _function(function: FunctionType, seen: set[int]) -> str:
    module = str(function.__module__)
    if _package(function) in _KNOWN or module.removeprefix(f"{__package__}.") in SOURCES:
        return f"{module}.{function.__qualname__}:{function.__code__.co_firstlineno}"
    if id(function) in seen:
        return f"again {function.__name__}"
    seen.add(id(function))
    cells = [_cell(cell) for cell in function.__closure__ or ()]
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells)
    return f"function {_describe(parts, seen)} {_describe(list(_reached(function, cells)), seen)}"


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: the function that fills it is still being made
        return None


def _reached(function: FunctionType, cells: list[Any]) -> Iterator[Any]:
    """Yield the globals that a function uses, and what it may use of the modules among them and in its closure."""
    names = sorted(_names(function.__code__))
    used = {name: function.__globals__[name] for name in names if name in function.__globals__}
    yield used
    modules = [thing for thing in (*used.values(), *cells) if isinstance(thing, ModuleType)]
    for module in modules:
        if module.__name__.partition(".")[0] in _KNOWN:
            continue
        attributes = {name: vars(module)[name] for name in names if name in vars(module)}
        yield attributes
        modules += [thing for thing in attributes.values() if isinstance(thing, ModuleType) and thing not in modules]


def _names(code: CodeType) -> set[str]:
    """Return the names of globals and attributes in a function's code and in that of the functions inside it."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*(_names(const) for const in inner))
