"""The operations of an LLVM IR builder, computed at once by NumPy, on numbers or whole arrays, and on host memory.

With it :mod:`fastopt._storage.codecs` says what is stored to whoever looks at a state, and
:mod:`fastopt._kernels.access` moves it in the simulator, in the very words from which the kernels are compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from .._arrays.checks import Array
from .._arrays.driver import host_memory
from .codecs import DOUBLE, ELEMENTS, FLOAT, HALF, Codec
from .int8 import Scaled8

_FLOATS: dict[Any, type[np.floating[Any]]] = {HALF: np.float16, FLOAT: np.float32, DOUBLE: np.float64}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "<": np.less,
    ">": np.greater,
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


@functools.cache
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
    type_, dtype = _type_of(array.dtype)
    return Value(array if array.dtype == dtype else array.view(dtype), type_)


@functools.cache
def _type_of(dtype: np.dtype[Any]) -> tuple[Any, np.dtype[Any]]:
    """Return the type of LLVM's for numbers of a dtype, and the dtype in which they are held here."""
    found = (type_ for type_, held in _FLOATS.items() if dtype == held)
    type_ = next(found, ir.IntType(8 * dtype.itemsize))
    return type_, kind(type_)


def _of(operand: Any) -> Any:
    """Return the numbers of an operand; that of a constant has the bits of its type."""
    if isinstance(operand, Value):
        return operand.array
    dtype = kind(operand.type)
    return dtype.type(operand.constant if dtype.kind in "fb" else operand.constant & ((1 << operand.type.width) - 1))


def _signed(operand: Any) -> Any:
    numbers = np.asarray(_of(operand))
    return numbers.view(f"i{numbers.itemsize}")


def _binary(operation: Callable[..., Any]) -> Any:
    """Return an operation on two integers, of which those of NumPy's that are no operators never warn."""

    def apply(self: Builder, a: Any, b: Any) -> Value:
        return Value(operation(_of(a), _of(b)), a.type)

    return apply


def _binary_of_floats(operation: Callable[..., Any]) -> Any:
    integers = _binary(operation)

    def apply(self: Builder, a: Any, b: Any) -> Value:
        with np.errstate(all="ignore"):
            result: Value = integers(self, a, b)
            return result

    return apply


