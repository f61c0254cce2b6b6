"""Codecs: how a number lies in memory, written once for every target.

A codec says what is stored of each number, and how one becomes the other, in the operations of an LLVM IR builder:
that of a kernel which is being compiled (:mod:`fastopt._kernels.access`), or one that computes at once, in NumPy
(:class:`fastopt._storage.evaluator.Builder`).

The compute dtype is float32, or float64 for parameters in float64. `rand` is 32 random bits for the formats with
stochastic rounding: a number is rounded up with the probability that keeps its mean exact. Rounded to nearest, an
average that is decayed by 0.999 stops changing as soon as its format has fewer than 9 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from .random_bits import INT64, random

INT8, INT16, INT32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
HALF, FLOAT, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
#: What lies in memory, by the name of its dtype.
ELEMENTS = {
    "float64": DOUBLE,
    "float32": FLOAT,
    "float16": HALF,
    "int16": INT16,
    "uint16": INT16,
    "int8": INT8,
    "uint8": INT8,
}
#: The smallest normal number of those that may be subnormal in memory.
_LEAST = {name: float(np.finfo(name).smallest_normal) for name in ("float32", "float64")}
INFINITE = INT32(0x7F800000)
MAGNITUDE = INT32(0x7FFFFFFF)


class Codec:
    """A format.

    Attributes
    ----------
    fields : tuple of numpy.dtype
        What is stored of each number, in an array each.
    scaled : bool
        Whether there is also a scale (int16) for each block of numbers.
    zeroed : bool
        Whether it is that of gradients in whose place a step writes 0.
    copied : bool
        Whether it is that of copies of parameters, which are written and not read, subnormal numbers as they are.
    """

    scaled = False
    zeroed = False
    copied = False

    def __init__(self, *fields: str) -> None:
        self.fields = tuple(np.dtype(name) for name in fields)

    @property
    def rows(self) -> tuple[np.dtype[Any], ...]:
        """The dtypes of all arrays: the fields, and the scale."""
        return (*self.fields, np.dtype(np.int16)) if self.scaled else self.fields

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        """Return the number of type `compute` that is stored; `nonfinite`: whatever its block holds."""
        raise NotImplementedError

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        """Return what to store of a number; `nonfinite`: even if it is not finite."""
        raise NotImplementedError


def flushed(b: Any, value: Any, codec: Codec) -> Any:
    """Return a number, or a zero of its sign where it would be a subnormal float32 or float64 in memory.

    For states: an average that is decayed, and rounded to nearest, ends at a few times the smallest subnormal number
    and stays there, where arithmetic takes up to 30 times as long (Adam on an Intel Xeon with AVX-512). Other formats
    need no help: bfloat16 is rounded stochastically, to 0 in the end, and what float16 and 8-bit codes hold is normal
    in the float32 that is computed with.
    """
    stored = codec.fields[0].name
    if codec.scaled or codec.copied or stored not in _LEAST:
        return value
    integer, number = (INT64, np.float64) if value.type == DOUBLE else (INT32, np.float32)
    bits = b.bitcast(value, integer)
    sign = 1 << (integer.width - 1)
    size, least = b.and_(bits, integer(sign - 1)), int(number(_LEAST[stored]).view(f"u{integer.width // 8}"))
    zero = b.bitcast(b.and_(bits, integer(sign)), value.type)
    return b.select(b.icmp_unsigned("<", size, integer(least)), zero, value)


def _nearest(b: Any, bits: Any, dropped: int) -> Any:
    """Return the bits of a float32 rounded to the nearest, ties to even, so that `dropped` bits can be dropped."""
    odd = b.and_(b.lshr(bits, INT32(dropped)), INT32(1))
    return b.add(bits, b.add(odd, INT32((1 << (dropped - 1)) - 1)))


def _is_nan(b: Any, value: Any) -> Any:
    return b.fcmp_unordered("uno", value, value)


def _quiet(b: Any, bits: Any) -> Any:
    """Return the bits of a NaN that survives the loss of its lower bits, and rounding."""
    return b.or_(bits, INT32(0x400000))


class Float(Codec):
    """float64, float32 or float16, rounded to the nearest, ties to even."""

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        (value,) = stored
        return value if value.type == compute else b.fpext(value, compute)

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        own = ELEMENTS[self.fields[0].name]
        return [value if value.type == own else b.fptrunc(value, own)]


class Wrapped(Codec):
    """Another codec without scales, of which something more is known."""

    def __init__(self, base: Codec) -> None:
        super().__init__(*(dtype.name for dtype in base.fields))
        self._base = base

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        return self._base.read(b, stored, compute)

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        return self._base.write(b, value, rand)


class Copied(Wrapped):
    """Copies of parameters in a codec."""

    copied = True


class Zeroed(Wrapped):
    """Gradients in a codec, in whose place a step writes 0."""

    zeroed = True

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        (dtype,) = self.fields
        zero = ir.IntType(8 * dtype.itemsize)(0)
        return [b.and_(zero, zero)]


class StochasticFloat16(Float):
    """float16 with stochastic rounding; a number whose nearest float16 is finite stays finite."""

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        bits = b.bitcast(value, INT32)
        size = b.and_(bits, MAGNITUDE)
        normal = b.and_(b.add(size, random(b, rand, 13)), INT32(~0x1FFF))
        # Below 2^-14 the numbers are 2^-24 apart.
        small = b.icmp_unsigned("<", size, INT32(0x38800000))
        units = b.select(small, b.fmul(b.bitcast(size, FLOAT), FLOAT(2.0**24)), FLOAT(0))
        share = b.fmul(b.uitofp(random(b, rand, 13), FLOAT), FLOAT(2.0**-13))
        whole = b.uitofp(b.fptoui(b.fadd(units, share), INT32), FLOAT)
        rounded = b.select(small, b.bitcast(b.fmul(whole, FLOAT(2.0**-24)), INT32), normal)
        largest, halfway = INT32(0x477FE000), INT32(0x477FF000)  # 65504 and 65520
        rounded = b.select(
            b.and_(b.icmp_unsigned("<", size, halfway), b.icmp_unsigned(">", rounded, largest)), largest, rounded
        )
        rounded = b.select(b.icmp_unsigned(">=", size, INFINITE), size, rounded)
        signed = b.bitcast(b.or_(rounded, b.and_(bits, INT32(0x80000000))), FLOAT)
        return [b.fptrunc(signed, HALF)]


class BFloat16(Codec):
    """The upper half of a float32, in a uint16: rounded to nearest even, or stochastically."""

    def __init__(self, stochastic: bool) -> None:
        super().__init__("uint16")
        self._at_random = stochastic

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        value = b.bitcast(b.shl(b.zext(stored[0], INT32), INT32(16)), FLOAT)
        return value if compute == FLOAT else b.fpext(value, compute)

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        bits = b.bitcast(value, INT32)
        rounded = b.add(bits, random(b, rand, 16)) if self._at_random else _nearest(b, bits, 16)
        bits = b.select(_is_nan(b, value), _quiet(b, bits), rounded)
        return [b.trunc(b.lshr(bits, INT32(16)), INT16)]


class Compensated(Codec):
    """A number and what its rounding lost, both in one format: Kahan's compensation."""

    def __init__(self, base: Codec) -> None:
        super().__init__(base.fields[0].name, base.fields[0].name)
        self._base = base

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        return b.fadd(*(self._base.read(b, [part], compute) for part in stored))

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        upper = self._base.write(b, value, rand)
        lost = b.fsub(value, self._base.read(b, upper, FLOAT))
        size = b.and_(b.bitcast(lost, INT32), MAGNITUDE)
        lost = b.select(b.icmp_unsigned("<", size, INFINITE), lost, FLOAT(0))  # infinity less infinity
        return [*upper, *self._base.write(b, lost, rand)]


