"""float16 by integer operations, for processors that have no instructions for it.

LLVM would call a function of a compiler's run-time library there. No library that Numba loads has it, and LLVM ends the
process over a missing symbol.
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

from .codecs import FLOAT, HALF, INFINITE, INT16, INT32, MAGNITUDE

_PROBE = """
define float @widen(half %x) {
  %y = fpext half %x to float
  ret float %y
}
define half @narrow(float %x) {
  %y = fptrunc float %x to half
  ret half %y
}
"""


@functools.cache
def native() -> bool:
    """Say whether the processor that Numba compiles for converts float16 itself."""
    machine = cpu_target.target_context.codegen()._tm
    text = machine.emit_assembly(llvm.parse_assembly(_PROBE))
    return not any(name in text for name in ("hfsf2", "sfhf2", "_ieee"))  # of compiler-rt and libgcc; of the Arm ABI


def converting(builder: Any) -> Any:
    """Return a builder for the processor that Numba compiles for, which codecs can ask to convert float16."""
    return builder if native() else Float16Builder(builder)


class Float16Builder:
    """An LLVM IR builder that widens and narrows float16 by integer operations, to the same bits."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def fpext(self, value: Any, kind: Any) -> Any:
        b = self._builder
        if getattr(value.type, "element", value.type) != HALF:
            return b.fpext(value, kind)
        number = b.bitcast(widened(b, b.zext(b.bitcast(value, INT16), INT32)), FLOAT)
        return number if kind == FLOAT else b.fpext(number, kind)

    def fptrunc(self, value: Any, kind: Any) -> Any:
        b = self._builder
        if kind != HALF:
            return b.fptrunc(value, kind)
        return b.bitcast(b.trunc(narrowed(b, b.bitcast(value, INT32)), INT16), HALF)


def widened(b: Any, bits: Any) -> Any:
    """Return the bits of a float32 for those of a float16."""
    size = b.and_(bits, INT32(0x7FFF))
    shifted = b.shl(size, INT32(13))
    normal = b.add(shifted, INT32(112 << 23))  # the exponents are 127 - 15 apart
    # Below 2^-14: taken as the fraction of a number from 2^-14 on, of which 2^-14 is taken away.
    least = INT32(113 << 23)
    small = b.bitcast(b.fsub(b.bitcast(b.add(shifted, least), FLOAT), b.bitcast(least, FLOAT)), INT32)
    found = b.select(b.icmp_unsigned("<", size, INT32(0x400)), small, normal)
    found = b.select(b.icmp_unsigned(">=", size, INT32(0x7C00)), b.or_(shifted, INFINITE), found)
    found = b.select(b.icmp_unsigned(">", size, INT32(0x7C00)), b.or_(found, INT32(0x400000)), found)  # a quiet NaN
    return b.or_(found, b.shl(b.and_(bits, INT32(0x8000)), INT32(16)))


def narrowed(b: Any, bits: Any) -> Any:
    """Return the bits of a float16 for those of a float32, rounded to the nearest, ties to even."""
    size = b.and_(bits, MAGNITUDE)
    odd = b.and_(b.lshr(size, INT32(13)), INT32(1))
    normal = b.lshr(b.add(b.sub(size, INT32(112 << 23)), b.add(INT32(0xFFF), odd)), INT32(13))
    # Below 2^-14 the numbers are 2^-24 apart, as float32 are from 0.5 on.
    half = INT32(126 << 23)
    small = b.sub(b.bitcast(b.fadd(b.bitcast(size, FLOAT), b.bitcast(half, FLOAT)), INT32), half)
    found = b.select(b.icmp_unsigned("<", size, INT32(0x38800000)), small, normal)
    found = b.select(b.icmp_unsigned(">=", size, INT32(0x477FF000)), INT32(0x7C00), found)  # 65520 and more
    nan = b.or_(b.and_(b.lshr(size, INT32(13)), INT32(0x3FF)), INT32(0x7E00))
    found = b.select(b.icmp_unsigned(">", size, INFINITE), nan, found)
    return b.or_(found, b.and_(b.lshr(bits, INT32(16)), INT32(0x8000)))
