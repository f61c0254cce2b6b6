"""How a kernel on a GPU reads and writes at an address, and what it does with the scales of a block."""

from __future__ import annotations

from typing import Any

from numba.cuda import types
from numba.cuda.extending import intrinsic

from .._storage.codecs import ELEMENTS, INT32
from .._storage.layout import Layout
from .._storage.random_bits import INT64

#: The address space of global memory.
_GLOBAL = 1


def pointer(builder: Any, address: Any, element: Any, i: Any = None) -> Any:
    base = builder.inttoptr(address, element.as_pointer(_GLOBAL))
    return base if i is None else builder.gep(base, [i])


def read(builder: Any, address: Any, element: Any, i: Any, align: int) -> Any:
    value = builder.load(pointer(builder, address, element, i))
    value.align = align
    return value


def write(builder: Any, value: Any, address: Any, i: Any, align: int) -> None:
    builder.store(value, pointer(builder, address, value.type, i)).align = align


def scale_intrinsics(layout: Layout, lanes: int) -> tuple[Any, Any, Any, Any]:
    """Return four intrinsics.

    ``scales(addresses)`` and ``store_scales(addresses, scales)`` read and write the scales of a block;
    ``absmaxes(values)`` returns, for each scale, the bits of the largest finite number of `lanes` elements and whether
    there are others; ``rescale(scales, absmaxes)`` returns the scales that a block with these absmaxes needs.
    """
    scaled = list(layout.scales)
    elements = [ELEMENTS[dtype.name] for dtype in layout.dtypes]
    addresses_type = types.UniTuple(types.uint64, len(elements))
    scales_type = types.UniTuple(types.uint32, len(scaled)) if scaled else types.Tuple(())
    absmaxes_type = types.UniTuple(types.int32, 2 * len(scaled)) if scaled else types.Tuple(())

    @intrinsic
    def scales(typingctx, addresses):
        def codegen(context, builder, signature, args):
            found = []
            for k in layout.scales.values():
                stored = read(builder, builder.extract_value(args[0], k), elements[k], INT64(0), 2)
                found.append(builder.zext(stored, INT32))
            return context.make_tuple(builder, scales_type, found)

        return scales_type(addresses_type), codegen

    @intrinsic
    def absmaxes(typingctx, values):
        def codegen(context, builder, signature, args):
            found: list[Any] = []
            for k in scaled:
                absmax: tuple[Any, Any] = (INT32(0), INT32(0))
                for lane in range(lanes):
                    value = builder.extract_value(args[0], [lane, k - 1])
                    absmax = layout.scaled[k].finite_absmax(builder, value, *absmax)
                found += absmax
            return context.make_tuple(builder, absmaxes_type, found)

        return absmaxes_type(values), codegen

    @intrinsic
    def rescale(typingctx, scales, absmaxes):
        def codegen(context, builder, signature, args):
            found = []
            for at, k in enumerate(scaled):
                absmax = (builder.extract_value(args[1], 2 * at + n) for n in (0, 1))
                found.append(layout.scaled[k].rescale(builder, builder.extract_value(args[0], at), *absmax))
            return context.make_tuple(builder, scales_type, found)

        return scales_type(scales_type, absmaxes), codegen

    @intrinsic
    def store_scales(typingctx, addresses, scales):
        def codegen(context, builder, signature, args):
            for at, k in enumerate(layout.scales.values()):
                scale = builder.trunc(builder.extract_value(args[1], at), elements[k])
                write(builder, scale, builder.extract_value(args[0], k), INT64(0), 2)
            return context.get_dummy_value()

        return types.none(addresses_type, scales_type), codegen

    return scales, store_scales, absmaxes, rescale
