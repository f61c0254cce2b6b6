"""How a kernel on a GPU reads and writes: the counterpart of :mod:`fastopt._storage`.

The intrinsics of one kernel are made together, for its arrays' dtypes, so that no dtype needs to be an argument. Memory
is addressed as global memory, and a thread moves 16 bytes of each array at a time where all of them are aligned so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic
from numba.extending import register_jitable

INT32, INT64 = ir.IntType(32), ir.IntType(64)
_IR = {"float32": ir.FloatType(), "float64": ir.DoubleType(), "int64": INT64}
#: The address space of global memory.
_GLOBAL = 1


def _pointer(builder: Any, address: Any, element: Any, i: Any = None) -> Any:
    base = builder.inttoptr(address, element.as_pointer(_GLOBAL))
    return base if i is None else builder.gep(base, [i])


def _read(builder: Any, address: Any, element: Any, i: Any, align: int) -> Any:
    value = builder.load(_pointer(builder, address, element, i))
    value.align = align
    return value


def _write(builder: Any, value: Any, address: Any, i: Any, align: int) -> None:
    builder.store(value, _pointer(builder, address, value.type, i)).align = align


class Storage:
    """The intrinsics of a kernel.

    Parameters
    ----------
    dtypes : sequence of numpy.dtype
        Of the gradient, the parameter and the states.
    lanes : int
        How many elements of each array are moved at a time.
    scalars : int
        How many scalars the rule takes.
    """

    def __init__(self, dtypes: Sequence[np.dtype[Any]], lanes: int, scalars: int) -> None:
        names = [dtype.name for dtype in dtypes]
        elements = [_IR[name] for name in names]
        row = types.Tuple([getattr(types, name) for name in names])
        written = types.Tuple([getattr(types, name) for name in names[1:]])
        addresses_type = types.UniTuple(types.uint64, len(names))
        compute = getattr(types, names[0])

        @intrinsic
        def column(typingctx, table, tensors, t):
            def codegen(context, builder, signature, args):
                found = []
                for k in range(len(names)):
                    index = builder.add(builder.mul(INT64(k), args[1]), args[2])
                    found.append(_read(builder, args[0], INT64, index, 8))
                return context.make_tuple(builder, addresses_type, found)

            return addresses_type(types.uint64, types.int64, types.int64), codegen

        @intrinsic
        def chunk(typingctx, chunks, c):
            result = types.UniTuple(types.int64, 3)

            def codegen(context, builder, signature, args):
                first = builder.mul(args[1], INT64(3))
                found = [_read(builder, args[0], INT64, builder.add(first, INT64(k)), 8) for k in range(3)]
                return context.make_tuple(builder, result, found)

            return result(types.uint64, types.int64), codegen

        @intrinsic
        def advance(typingctx, addresses, i):
            def codegen(context, builder, signature, args):
                moved = []
                for k, dtype in enumerate(dtypes):
                    offset = builder.mul(args[1], INT64(dtype.itemsize))
                    moved.append(builder.add(builder.extract_value(args[0], k), offset))
                return context.make_tuple(builder, addresses_type, moved)

            return addresses_type(addresses_type, types.int64), codegen

        @intrinsic
        def aligned(typingctx, addresses):
            def codegen(context, builder, signature, args):
                low = INT64(0)
                for k, dtype in enumerate(dtypes):
                    mask = INT64(lanes * dtype.itemsize - 1)
                    low = builder.or_(low, builder.and_(builder.extract_value(args[0], k), mask))
                return builder.icmp_unsigned("==", low, INT64(0))

            return types.boolean(addresses_type), codegen

        def loads(width):
            result = types.UniTuple(row, width)

            @intrinsic
            def load(typingctx, addresses, i):
                def codegen(context, builder, signature, args):
                    here = advance_ir(builder, args)
                    columns = []
                    for address, element, dtype in zip(here, elements, dtypes, strict=True):
                        kind = ir.VectorType(element, width) if width > 1 else element
                        columns.append(_read(builder, address, kind, INT64(0), width * dtype.itemsize))
                    rows = []
                    for lane in range(width):
                        items = [builder.extract_element(c, INT32(lane)) if width > 1 else c for c in columns]
                        rows.append(context.make_tuple(builder, row, items))
                    return context.make_tuple(builder, result, rows)

                return result(addresses_type, types.int64), codegen

            return load

        def stores(width):
            @intrinsic
            def store(typingctx, addresses, i, values):
                if tuple(values.types) != (written,) * width:
                    raise TypeError(f"a rule returned {values} where the arrays hold {written}")

                def codegen(context, builder, signature, args):
                    here = advance_ir(builder, args)
                    for k in range(1, len(names)):
                        items = [builder.extract_value(args[2], [lane, k - 1]) for lane in range(width)]
                        value = items[0]
                        if width > 1:
                            value = ir.Constant(ir.VectorType(elements[k], width), ir.Undefined)
                            for lane, item in enumerate(items):
                                value = builder.insert_element(value, item, INT32(lane))
                        _write(builder, value, here[k], INT64(0), width * dtypes[k].itemsize)
                    return context.get_dummy_value()

                return types.none(addresses_type, types.int64, values), codegen

            return store

        def advance_ir(builder, args):
            return [
                builder.add(builder.extract_value(args[0], k), builder.mul(args[1], INT64(dtype.itemsize)))
                for k, dtype in enumerate(dtypes)
            ]

        @intrinsic
        def fetch(typingctx, address):
            result = types.UniTuple(compute, scalars)

            def codegen(context, builder, signature, args):
                size = dtypes[0].itemsize
                found = [_read(builder, args[0], elements[0], INT64(k), size) for k in range(scalars)]
                return context.make_tuple(builder, result, found)

            return result(types.uint64), codegen

        @intrinsic
        def put(typingctx, address, values):
            def codegen(context, builder, signature, args):
                for k, given in enumerate(signature.args[1]):
                    value = context.cast(builder, builder.extract_value(args[1], k), given, compute)
                    _write(builder, value, args[0], INT64(k), dtypes[0].itemsize)
                return context.get_dummy_value()

            return types.none(types.uint64, values), codegen

        @intrinsic
        def tick(typingctx, clock):
            result = types.UniTuple(types.float64, 2)

            def codegen(context, builder, signature, args):
                step = builder.add(_read(builder, args[0], INT64, INT64(0), 8), INT64(1))
                _write(builder, step, args[0], INT64(0), 8)
                lr = _read(builder, args[0], _IR["float64"], INT64(1), 8)
                return context.make_tuple(builder, result, [builder.sitofp(step, _IR["float64"]), lr])

            return result(types.uint64), codegen

        #: ``column(table, tensors, t)``: the addresses of tensor `t`, one per array.
        self.column = column
        #: ``chunk(chunks, c)``: tensor, start and length of chunk `c`.
        self.chunk = chunk
        #: ``advance(addresses, i)``: the addresses of element `i`.
        self.advance = advance
        #: ``aligned(addresses)``: whether `lanes` elements can be moved at a time.
        self.aligned = aligned
        #: ``load_one(addresses, i)``, ``load_packed``: for each of 1 or `lanes` elements, its value in every array.
        self.load_one, self.load_packed = loads(1), loads(lanes)
        #: ``store_one(addresses, i, values)``, ``store_packed``: write them, to all arrays but the gradient.
        self.store_one, self.store_packed = stores(1), stores(lanes)
        #: ``fetch(address)``: the scalars of a step, from the device.
        self.fetch = fetch
        #: ``put(address, values)``: write them, rounded to the dtype of the arrays.
        self.put = put
        #: ``tick(clock)``: add one to the step number on the device; return it, and `lr`, as float64.
        self.tick = tick

    def rule(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Return a rule for use in a kernel."""
        device: Callable[..., Any] = register_jitable(rule)
        return device
