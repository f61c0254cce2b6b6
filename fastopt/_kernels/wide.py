"""Arithmetic on vectors by what is written for numbers, such as codecs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .._storage.float16 import Float16Builder


class WideBuilder:
    """An LLVM IR builder of operations on vectors: the types and constants that it is given are those of elements."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self._builder, self._lanes = builder, lanes

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._builder, name)
        return lambda *operands: operation(*map(self._wide, operands))

    def fpext(self, value: Any, kind: Any) -> Any:
        """Widen numbers, which may be of that type already: codecs compare that of a vector with that of a number."""
        wanted = self._wide(kind)
        return value if value.type == wanted else self._builder.fpext(value, wanted)

    def _wide(self, operand: Any) -> Any:
        if isinstance(operand, ir.Type) and not isinstance(operand, ir.VectorType):
            return ir.VectorType(operand, self._lanes)
        if isinstance(operand, ir.Constant) and not isinstance(operand.type, ir.VectorType):
            return ir.Constant(ir.VectorType(operand.type, self._lanes), [operand.constant] * self._lanes)
        return operand


def wide(b: Any, lanes: int) -> tuple[Any, Any]:
    """Return the LLVM IR builder that `b` is, and one of operations on vectors that does as `b`."""
    if isinstance(b, Float16Builder):
        return b._builder, Float16Builder(WideBuilder(b._builder, lanes))
    return b, WideBuilder(b, lanes)
