"""Names for compiled functions that say what is in them.

Numba calls a compiled function by its qualified name and a number that counts the functions compiled in this process.
Two kernels from one factory that were compiled in two processes and kept on disk can so have one and the same
symbol. A third process that loads both silently runs one of them in place of the other. Here every function that comes
out of a factory gets a name that holds a digest of its code and of everything that it closes over, so that
equal symbols mean equal contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

from numba.core.serialize import dumps

F = TypeVar("F", bound=Callable[..., Any])


def digest(function: Callable[..., Any]) -> str:
    """Return a digest of the code of `function` and of what it closes over, the same in every process."""
    cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    code = function.__code__
    constants = tuple(c for c in code.co_consts if not isinstance(c, CodeType))  # its repr has an address
    contents = (code.co_code, constants, code.co_names, dumps(cells))
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]


def named_by_contents(function: F) -> F:
    """Give `function` a qualified name of its own, and return it."""
    function.__qualname__ = f"{function.__qualname__}_{digest(function)}"
    return function
