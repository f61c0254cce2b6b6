"""The arithmetic of each instruction, on arrays with a number for each thread.

``OPERATIONS`` holds instructions by their whole name, modifiers included: one that is not there is not known. Results
are rounded as IEEE 754 says, each by itself; NaN of float32 is 0x7fffffff, as a device makes it. Integers wrap around.
"""

from typing import NamedTuple

import numpy as np
from numba import vectorize
from numba.extending import intrinsic


class Operation(NamedTuple):
    """An instruction without effects: the types of its result and operands, and what it does."""

    result: str
    operands: tuple[str, ...]
    function: callable


@intrinsic
def _fused(typingctx, a, b, c):
    return a(a, b, c), lambda context, builder, signature, arguments: builder.fma(*arguments)


@vectorize(["float32(float32, float32, float32)", "float64(float64, float64, float64)"])
def fma(a, b, c):
    """Return a * b + c, rounded once."""
    return _fused(a, b, c)


def dtype_of(kind):
    """Return NumPy's dtype for a type; float16 is its bits, as registers hold it."""
    if kind == "pred":
        return np.dtype(bool)
    letter = {"b": "u", "u": "u", "s": "i", "f": "u" if kind == "f16" else "f"}[kind[0]]
    return np.dtype(f"{letter}{int(kind[1:]) // 8}")


def as_on_device(function):
    """Return a function whose NaN is the one that a device makes."""

    def computed(*operands):
        result = function(*operands)
        return np.where(np.isnan(result), np.uint32(0x7FFFFFFF).view("f4"), result)

    return computed


def _least(a, b):
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), a, b), np.fmin(a, b))


def _most(a, b):
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), b, a), np.fmax(a, b))


def _shift(function, fill):
    """Return a shift of which an amount beyond the width leaves what `fill` makes of the operand."""

    def shifted(a, n):
        bits = 8 * a.dtype.itemsize
        return np.where(n < bits, function(a, np.minimum(n, bits - 1).astype(a.dtype)), fill(a))

    return shifted


def _widened(kind, function):
    dtype = dtype_of(kind)
    return lambda a, b, *c: function(a.astype(dtype), b.astype(dtype), *c)


def _cast(kind):
    dtype = dtype_of(kind)
    return lambda a: a.astype(dtype)


def _to_integer(kind, round_):
    """Return the conversion of floats: beyond the range the nearest number, NaN to 0."""
    dtype = dtype_of(kind)
    info = np.iinfo(dtype)

    def convert(a):
        a = round_(a).astype("f8")
        low, high = a <= float(info.min), a >= float(info.max)
        inside = np.where(low | high | np.isnan(a), 0, a).astype(dtype)
        return np.where(low, dtype.type(info.min), np.where(high, dtype.type(info.max), inside))

    return convert


def _to_float16(a):
    return np.where(np.isnan(a), np.uint16(0x7FFF), a.astype("f2").view("u2"))


def _from_float16(a):
    return a.view("f2").astype("f4")


def _reciprocal_approximately(a):
    """The upper half of the bits of the reciprocal; the function that uses it improves it."""
    return ((1.0 / a).view("u8") & np.uint64(0xFFFFFFFF00000000)).view("f8")


def _permute(a, b, selectors):
    """Return four of the eight bytes of two operands, of some of them only the sign."""
    both = a.astype("u8") | b.astype("u8") << np.uint64(32)
    result = np.zeros(both.shape, "u4")
    for k in range(4):
        selector = selectors >> np.uint32(4 * k) & np.uint32(15)
        byte = (both >> (selector % 8 * 8).astype("u8") & np.uint64(255)).astype("u4")
        result |= np.where(selector < 8, byte, (byte >> np.uint32(7)) * np.uint32(255)) << np.uint32(8 * k)
    return result


_COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _ordered(function):
    return lambda a, b: ~(np.isnan(a) | np.isnan(b)) & function(a, b)


def _unordered(function):
    return lambda a, b: np.isnan(a) | np.isnan(b) | function(a, b)


def _bits():
    for kind in ("b16", "b32", "b64", "pred"):
        for name, function in (("and", np.bitwise_and), ("or", np.bitwise_or), ("xor", np.bitwise_xor)):
            yield f"{name}.{kind}", kind, (kind, kind), function
        yield f"not.{kind}", kind, (kind,), np.invert
    yield "prmt.b32", "b32", ("u32", "u32", "u32"), _permute
    for size in ("16", "32", "64"):
        zero = np.zeros_like
        yield f"shl.b{size}", f"b{size}", (f"b{size}", "u32"), _shift(np.left_shift, zero)
        yield f"shr.u{size}", f"u{size}", (f"u{size}", "u32"), _shift(np.right_shift, zero)
        sign = lambda a: np.right_shift(a, a.dtype.type(8 * a.dtype.itemsize - 1))  # noqa: E731  shorter beside its use
        yield f"shr.s{size}", f"s{size}", (f"s{size}", "u32"), _shift(np.right_shift, sign)
    for kind in [f"{letter}{size}" for letter in "bus" for size in (16, 32, 64)] + ["f32", "f64"]:
        yield f"selp.{kind}", kind, (kind, kind, "pred"), lambda a, b, p: np.where(p, a, b)
    for kind in [f"{letter}{size}" for letter in "bus" for size in (16, 32, 64)] + ["f32", "f64", "pred"]:
        yield f"mov.{kind}", kind, (kind,), lambda a: a


