"""How a kernel on a GPU reads and writes: the counterpart of :mod:`fastopt._kernels.access`.

The intrinsics of one kernel are made together, for its arrays' dtypes, so that no dtype needs to be an argument. Memory
is addressed as global memory, and a thread moves 16 bytes of each array at a time where all of them are aligned so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic
from numba.extending import register_jitable

from .._storage import random_bits
from .._storage.codecs import ELEMENTS, INT32
from .._storage.layout import Layout
from .._storage.random_bits import INT64
from .cuda_blocks import read, scale_intrinsics, write


class Storage:
    """The intrinsics of a kernel.

    Parameters
    ----------
    layout : Layout
        The gradient, the parameter and the states.
    lanes : int
        How many elements of each array are moved at a time.
    scalars : int
        How many scalars the rule takes.
    """

    def __init__(self, layout: Layout, lanes: int, scalars: int) -> None:
        dtypes, codecs = layout.dtypes, layout.codecs
        elements = [ELEMENTS[dtype.name] for dtype in dtypes]
        compute_type, compute = getattr(types, layout.compute.name), ELEMENTS[layout.compute.name]
        row = types.UniTuple(compute_type, len(codecs))
        written = types.UniTuple(compute_type, len(codecs) - 1)
        addresses_type = types.UniTuple(types.uint64, len(dtypes))
        scales = len(layout.scales)
        scales_type = types.UniTuple(types.uint32, scales) if scales else types.Tuple(())

        def moved(builder, addresses, i):
            rows = range(len(dtypes))
            return [builder.add(builder.extract_value(addresses, k), layout.offset(builder, k, i)) for k in rows]

        def decode(context, builder, stored, scales):
            """Return the numbers of one element, of which `stored` has what lies in every array."""
            numbers = []
            for k, codec in enumerate(codecs):
                parts = [stored[r] for r in layout.rows[k]]
                numbers.append(
                    codec.read(builder, parts, compute, layout.scale(builder, scales, k), nonfinite=codec.scaled)
                )
            return context.make_tuple(builder, row, numbers)

        def encode(builder, values, rand, scales):
            """Yield the arrays of one element, and what to write there."""
            for k, codec in enumerate(codecs[1:], 1):
                value, scale = builder.extract_value(values, k - 1), layout.scale(builder, scales, k)
                parts = codec.write(builder, value, rand, scale, nonfinite=codec.scaled)
                yield from zip(layout.rows[k], parts, strict=True)

        @intrinsic
        def column(typingctx, table, tensors, t):
            def codegen(context, builder, signature, args):
                found = []
                for k in range(len(dtypes)):
                    index = builder.add(builder.mul(INT64(k), args[1]), args[2])
                    found.append(read(builder, args[0], INT64, index, 8))
                return context.make_tuple(builder, addresses_type, found)

            return addresses_type(types.uint64, types.int64, types.int64), codegen

        @intrinsic
        def chunk(typingctx, chunks, c):
            result = types.UniTuple(types.int64, 3)

            def codegen(context, builder, signature, args):
                first = builder.mul(args[1], INT64(3))
                found = [read(builder, args[0], INT64, builder.add(first, INT64(k)), 8) for k in range(3)]
                return context.make_tuple(builder, result, found)

            return result(types.uint64, types.int64), codegen

        @intrinsic
        def advance(typingctx, addresses, i):
            def codegen(context, builder, signature, args):
                return context.make_tuple(builder, addresses_type, moved(builder, *args))

            return addresses_type(addresses_type, types.int64), codegen

        @intrinsic
        def aligned(typingctx, addresses):
            def codegen(context, builder, signature, args):
                low = INT64(0)
                for k in layout.fields:
                    mask = INT64(lanes * dtypes[k].itemsize - 1)
                    low = builder.or_(low, builder.and_(builder.extract_value(args[0], k), mask))
                return builder.icmp_unsigned("==", low, INT64(0))

            return types.boolean(addresses_type), codegen

        def loads(width):
            result = types.UniTuple(row, width)

            @intrinsic
            def load(typingctx, addresses, i, scales):
                def codegen(context, builder, signature, args):
                    here = moved(builder, args[0], args[1])
                    columns = {}
                    for k in layout.fields:
                        kind = ir.VectorType(elements[k], width) if width > 1 else elements[k]
                        columns[k] = read(builder, here[k], kind, INT64(0), width * dtypes[k].itemsize)
                    rows = []
                    for lane in range(width):
                        stored = {
                            k: builder.extract_element(c, INT32(lane)) if width > 1 else c for k, c in columns.items()
                        }
                        rows.append(decode(context, builder, stored, args[2]))
                    return context.make_tuple(builder, result, rows)

                return result(addresses_type, types.int64, scales_type), codegen

            return load

        def stores(width):
            @intrinsic
            def store(typingctx, addresses, i, values, rand, scales):
                if tuple(values.types) != (written,) * width:
                    raise TypeError(f"a rule returned {values} where the arrays hold {written}")

                def codegen(context, builder, signature, args):
                    here = moved(builder, args[0], args[1])
                    columns: dict[int, Any] = {}
                    rand = args[3]
                    for lane in range(width):
                        values = builder.extract_value(args[2], lane)
                        for k, part in encode(builder, values, rand, args[4]):
                            so_far = columns.get(k, ir.Constant(ir.VectorType(elements[k], width), ir.Undefined))
                            whole = width == 1
                            columns[k] = part if whole else builder.insert_element(so_far, part, INT32(lane))
                        rand = random_bits.next_bits(builder, rand)
                    for k, value in columns.items():
                        write(builder, value, here[k], INT64(0), width * dtypes[k].itemsize)
                    return context.get_dummy_value()

                return types.none(addresses_type, types.int64, values, types.uint32, scales_type), codegen

            return store

        @intrinsic
        def load_some(typingctx, addresses, i, n, scales):
            result = types.UniTuple(row, lanes)

            def codegen(context, builder, signature, args):
                last = builder.sub(args[2], INT64(1))
                rows = []
                for lane in range(lanes):
                    i = builder.add(args[1], INT64(lane))
                    i = builder.select(builder.icmp_signed("<", i, last), i, last)
                    here = moved(builder, args[0], i)
                    stored = {
                        k: read(builder, here[k], elements[k], INT64(0), dtypes[k].itemsize) for k in layout.fields
                    }
                    rows.append(decode(context, builder, stored, args[3]))
                return context.make_tuple(builder, result, rows)

            return result(addresses_type, types.int64, types.int64, scales_type), codegen

        @intrinsic
        def store_some(typingctx, addresses, i, n, values, rand, scales):
            def codegen(context, builder, signature, args):
                rand = args[4]
                for lane in range(lanes):
                    i = builder.add(args[1], INT64(lane))
                    parts = list(encode(builder, builder.extract_value(args[3], lane), rand, args[5]))
                    with builder.if_then(builder.icmp_signed("<", i, args[2])):
                        here = moved(builder, args[0], i)
                        for k, part in parts:
                            write(builder, part, here[k], INT64(0), dtypes[k].itemsize)
                    rand = random_bits.next_bits(builder, rand)
                return context.get_dummy_value()

            return types.none(addresses_type, types.int64, types.int64, values, types.uint32, scales_type), codegen

        @intrinsic
        def load_scalars(typingctx, address):
            result = types.UniTuple(compute_type, scalars)

            def codegen(context, builder, signature, args):
                size = layout.compute.itemsize
                found = [read(builder, args[0], compute, INT64(k), size) for k in range(scalars)]
                return context.make_tuple(builder, result, found)

            return result(types.uint64), codegen

        @intrinsic
        def store_scalars(typingctx, address, values):
            def codegen(context, builder, signature, args):
                for k, given in enumerate(signature.args[1]):
                    value = context.cast(builder, builder.extract_value(args[1], k), given, compute_type)
                    write(builder, value, args[0], INT64(k), layout.compute.itemsize)
                return context.get_dummy_value()

            return types.none(types.uint64, values), codegen

        @intrinsic
        def count_step(typingctx, clock):
            result = types.UniTuple(types.float64, 2)

            def codegen(context, builder, signature, args):
                step = builder.add(read(builder, args[0], INT64, INT64(0), 8), INT64(1))
                write(builder, step, args[0], INT64(0), 8)
                lr = read(builder, args[0], ELEMENTS["float64"], INT64(1), 8)
                return context.make_tuple(builder, result, [builder.sitofp(step, ELEMENTS["float64"]), lr])

            return result(types.uint64), codegen

        @intrinsic
        def read_step(typingctx, clock):
            def codegen(context, builder, signature, args):
                return read(builder, args[0], INT64, INT64(0), 8)

            return types.int64(types.uint64), codegen

        #: ``column(table, tensors, t)``: the addresses of tensor `t`, one per array.
        self.column = column
        #: ``chunk(chunks, c)``: tensor, start and length of chunk `c`.
        self.chunk = chunk
        #: ``advance(addresses, i)``: the addresses of element `i`, which begins a block where there are scales.
        self.advance = advance
        #: ``aligned(addresses)``: whether `lanes` elements can be moved at a time.
        self.aligned = aligned
        #: ``load_one(addresses, i, scales)``, ``load_packed``: for each of 1 or `lanes` elements, its numbers.
        self.load_one, self.load_packed = loads(1), loads(lanes)
        #: ``store_one(addresses, i, values, rand, scales)``, ``store_packed``: write them, but for the gradient.
        #: `rand` is the random bits of the first element.
        self.store_one, self.store_packed = stores(1), stores(lanes)
        #: ``load_some(addresses, i, n, scales)``: as `load_packed`, with the last of `n` elements for those beyond it.
        self.load_some = load_some
        #: ``store_some(addresses, i, n, values, rand, scales)``: as `store_packed`, but for those beyond `n` elements.
        self.store_some = store_some
        #: What :func:`fastopt._kernels.cuda_blocks.scale_intrinsics` returns.
        self.scales, self.store_scales, self.absmaxes, self.rescale = scale_intrinsics(layout, lanes)
        #: ``key(seed, step, tensor, first)``, ``bits_at(key, i)``: as in :mod:`fastopt._storage.random_bits`.
        self.key, self.bits_at, _ = random_bits.intrinsics(intrinsic, types)
        #: ``load_scalars(address)``: the scalars of a step, from the device.
        self.load_scalars = load_scalars
        #: ``store_scalars(address, values)``: write them, rounded to the dtype of the arithmetic.
        self.store_scalars = store_scalars
        #: ``count_step(clock)``: add one to the step number on the device; return it, and `lr`, as float64.
        self.count_step = count_step
        #: ``read_step(clock)``: the step number on the device.
        self.read_step = read_step

    def rule(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Return a rule for use in a kernel."""
        device: Callable[..., Any] = register_jitable(rule)
        return device
