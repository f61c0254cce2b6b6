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
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba.core.dispatcher import Dispatcher
from numba.core.types import Type
from numba.core.typing.templates import builtin_registry
from numba.extending import _Intrinsic
from numba.np.ufunc.dufunc import DUFunc

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE = __name__.partition(".")[0]
#: The folders whose modules make machine code in ways that no digest of a compiled function sees: what intrinsics are
#: made of, and how all is compiled.
SOURCES = (f"{_PACKAGE}._kernels", f"{_PACKAGE}._storage")
# Their functions are known by name; Numba's version is a part of every key in a disk cache.
_KNOWN = frozenset({"builtins", "llvmlite", "math", "numba", "numpy", "operator"})
#: What the digest of something unknown begins with.
UNKNOWN = "unknown"
_process = f"{UNKNOWN} {os.urandom(16).hex()}"
_kept: list[Any] = []  # what is unknown, so that no two have one identity


@functools.cache
def stamp() -> str:
    """Return a digest of all modules in :data:`SOURCES`: of their contents, wherever they were installed and when."""
    found = []
    for folder in SOURCES:
        for name in sorted(module.name for module in iter_modules(import_module(folder).__path__)):
            spec = find_spec(f"{folder}.{name}")
            loader: Any = spec.loader if spec else None
            source = loader.get_source(f"{folder}.{name}")
            found.append(source if source is not None else _describe(loader.get_code(f"{folder}.{name}"), {}))
    return hashlib.sha256("\0".join(found).encode()).hexdigest()[:16]


def digest(*things: Any) -> str:
    """Return a digest of functions, with their closures, defaults and the globals they use, and of constants.

    The same in every process, unless one of them refers to something unknown.
    """
    text = f"{stamp()} {_describe(things, {})}"
    return (UNKNOWN if _process in text else "") + hashlib.sha256(text.encode()).hexdigest()[:16]


def named_by_contents(function: F) -> F:
    """Give `function` a qualified name that holds its digest, and return it."""
    return named(function, digest(function))


def named(function: F, digest: str) -> F:
    """Give `function` a qualified name that ends in `digest`, and return it."""
    function.__qualname__ = f"{function.__qualname__}_{digest}"
    return function


def _describe(thing: Any, seen: dict[int, int]) -> str:
    """Return a text that is equal for equal things alone; what is not listed here is like nothing else.

    `seen` numbers the functions that are being described, in the order in which they were met.
    """
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes, type(...))):
        return f"{type(thing).__name__} {thing!r}"
    if isinstance(thing, (np.ndarray, np.generic)):
        contents = _unknown(thing) if thing.dtype.hasobject else hashlib.sha256(thing.tobytes()).hexdigest()
        return f"{thing.dtype!r} {thing.shape} {contents}"
    if isinstance(thing, (tuple, list)):
        items = ", ".join(_describe(item, seen) for item in thing)
        return f"{type(thing).__name__} {getattr(thing, '_fields', ())} ({items})"
    if isinstance(thing, (dict, MappingProxyType)):
        return f"dict {_describe(list(thing.items()), seen)}"
    if isinstance(thing, (set, frozenset)):
        return f"set {sorted(_describe(item, seen) for item in thing)}"
    if isinstance(thing, CodeType):
        names = (thing.co_names, thing.co_varnames, thing.co_freevars, thing.co_cellvars)
        counts = (thing.co_argcount, thing.co_posonlyargcount, thing.co_kwonlyargcount, thing.co_flags)
        return _describe((thing.co_code, thing.co_exceptiontable, thing.co_consts, names, counts), seen)
    if isinstance(thing, (Dispatcher, DUFunc)):
        dispatcher = thing._dispatcher if isinstance(thing, DUFunc) else thing
        options = sorted(dispatcher.targetoptions.items())
        return f"{type(thing).__name__} {_describe((dispatcher.py_func, options), seen)}"
    if isinstance(thing, functools._lru_cache_wrapper):
        return _describe(thing.__wrapped__, seen)
    return _described_by_name(thing, seen)


