"""Known answers of instructions: those of Python's integers and fractions, of IEEE 754, and of the PTX manual."""

import operator
from fractions import Fraction

import numpy as np
import pytest

from .arithmetic import OPERATIONS, dtype_of, fma

INTEGER = {
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "min": min,
    "max": max,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "mul.wide": operator.mul,
    "shl": lambda a, n: a << n if n < 64 else 0,
    "shr": lambda a, n: a >> min(n, 64),
    "mad.lo": lambda a, b, c: a * b + c,
    "mad.wide": lambda a, b, c: a * b + c,
    "neg": operator.neg,
    "abs": abs,
    "not": operator.invert,
    **{f"setp.{name}": getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{name: lambda a: a for name in ("mov", *(f"cvt.{letter}{size}" for letter in "us" for size in (8, 16, 32, 64)))},
}
WITH_INTEGERS = [
    op
    for op, (result, kinds, _) in OPERATIONS.items()
    if op.rpartition(".")[0] in INTEGER and all(dtype_of(kind).kind in "iu" for kind in kinds)
]


@pytest.mark.parametrize("op", WITH_INTEGERS)
def test_integers(op):
    """As Python computes them, reduced to the width of the result."""
    result, kinds, function = OPERATIONS[op]
    rng = np.random.default_rng(0)
    given = [rng.integers(0, 256, (500, dtype_of(k).itemsize), np.uint8).view(dtype_of(k))[:, 0] for k in kinds]
    if op.startswith("sh"):
        given[1][:] = rng.integers(0, 70, 500)
    elif len(given) > 1:
        given[1][:50] = given[0][:50]
    with np.errstate(all="ignore"):
        found = function(*given)
    values = 2 if result == "pred" else 256 ** dtype_of(result).itemsize
    exact = [INTEGER[op.rpartition(".")[0]](*map(int, row)) % values for row in zip(*given, strict=True)]
    assert found.dtype == dtype_of(result)
    assert [int(x) % values for x in found] == exact


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_fused_operations_are_rounded_once(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4000)).astype(dtype)
    c = (-a * b * (1 + rng.integers(-2, 3, a.size) * np.finfo(dtype).eps)).astype(dtype)  # nearly all cancels
    c[::2] = rng.normal(size=a[::2].size)
    for x, y, z, found in zip(a, b, c, fma(a, b, c), strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        near = [abs(Fraction(float(np.nextafter(found, to))) - exact) for to in (-np.inf, np.inf)]
        assert abs(Fraction(float(found)) - exact) <= min(near)
    assert (fma(a, b, c) != a * b + c).sum() > 500


SPECIAL = np.array([np.nan, np.inf, -1.5, 2.5, 3e9, 5e9, 65519.99, 65520, 1e-7, 2.0**-25, -0.0], "f4")
#: What comes of each of them, and of 2 as a second operand: as bits, of as many as are listed.
EXPECTED = {
    "cvt.rzi.u32.f32": [0, 2**32 - 1, 0, 2, 3 * 10**9, 2**32 - 1, 65519, 65520, 0, 0, 0],
    "cvt.rni.s32.f32": [0, 2**31 - 1, 2**32 - 2, 2, 2**31 - 1, 2**31 - 1, 65520, 65520, 0, 0, 0],
    "cvt.rn.f16.f32": [0x7FFF, 0x7C00, 0xBE00, 0x4100, 0x7C00, 0x7C00, 0x7BFF, 0x7C00, 2, 0, 0x8000],
    "cvt.f64.f32": [0x7FF8000000000000, 0x7FF0000000000000, 0xBFF8000000000000, 0x4004000000000000],
    "add.f32": [0x7FFFFFFF, 0x7F800000, 0x3F000000, 0x40900000],
    "mul.f32": [0x7FFFFFFF, 0x7F800000, 0xC0400000, 0x40A00000],
    "div.rn.f32": [0x7FFFFFFF, 0x7F800000, 0xBF400000, 0x3FA00000],
    "sqrt.rn.f32": [0x7FFFFFFF, 0x7F800000, 0x7FFFFFFF, 0x3FCA62C2],
    "min.f32": [0x40000000, 0x40000000, 0xBFC00000, 0x40000000],
    "max.f32": [0x40000000, 0x7F800000, 0x40000000, 0x40200000],
    "setp.gtu.f32": [1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0],
    "setp.gt.f32": [0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0],
    "setp.ne.f32": [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    "setp.nan.f32": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
}


@pytest.mark.parametrize("op", EXPECTED)
def test_special_numbers(op):
    """Conversions saturate, NaN is the one of a device, and comparisons say whether they are true for it."""
    operands = [SPECIAL, np.full(1, 2.0, "f4")][: len(OPERATIONS[op].operands)]
    with np.errstate(all="ignore"):
        found = OPERATIONS[op].function(*operands)
    assert found.view(f"u{found.itemsize}").tolist()[: len(EXPECTED[op])] == EXPECTED[op]


def test_two_halves_and_a_half_among_wider_numbers():
    one, two, tiny = (np.array([x], "f4") for x in (1.0, -2.0, 2.0**-20))
    assert OPERATIONS["cvt.rn.f16x2.f32"].function(one, two) == 0x3C00C000
    half = np.array([0x3C00], "u2")
    assert OPERATIONS["add.rn.f32.f16"].function(half, tiny) == np.float32(1 + 2.0**-20)
    assert OPERATIONS["sub.rn.f32.f16"].function(half, tiny) == np.float32(1 - 2.0**-20)


def test_bytes_are_chosen():
    """By number from both operands; 8 more asks for the sign of a byte."""
    a, b = np.array([0x44332211], "u4"), np.array([0x88776655], "u4")
    for selectors, expected in ((0x7632, 0x88774433), (0x3210, 0x44332211), (0x0F81, 0x11FF0022), (0x4444, 0x55555555)):
        assert OPERATIONS["prmt.b32"].function(a, b, np.array([selectors], "u4")) == expected


def test_zeros_have_an_order():
    zeros = np.array([0.0, -0.0], "f4"), np.array([-0.0, 0.0], "f4")
    assert np.signbit(OPERATIONS["min.f32"].function(*zeros)).all()
    assert not np.signbit(OPERATIONS["max.f32"].function(*zeros)).any()


def test_every_float16():
    """As float32 and back it is itself, NaN apart; what lies between two becomes the nearest, half way the even one."""
    bits = np.arange(2**16, dtype=np.uint16)
    nan = (bits & 0x7FFF) > 0x7C00
    wide = OPERATIONS["cvt.f32.f16"].function(bits)
    assert (wide.view(np.uint32)[nan] == 0x7FFFFFFF).all()
    np.testing.assert_array_equal(OPERATIONS["setp.nan.f16"].function(bits, bits), nan)
    np.testing.assert_array_equal(OPERATIONS["setp.num.f16"].function(bits, bits), ~nan)
    back = OPERATIONS["cvt.rn.f16.f32"].function(wide)
    np.testing.assert_array_equal(back, np.where(nan, 0x7FFF, bits))
    low, high = wide[:0x7BFF].astype("f8"), wide[1:0x7C00].astype("f8")
    middle = ((low + high) / 2).astype("f4")
    for values, expected in (
        (middle, bits[:0x7BFF] + bits[:0x7BFF] % 2),
        (np.nextafter(middle, np.float32(0)), bits[:0x7BFF]),
        (np.nextafter(middle, np.float32(np.inf)), bits[1:0x7C00]),
    ):
        np.testing.assert_array_equal(OPERATIONS["cvt.rn.f16.f32"].function(values), expected)