class Split(Codec):
    """A weight of 16 + `hidden` bits: the nearest bfloat16, ties away from zero, and how far off that is.

    The upper 16 + `hidden` bits of a float32, taken as one integer, are the bfloat16's bits and a signed correction.
    With 16 hidden bits the weight is the float32; fewer are rounded stochastically.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__("uint16", f"int{hidden}")
        self._hidden = hidden

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        upper = b.shl(b.zext(stored[0], INT32), INT32(16))
        lower = b.shl(b.sext(stored[1], INT32), INT32(16 - self._hidden))
        # No weight that was written is a 0 with a negative correction: the caller set it to 0, as pruning does.
        zeroed = b.and_(b.icmp_unsigned("==", b.shl(upper, INT32(1)), INT32(0)), b.icmp_signed("<", lower, INT32(0)))
        return b.bitcast(b.select(zeroed, upper, b.add(upper, lower)), FLOAT)

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        dropped = 16 - self._hidden
        bits = b.bitcast(value, INT32)
        kept = b.add(bits, random(b, rand, dropped)) if dropped else bits
        kept = b.select(_is_nan(b, value), INT32(0x7FC00000), kept)
        upper = b.lshr(b.add(kept, INT32(0x8000)), INT32(16))
        lower = b.lshr(kept, INT32(dropped))
        return [b.trunc(upper, INT16), b.trunc(lower, ELEMENTS[self.fields[1].name])]