def _described_by_name(thing: Any, seen: dict[int, int]) -> str:
    """Describe what has a name, and whatever is not described by that alone by what it is made of."""
    if isinstance(thing, ModuleType):
        return f"module {thing.__name__}"
    if isinstance(thing, (np.dtype, Type, ir.Type)) and " at 0x" not in repr(thing):
        return f"{type(thing).__name__} {thing!r}"
    if isinstance(thing, Enum):
        return f"{_describe(type(thing), seen)} {thing.name}"
    if isinstance(thing, type) and issubclass(thing, Enum):
        return f"enum {_describe([(member.name, member.value) for member in thing], seen)}"
    if isinstance(thing, type) and issubclass(thing, tuple) and hasattr(thing, "_fields"):
        return f"named tuple {thing.__name__} {thing._fields}"
    function = thing._defn if isinstance(thing, _Intrinsic) else thing
    name = _public_name(thing, function)
    if name is not None:
        return name
    if isinstance(thing, _Intrinsic):
        return f"intrinsic {_operation(function) or _function(function, seen)}"
    return _function(thing, seen) if isinstance(thing, FunctionType) else _unknown(thing)


def _public_name(thing: Any, function: Any) -> str | None:
    """Return where a thing is found in a module whose contents are a part of every key in a cache; None if nowhere."""
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if isinstance(thing, np.ufunc):  # before NumPy 2.3 they do not say where they are
        module, path = module or "numpy", path or thing.__name__
    if not isinstance(module, str) or not isinstance(path, str):
        return None
    if module.partition(".")[0] not in _KNOWN and module.rpartition(".")[0] not in SOURCES:
        return None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return f"{module}.{path}" if found is thing else None


def _operation(definition: Any) -> str | None:
    """Return what :mod:`fastopt._kernels.targets` says of an intrinsic of its own; all else of it is in the stamp."""
    own = str(getattr(definition, "__module__", None)).rpartition(".")[0] in SOURCES
    return getattr(definition, "contents", None) if own else None


def _unknown(thing: Any) -> str:
    if not any(thing is other for other in _kept):
        _kept.append(thing)
    return f"{_process} {id(thing)}"


def _function(function: FunctionType, seen: dict[int, int]) -> str:
    if id(function) in seen:
        return f"again {seen[id(function)]}"
    seen[id(function)] = len(seen)
    cells = [contents_of(cell) for cell in function.__closure__ or ()]
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, cells)
    reached = [*_reached(function, cells), _overloads(function)]
    return f"function {_describe(parts, seen)} {_describe(reached, seen)}"


def _overloads(function: FunctionType) -> list[Any]:
    """Return what Numba compiles in the place of a function: implementations by ``numba.extending.overload``."""
    if _package(function) == _PACKAGE:
        return []
    return [
        (template._overload_func, sorted(template._jit_options.items()))
        for key, kind in builtin_registry.globals
        if key is function
        for template in kind.templates
        if hasattr(template, "_overload_func")
    ]


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", None)).partition(".")[0]


def contents_of(cell: Any) -> Any:
    """Return what a cell of a closure holds, or None while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:  # empty: the function that fills it is still being made
        return None


def _reached(function: FunctionType, cells: list[Any]) -> Iterator[Any]:
    """Yield the globals that a function uses, and what it may use of the modules among them and in its closure."""
    names = sorted(names_in(function.__code__))
    used = {name: function.__globals__[name] for name in names if name in function.__globals__}
    yield used
    modules = [thing for thing in (*used.values(), *cells) if isinstance(thing, ModuleType)]
    for module in modules:
        if module.__name__.partition(".")[0] in _KNOWN:
            continue
        attributes = {name: vars(module)[name] for name in names if name in vars(module)}
        yield attributes
        modules += [thing for thing in attributes.values() if isinstance(thing, ModuleType) and thing not in modules]


def names_in(code: CodeType) -> set[str]:
    """Return the names of globals and attributes in a function's code and in that of the functions inside it."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*(names_in(const) for const in inner))