class Builder:
    """What is used of a builder. A pointer is an address, and a vector an array."""

    _stores = True

    add, sub, mul = _binary(np.add), _binary(np.subtract), _binary(np.multiply)
    udiv = _binary(np.floor_divide)
    and_, or_, xor = _binary(np.bitwise_and), _binary(np.bitwise_or), _binary(np.bitwise_xor)
    shl, lshr = _binary(np.left_shift), _binary(np.right_shift)
    fadd, fsub, fmul = (_binary_of_floats(operation) for operation in (np.add, np.subtract, np.multiply))

    def ashr(self, a: Any, b: Any) -> Value:
        shifted = np.right_shift(_signed(a), _signed(b))
        return Value(shifted.view(kind(a.type)), a.type)

    def _convert(self, a: Any, type_: Any) -> Value:
        with np.errstate(all="ignore"):
            return Value(np.asarray(_of(a)).astype(kind(type_)), type_)

    zext = trunc = fpext = fptrunc = uitofp = fptoui = _convert

    def sext(self, a: Any, type_: Any) -> Value:
        return Value(_signed(a).astype(f"i{type_.width // 8}").view(kind(type_)), type_)

    def sitofp(self, a: Any, type_: Any) -> Value:
        return Value(_signed(a).astype(kind(type_)), type_)

    def bitcast(self, a: Any, type_: Any) -> Value:
        numbers = np.asarray(_of(a))
        return Value(numbers if isinstance(type_, ir.PointerType) else numbers.view(kind(type_)), type_)

    inttoptr = bitcast

    def select(self, condition: Any, a: Any, b: Any) -> Value:
        return Value(np.where(_of(condition), _of(a), _of(b)), a.type)

    def icmp_unsigned(self, operator: str, a: Any, b: Any) -> Value:
        return Value(_COMPARISONS[operator](_of(a), _of(b)), ir.IntType(1))

    def icmp_signed(self, operator: str, a: Any, b: Any) -> Value:
        return Value(_COMPARISONS[operator](_signed(a), _signed(b)), ir.IntType(1))

    def fcmp_unordered(self, operator: str, a: Any, b: Any) -> Value:
        assert operator == "uno"
        return Value(np.isnan(_of(a)) | np.isnan(_of(b)), ir.IntType(1))

    def gep(self, pointer: Value, indices: list[Any]) -> Value:
        (i,) = indices
        return Value(pointer.array + _of(i) * np.uint64(kind(pointer.type.pointee).itemsize), pointer.type)

    def load(self, pointer: Value, align: int) -> Value:
        return Value(_memory(pointer, align).copy(), pointer.type.pointee)

    def store(self, value: Any, pointer: Value, align: int) -> None:
        if self._stores:
            _memory(pointer, align)[...] = _of(value)

    @contextmanager
    def if_then(self, condition: Value) -> Iterator[None]:
        """Store only where the condition holds; whatever else is in the block is computed."""
        before, self._stores = self._stores, self._stores and bool(condition.array)
        yield
        self._stores = before

    def extract_element(self, vector: Value, index: Any) -> Value:
        return Value(vector.array[_of(index)], vector.type.element)

    def insert_element(self, vector: Any, value: Value, index: Any) -> Value:
        known = isinstance(vector, Value)
        numbers = vector.array.copy() if known else np.empty(vector.type.count, kind(value.type))
        numbers[_of(index)] = value.array
        return Value(numbers, vector.type)


def _memory(pointer: Value, align: int) -> Array:
    """Return what a pointer points to."""
    pointee = pointer.type.pointee
    if int(pointer.array) % align:
        raise RuntimeError("misaligned address: a device stops there")
    if isinstance(pointee, ir.VectorType):
        return host_memory(int(pointer.array), kind(pointee.element), pointee.count)
    return host_memory(int(pointer.array), kind(pointee), 1).reshape(())


#: Random bits in the middle of what stochastic rounding takes of them, of 16 as of 20: rounding to nearest.
_HALFWAY = 0x88000


def converted(stored: Array, codec: Codec, other: Codec) -> Array:
    """Return numbers that lie in an array, in a codec of one, as another codec of one stores them, to nearest."""
    (dtype,), (wanted,) = codec.fields, other.fields
    compute = "float64" if np.float64 in (dtype, wanted) else "float32"
    given = codec.read(Builder(), [value(stored.ravel())], ELEMENTS[compute])
    (part,) = other.write(Builder(), given, value(np.full(stored.size, _HALFWAY, np.uint32)))
    found: Array = part.array.view(wanted)
    return found.reshape(stored.shape)


def constant(codec: Codec, number: float) -> list[Any]:
    """Return what a codec stores of a number in each of its arrays, the scale of a block of such numbers included."""
    builder = Builder()
    (wide, *_), zero = codec.fields, value(np.uint32(0))
    if abs(number) > float(np.finfo(np.float64 if wide == np.float64 else np.float32).max):
        raise ValueError(f"a state cannot begin at {number!r}, which is too large for float32")
    given = value(np.float64(number) if wide == np.float64 else np.float32(number))
    rand = value(np.uint32(_HALFWAY))
    if not isinstance(codec, Scaled8):
        parts = [part.array for part in codec.write(builder, given, rand)]
        return [part.view(dtype) for part, dtype in zip(parts, codec.fields, strict=True)]
    scale = codec.rescale(builder, zero, *codec.finite_absmax(builder, given, zero, zero))
    (code,) = codec.write(builder, given, rand, scale, nonfinite=True)
    return [code.array.view(wide), scale.array.astype(np.int16)]
