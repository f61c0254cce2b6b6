"""What a CPU kernel does with the scales of a block, beside what :mod:`fastopt._kernels.access` does with elements."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._storage.codecs import FLOAT, INT16, INT32
from .._storage.int8 import BLOCK
from .._storage.layout import layout as layout_of
from .._storage.random_bits import INT64
from .access import Memory


def ints(count: int) -> Any:
    return types.UniTuple(types.uint32, count) if count else types.Tuple(())


@intrinsic(prefer_literal=True)
def with_scratch(typingctx, addresses, layout):
    """Return the addresses and those of the arrays for a block's new numbers, which live as long as the caller."""
    arrays = layout_of(layout.literal_value)
    result = types.UniTuple(types.uint64, len(addresses) + len(arrays.scales))

    def codegen(context, builder, signature, args):
        found = [builder.extract_value(args[0], k) for k in range(len(addresses))]
        for _ in arrays.scales:
            with builder.goto_entry_block():
                room = builder.alloca(ir.ArrayType(FLOAT, BLOCK))
                room.align = 64
            found.append(builder.ptrtoint(room, INT64))
        return context.make_tuple(builder, result, found)

    return result(addresses, layout), codegen


@intrinsic(prefer_literal=True)
def scales(typingctx, addresses, layout):
    """Return the scales of the block that the addresses are at."""
    arrays = layout_of(layout.literal_value)
    result = ints(len(arrays.scales))

    def codegen(context, builder, signature, args):
        memory = Memory(builder, args[0], arrays)
        found = [builder.zext(memory.load(row, INT64(0)), INT32) for row in arrays.scales.values()]
        return context.make_tuple(builder, result, found)

    return result(addresses, layout), codegen


@intrinsic(prefer_literal=True)
def absmaxes(typingctx, so_far, values, layout):
    """Return the largest absolute value of each codec with a scale, as bits; ``()`` is where there is none."""
    arrays = layout_of(layout.literal_value)
    result = ints(len(arrays.scales))

    def codegen(context, builder, signature, args):
        found = []
        for place, k in enumerate(arrays.scales):
            value = builder.extract_value(args[1], k - 1)
            found.append(arrays.scaled[k].absmax(builder, value, builder.extract_value(args[0], place)))
        return context.make_tuple(builder, result, found)

    return result(result, values, layout), codegen


@intrinsic(prefer_literal=True)
def no_absmax(typingctx, layout):
    """Return the absmaxes of no number at all."""
    return _zeros(layout, 1)


@intrinsic(prefer_literal=True)
def no_finite_absmax(typingctx, layout):
    """Return the finite absmaxes of no number at all."""
    return _zeros(layout, 2)


def _zeros(layout: Any, each: int) -> Any:
    count = each * len(layout_of(layout.literal_value).scales)
    result = ints(count)

    def codegen(context, builder, signature, args):
        return context.make_tuple(builder, result, [INT32(0)] * count)

    return result(layout), codegen


@intrinsic(prefer_literal=True)
def finite_absmaxes(typingctx, addresses, i, absmaxes, layout):
    """Return the largest absolute value of each codec's finite new numbers, which are kept, and whether all are."""
    arrays = layout_of(layout.literal_value)

    def codegen(context, builder, signature, args):
        memory = Memory(builder, args[0], arrays)
        found: list[Any] = []
        for place, k in enumerate(arrays.scales):
            value = memory.load(memory.scratch(k), args[1])
            so_far = (builder.extract_value(args[2], 2 * place + n) for n in (0, 1))
            found += arrays.scaled[k].finite_absmax(builder, value, *so_far)
        return context.make_tuple(builder, absmaxes, found)

    return absmaxes(addresses, types.intp, absmaxes, layout), codegen


@intrinsic(prefer_literal=True)
def needs_rescale(typingctx, scales, absmaxes, layout):
    """Say whether any codes of a block with these absmaxes must be written anew."""
    return _any(layout, scales, absmaxes, "needs_rescale")


@intrinsic(prefer_literal=True)
def has_nonfinite(typingctx, scales, layout):
    """Say whether any codes of a block are of what is not finite."""
    return _any(layout, scales, None, "has_nonfinite")


def _any(layout: Any, scales: Any, absmaxes: Any, question: str) -> Any:
    arrays = layout_of(layout.literal_value)
    given = [scales] if absmaxes is None else [scales, absmaxes]

    def codegen(context, builder, signature, args):
        found = ir.Constant(ir.IntType(1), 0)
        for place, k in enumerate(arrays.scales):
            values = [builder.extract_value(arg, place) for arg in args[: len(given)]]
            found = builder.or_(found, getattr(arrays.scaled[k], question)(builder, *values))
        return found

    return types.boolean(*given, layout), codegen


@intrinsic(prefer_literal=True)
def rescale(typingctx, addresses, scales, absmaxes, layout):
    """Write the scales that a block with these finite absmaxes needs, and return them."""
    arrays = layout_of(layout.literal_value)

    def codegen(context, builder, signature, args):
        memory = Memory(builder, args[0], arrays)
        found = []
        for place, (k, row) in enumerate(arrays.scales.items()):
            old = builder.extract_value(args[1], place)
            absmax = (builder.extract_value(args[2], 2 * place + n) for n in (0, 1))
            found.append(arrays.scaled[k].rescale(builder, old, *absmax))
            memory.store(builder.trunc(found[-1], INT16), row, INT64(0))
        return context.make_tuple(builder, scales, found)

    return scales(addresses, scales, absmaxes, layout), codegen


@intrinsic(prefer_literal=True)
def requantize(typingctx, addresses, i, layout, rand, scales):
    """Write element `i` of what is stored with a scale once more."""
    arrays = layout_of(layout.literal_value)

    def codegen(context, builder, signature, args):
        memory = Memory(builder, args[0], arrays)
        for k in arrays.scales:
            value = memory.load(memory.scratch(k), args[1])
            scale = arrays.scale(builder, args[4], k)
            (code,) = arrays.scaled[k].write(builder, value, args[3], scale, nonfinite=True)
            memory.store(code, arrays.rows[k][0], args[1])
        return context.get_dummy_value()

    return types.none(addresses, types.intp, layout, types.uint32, scales), codegen
