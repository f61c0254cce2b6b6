"""8 bits a number, and a scale that a block of numbers shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .codecs import FLOAT, INFINITE, INT8, INT32, MAGNITUDE, Codec
from .random_bits import random

#: Elements per scale; a chunk is a multiple of it. The error does not depend on it; a step takes 2 % less
#: time than with 512 and 15 % less than with 128.
BLOCK = 1024


class Scaled8(Codec):
    """8 bits, which divide the numbers of a block as a logarithm does, below a power of two that is the block's scale.

    A code is the upper bits of a float32: 4 (5 if not `signed`) bits of exponent, counted from the lower end of the
    block's range, and 3 of fraction. The error is at most an eighth of a number, whatever the others of its block are.
    Signed numbers, over 2^12, have a sign beside and are moved away from zero by the lower end, which makes the codes
    linear there (so 0 is 0): mu-law companding. Others, over 2^28, will be divided by: none is less than the lower end.

    Scale 0 is the range that begins at 2^-115 (2^-118 for unsigned numbers); each scale above begins at the double. It
    stays while the largest number of the block needs it or up to 3 less, and has one to spare when it moves: so nearly
    every step writes codes for the scale that it read, in one pass. What is not finite has a code in blocks whose scale
    says so; such a block is written in a second pass, as is one whose scale moves.
    """

    scaled = True

    def __init__(self, signed: bool) -> None:
        super().__init__("uint8")
        self._signed = signed
        self._top = 127 if signed else 255  # NaN; one less is infinity
        self._binades = 16 if signed else 32
        # The exponent, as float32 has it, of the first range: the least number above 0 is 2^-118, so that its product
        # with a decay factor is no subnormal number, on which arithmetic takes 10 times as long.
        self._first = 12 if signed else 9

    def spread(self, scales: Any, count: int) -> Any:
        """Return the scale of each of `count` numbers, as :meth:`read` takes it."""
        return np.repeat(scales, BLOCK)[:count].astype(np.uint32)

    def _lowest(self, b: Any, scale: Any) -> Any:
        """Return the bits of the lower end of a range."""
        return b.shl(b.add(b.and_(scale, INT32(0xFF)), INT32(self._first)), INT32(23))

    def read(self, b: Any, stored: Sequence[Any], compute: Any, scale: Any = None, nonfinite: bool = False) -> Any:
        lowest = self._lowest(b, scale)
        if self._signed:
            byte = b.sext(stored[0], INT32)
            size = b.add(b.and_(b.shl(byte, INT32(20)), INT32(0x07F00000)), lowest)
            size = b.bitcast(b.fsub(b.bitcast(size, FLOAT), b.bitcast(lowest, FLOAT)), INT32)
            value = b.bitcast(b.or_(size, b.and_(byte, INT32(0x80000000))), FLOAT)
        else:
            value = b.bitcast(b.add(b.shl(b.zext(stored[0], INT32), INT32(20)), lowest), FLOAT)
        if nonfinite:
            byte = b.zext(stored[0], INT32)
            code = b.and_(byte, INT32(self._top))
            bits = b.add(INFINITE, b.shl(b.and_(code, INT32(1)), INT32(22)))
            if self._signed:
                bits = b.or_(bits, b.shl(b.and_(byte, INT32(0x80)), INT32(24)))
            value = b.select(b.icmp_unsigned(">=", code, INT32(self._top - 1)), b.bitcast(bits, FLOAT), value)
        return value

    def write(self, b: Any, value: Any, rand: Any, scale: Any = None, nonfinite: bool = False) -> Sequence[Any]:
        bits = b.bitcast(value, INT32)
        size, lowest, sign = bits, self._lowest(b, scale), b.and_(bits, INT32(0x80000000))
        if self._signed:
            size = b.bitcast(b.fadd(b.bitcast(b.and_(bits, MAGNITUDE), FLOAT), b.bitcast(lowest, FLOAT)), INT32)
        code = b.ashr(b.add(b.sub(size, lowest), random(b, rand, 20)), INT32(20))
        if not self._signed:
            code = b.select(b.icmp_signed(">", code, INT32(0)), code, INT32(0))
        if nonfinite:
            size = b.and_(bits, MAGNITUDE)
            finite = b.icmp_unsigned("<", code, INT32(self._top - 1))
            code = b.select(finite, code, INT32(self._top - 2))
            beyond = b.add(INT32(self._top - 1), b.zext(b.icmp_unsigned(">", size, INFINITE), INT32))
            code = b.select(b.icmp_unsigned(">=", size, INFINITE), beyond, code)
            # The NaN that arithmetic makes has a sign on some processors.
            sign = b.select(b.icmp_unsigned(">", size, INFINITE), INT32(0), sign)
        if self._signed:
            code = b.or_(code, b.lshr(sign, INT32(24)))
        return [b.trunc(code, INT8)]

    def absmax(self, b: Any, value: Any, so_far: Any) -> Any:
        """Return the larger of the bits of a number's absolute value and `so_far`."""
        bits = b.bitcast(value, INT32)
        size = b.and_(bits, MAGNITUDE) if self._signed else bits
        return b.select(b.icmp_unsigned(">", size, so_far), size, so_far)

    def finite_absmax(self, b: Any, value: Any, absmax: Any, infinite: Any) -> tuple[Any, Any]:
        """Return the same of finite numbers, and 1 after one that is not, else 0."""
        size = b.and_(b.bitcast(value, INT32), MAGNITUDE)
        beyond = b.icmp_unsigned(">=", size, INFINITE)
        size = b.select(beyond, INT32(0), size)
        absmax = b.select(b.icmp_unsigned(">", size, absmax), size, absmax)
        return absmax, b.or_(infinite, b.zext(beyond, INT32))

    def _needed(self, b: Any, absmax: Any) -> Any:
        """Return the least scale for a block with this absmax."""
        # The last codes, for a fraction of 13/8 and more, mean infinity and NaN.
        exponent = b.lshr(b.add(absmax, INT32(0x2FFFFF)), INT32(23))
        needed = b.sub(exponent, INT32(self._binades + self._first - 1))
        return b.select(b.icmp_signed(">", needed, INT32(0)), needed, INT32(0))

    def needs_rescale(self, b: Any, scale: Any, absmax: Any) -> Any:
        """Say whether the codes that were written for a scale will not do for this absmax, of :meth:`absmax`."""
        spare = b.sub(scale, self._needed(b, absmax))  # very large if the scale is too small, or marked
        return b.or_(b.icmp_unsigned(">=", spare, INT32(4)), b.icmp_unsigned(">=", absmax, INFINITE))

    def rescale(self, b: Any, scale: Any, absmax: Any, infinite: Any) -> Any:
        """Return the scale for a block with these, of :meth:`finite_absmax`."""
        needed = self._needed(b, absmax)
        before = b.and_(scale, INT32(0xFF))
        keeps = b.icmp_unsigned("<", b.sub(before, needed), INT32(4))
        wider = b.add(needed, INT32(1))
        return b.or_(b.select(keeps, before, wider), b.shl(infinite, INT32(8)))

    def has_nonfinite(self, b: Any, scale: Any) -> Any:
        """Say whether a block has codes for what is not finite."""
        return b.icmp_unsigned(">", scale, INT32(0xFF))
