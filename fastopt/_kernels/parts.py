"""Functions that are called from compiled code alone: parts of kernels.

Numba makes of every function that another one calls what it makes of one that Python calls: machine code, optimized on
its own, with two functions around it that Python and C would call. Of a part of a kernel nothing but its LLVM IR is
used, which is linked into the kernel and optimized there. Left out for parts, the rest was 27 % of the time that the
kernels of one optimizer took to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import overload

from .symbols import named_by_contents

F = TypeVar("F", bound=Callable[..., Any])


class Part(JITCodeLibrary):  # type: ignore[misc]  # numba is untyped
    """The LLVM IR of a part, and no machine code. Its address is 0, as it has no place in memory."""

    def _optimize_final_module(self) -> None:
        """Leave that to the kernel."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    @property
    def codegen(self) -> Any:
        """What is asked, when a function has been compiled, to :meth:`set_env`; by nobody for anything else."""
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Do nothing: what holds the Python objects of a function is where its machine code is."""


class CompilerInto(Compiler):  # type: ignore[misc]  # numba is untyped
    """Numba's compiler, into a library of the class :attr:`library`."""

    library: type[JITCodeLibrary]

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *others: Any) -> None:
        super().__init__(typingctx, targetctx, library, *others)
        if library is None:
            self.state.library = self.library(targetctx.codegen(), "fastopt")
            self.state.library.enable_object_caching()


class PartCompiler(CompilerInto):
    """Numba's compiler, into a :class:`Part`."""

    library = Part


#: Numba's options for a part.
PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": PartCompiler}


def part(function: F, compiler: type[PartCompiler] = PartCompiler, **flags: Any) -> F:
    """Make a function callable from compiled code, and return it; `flags` are Numba's.

    On the CPU it is a part; on a GPU it is compiled as Numba does it.
    """

    def itself(*args: Any, **kwargs: Any) -> Any:
        return function

    own = flags | PART | {"pipeline_class": compiler}
    overload(function, jit_options=flags, strict=False)(itself)
    overload(function, jit_options=own, strict=False, target="cpu")(itself)
    return function


def named_part(function: F, **flags: Any) -> F:
    """Do the same with a function that gets a name by its contents first."""
    return part(named_by_contents(function), **flags)