def _integers():
    for kind in [f"{letter}{size}" for letter in "us" for size in (16, 32, 64)]:
        two = (kind, kind)
        yield f"add.{kind}", kind, two, np.add
        yield f"sub.{kind}", kind, two, np.subtract
        yield f"mul.lo.{kind}", kind, two, np.multiply
        yield f"mad.lo.{kind}", kind, (kind, kind, kind), lambda a, b, c: a * b + c
        yield f"min.{kind}", kind, two, np.minimum
        yield f"max.{kind}", kind, two, np.maximum
        if kind[0] == "s":
            yield f"neg.{kind}", kind, (kind,), np.negative
            yield f"abs.{kind}", kind, (kind,), np.abs
        if kind[1:] != "64":
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            yield f"mul.wide.{kind}", wide, two, _widened(wide, np.multiply)
            yield f"mad.wide.{kind}", wide, (kind, kind, wide), _widened(wide, lambda a, b, c: a * b + c)
        for name, function in _COMPARISONS.items():
            yield f"setp.{name}.{kind}", "pred", two, function
    for kind in ("b16", "b32", "b64"):
        for name in ("eq", "ne"):
            yield f"setp.{name}.{kind}", "pred", (kind, kind), _COMPARISONS[name]


def _floats():
    for kind in ("f32", "f64"):
        made = as_on_device if kind == "f32" else (lambda function: function)
        two = (kind, kind)
        for name, function in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply)):
            yield f"{name}.{kind}", kind, two, made(function)
            yield f"{name}.rn.{kind}", kind, two, made(function)
        yield f"div.rn.{kind}", kind, two, made(np.divide)
        yield f"fma.rn.{kind}", kind, (kind, kind, kind), made(fma)
        yield f"sqrt.rn.{kind}", kind, (kind,), made(np.sqrt)
        yield f"rcp.rn.{kind}", kind, (kind,), made(np.reciprocal)
        yield f"neg.{kind}", kind, (kind,), np.negative
        yield f"abs.{kind}", kind, (kind,), np.abs
        yield f"min.{kind}", kind, two, made(_least)
        yield f"max.{kind}", kind, two, made(_most)
        for name, function in _COMPARISONS.items():
            yield f"setp.{name}.{kind}", "pred", two, _ordered(function)
            yield f"setp.{name}u.{kind}", "pred", two, _unordered(function)
        yield f"setp.nan.{kind}", "pred", two, lambda a, b: np.isnan(a) | np.isnan(b)
        yield f"setp.num.{kind}", "pred", two, lambda a, b: ~(np.isnan(a) | np.isnan(b))
    halves = ("f16", "f16")  # of which a register has the bits
    yield "setp.nan.f16", "pred", halves, lambda a, b: np.isnan(a.view("f2")) | np.isnan(b.view("f2"))
    yield "setp.num.f16", "pred", halves, lambda a, b: ~(np.isnan(a.view("f2")) | np.isnan(b.view("f2")))
    yield "rcp.approx.ftz.f64", "f64", ("f64",), _reciprocal_approximately


def _conversions():
    integers = [f"{letter}{size}" for letter in "us" for size in (8, 16, 32, 64)]
    for to in integers:
        for of in integers:
            yield f"cvt.{to}.{of}", to, (of,), _cast(to)
        for of in ("f32", "f64"):
            yield f"cvt.rzi.{to}.{of}", to, (of,), _to_integer(to, np.trunc)
            yield f"cvt.rni.{to}.{of}", to, (of,), _to_integer(to, np.rint)
            yield f"cvt.rn.{of}.{to}", of, (to,), _cast(of)
    for kind in ("f32", "f64"):
        yield f"cvt.rzi.{kind}.{kind}", kind, (kind,), np.trunc
        yield f"cvt.rni.{kind}.{kind}", kind, (kind,), np.rint
    yield "cvt.f64.f32", "f64", ("f32",), lambda a: a.astype("f8")
    yield "cvt.rn.f32.f64", "f32", ("f64",), as_on_device(lambda a: a.astype("f4"))
    yield "cvt.rn.f16.f32", "f16", ("f32",), _to_float16
    yield "cvt.f64.f16", "f64", ("f16",), lambda a: a.view("f2").astype("f8")
    yield "cvt.f32.f16", "f32", ("f16",), as_on_device(_from_float16)
    # From sm_100 on: two at once, the first in the upper half, and sums of which one operand is narrower.
    pair = lambda a, b: _to_float16(a).astype("u4") << np.uint32(16) | _to_float16(b)  # noqa: E731  as in _bits
    yield "cvt.rn.f16x2.f32", "b32", ("f32", "f32"), pair
    for name, function in (("add", np.add), ("sub", np.subtract)):
        mixed = as_on_device(lambda a, b, function=function: function(_from_float16(a), b))
        yield f"{name}.rn.f32.f16", "f32", ("f16", "f32"), mixed


OPERATIONS = {
    name: Operation(result, operands, function)
    for family in (_bits, _integers, _floats, _conversions)
    for name, result, operands, function in family()
}
