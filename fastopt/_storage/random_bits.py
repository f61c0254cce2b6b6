"""Random bits for rounding: a function of the seed, the step, the tensor and the element, on every target.

In the operations of an LLVM IR builder, as :mod:`fastopt._storage.codecs`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

INT32, INT64 = ir.IntType(32), ir.IntType(64)

# Odd, and such that the multiples of their lower 8, 13, 16, 20 and 32 bits are all spread evenly: no quotient of the
# continued fractions is above 6. One is for the elements, the other for the steps.
_ALONG, _OVER = 0xA3B46C8D, 0xC2F28D63


def _mix(b: Any, bits: Any) -> Any:
    """Return 32 bits of which each depends on all of `bits`; C. Wellons' function "lowbias32"."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        bits = b.mul(b.xor(bits, b.lshr(bits, INT32(shift))), INT32(factor))
    return bits


def key(b: Any, seed: Any, step: Any, tensor: Any, first: Any) -> Any:
    """Return the key of the random bits of a tensor in a step, for the 2^32 elements that element `first` is among.

    Over the steps it is a Weyl sequence, from a random start for each seed and tensor: the shares of rounding up and
    down then come out more evenly than by chance, and what an average of 1000 steps collects of roundings is a third
    less.
    """
    bits = INT32(0)
    for number in (seed, b.lshr(seed, INT64(32)), tensor, b.lshr(first, INT64(32))):
        bits = _mix(b, b.add(b.xor(b.trunc(number, INT32), bits), INT32(_ALONG)))
    return b.add(bits, b.mul(b.trunc(step, INT32), INT32(_OVER)))


def bits_at(b: Any, key: Any, i: Any) -> Any:
    """Return 32 random bits that depend on the key and the number of the element alone.

    They are a Weyl sequence over the elements, too: one addition an element, where a hash would take as long as the
    rest of Adam.
    """
    return b.add(key, b.mul(b.trunc(i, INT32), INT32(_ALONG)))


def next_bits(b: Any, rand: Any) -> Any:
    """Return the random bits of the next element."""
    return b.add(rand, INT32(_ALONG))


def random(b: Any, rand: Any, bits: int) -> Any:
    """Return a random integer of so many bits."""
    return b.and_(rand, INT32((1 << bits) - 1))
