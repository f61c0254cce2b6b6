"""The operations of an LLVM IR builder, computed at once by NumPy, on numbers or whole arrays.

With it :mod:`fastopt._codecs` says what is stored, in the simulator and to whoever looks at a state, in the very words
from which the kernels are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from ._codecs import DOUBLE, FLOAT, HALF

_FLOATS: dict[Any, type[np.floating[Any]]] = {HALF: np.float16, FLOAT: np.float32, DOUBLE: np.float64}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "<": np.less,
    ">": np.greater,
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def kind(type_: Any) -> np.dtype[Any]:
    """Return the dtype for a type of LLVM's; integers have no sign there, and are unsigned here."""
    if type_ in _FLOATS:
        return np.dtype(_FLOATS[type_])
    return np.dtype(bool) if type_.width == 1 else np.dtype(f"u{type_.width // 8}")


class Value:
    """A number or an array of them, with the type that LLVM would give it."""

    __slots__ = ("array", "type")

    def __init__(self, array: Any, type_: Any) -> None:
        self.array, self.type = np.asarray(array), type_


def value(array: Any) -> Value:
    """Return a number or an array as an operand."""
    array = np.asarray(array)
    for type_, dtype in _FLOATS.items():
        if array.dtype == dtype:
            return Value(array, type_)
    return Value(array.view(f"u{array.itemsize}"), ir.IntType(8 * array.itemsize))


def _of(operand: Any) -> Any:
    """Return the numbers of an operand; that of a constant has the bits of its type."""
    if isinstance(operand, Value):
        return operand.array
    constant, dtype = operand.constant, kind(operand.type)
    return dtype.type(constant if dtype.kind in "fb" else constant % 2**operand.type.width)


def _signed(operand: Any) -> Any:
    numbers = np.asarray(_of(operand))
    return numbers.view(f"i{numbers.itemsize}")


def _binary(operation: Callable[..., Any]) -> Any:
    def apply(self: Builder, a: Any, b: Any) -> Value:
        with np.errstate(all="ignore"):
            return Value(operation(_of(a), _of(b)).astype(kind(a.type)), a.type)

    return apply


class Builder:
    """What codecs use of a builder."""

    add, sub, mul = _binary(np.add), _binary(np.subtract), _binary(np.multiply)
    udiv = _binary(np.floor_divide)
    and_, or_, xor = _binary(np.bitwise_and), _binary(np.bitwise_or), _binary(np.bitwise_xor)
    shl, lshr = _binary(np.left_shift), _binary(np.right_shift)
    fadd, fsub, fmul = _binary(np.add), _binary(np.subtract), _binary(np.multiply)

    def ashr(self, a: Any, b: Any) -> Value:
        shifted = np.right_shift(_signed(a), _signed(b))
        return Value(shifted.view(kind(a.type)), a.type)

    def _convert(self, a: Any, type_: Any) -> Value:
        with np.errstate(all="ignore"):
            return Value(np.asarray(_of(a)).astype(kind(type_)), type_)

    zext = trunc = fpext = fptrunc = uitofp = fptoui = _convert

    def sext(self, a: Any, type_: Any) -> Value:
        return Value(_signed(a).astype(f"i{type_.width // 8}").view(kind(type_)), type_)

    def bitcast(self, a: Any, type_: Any) -> Value:
        return Value(np.asarray(_of(a)).view(kind(type_)), type_)

    def select(self, condition: Any, a: Any, b: Any) -> Value:
        return Value(np.where(_of(condition), _of(a), _of(b)).astype(kind(a.type)), a.type)

    def icmp_unsigned(self, operator: str, a: Any, b: Any) -> Value:
        return Value(_COMPARISONS[operator](_of(a), _of(b)), ir.IntType(1))

    def icmp_signed(self, operator: str, a: Any, b: Any) -> Value:
        return Value(_COMPARISONS[operator](_signed(a), _signed(b)), ir.IntType(1))

    def fcmp_unordered(self, operator: str, a: Any, b: Any) -> Value:
        assert operator == "uno"
        return Value(np.isnan(_of(a)) | np.isnan(_of(b)), ir.IntType(1))

    def extract_value(self, values: Any, index: int) -> Any:
        return values[index]
