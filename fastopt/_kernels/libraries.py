"""Numba's compiler, into libraries of machine code and of LLVM IR whose symbols do not meet those of others."""

from __future__ import annotations

import re
from typing import Any

from llvmlite.binding import parse_assembly
from numba.core.codegen import JITCodeLibrary

from .parts import CompilerInto, Part, PartCompiler


class _Private:
    """Makes a library whose symbols nobody else sees but the function's own.

    What is linked into it keeps the names that Numba gave it, which are counted in each process. Seen from outside,
    code from the cache of one process would serve as that of another.
    """

    def _optimize_final_module(self: Any) -> None:
        own = self._own
        for function in self._final_module.functions:
            if not function.is_declaration and function.name not in own:
                function.linkage = "internal"
        super()._optimize_final_module()  # type: ignore[misc]

    def finalize(self: Any) -> None:
        self._own = {f.name for f in self._final_module.functions if not f.is_declaration}  # before anything is linked
        super().finalize()  # type: ignore[misc]


class _Kernel(_Private, JITCodeLibrary):  # type: ignore[misc]  # numba is untyped
    """The machine code of a kernel."""


class KernelCompiler(CompilerInto):
    """Numba's compiler, into a :class:`_Kernel`."""

    library = _Kernel


class _FusedPart(Part):
    """A part in which a product and a sum may become one operation, rounded once, where the processor has it.

    Only here, when everything is linked: whatever is compiled before may be a part of other loops, too.
    """

    _final_module: Any

    def _optimize_final_module(self) -> None:
        text = re.sub(r"(= f(?:add|sub|mul)) (?!contract )", r"\1 contract ", str(self._final_module))
        self._final_module = parse_assembly(text)


class FusedCompiler(PartCompiler):
    """Numba's compiler, into a :class:`_FusedPart`."""

    library = _FusedPart


class _Update(_Private, Part):
    """An update as a part of a user's compiled code."""


class UpdateCompiler(PartCompiler):
    """Numba's compiler, into an :class:`_Update`."""

    library = _Update
