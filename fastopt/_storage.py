"""How an element is loaded and stored.

The sweeps see tensors as addresses. These intrinsics turn an address and an index into typed
loads and stores, for all arrays of a tensor at once, so that one sweep serves every number of
arrays. They are the only place that knows about pointers.

Every load and store says to LLVM that the arrays of one tensor do not overlap (alias scopes), which
:mod:`fastopt._arrays` has checked. Without that, LLVM guards the packed loop with one comparison
per pair of arrays and compiles the loop twice. The promise holds within one call only: two calls in
sequence may use the same memory in different roles. The function that holds such a load is
therefore never inlined.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

INT64 = ir.IntType(64)


def _array(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    from numba.np.arrayobj import make_array  # 25 ms, and needed only when a kernel is compiled

    return make_array(kind)(context, builder, value)


def _scopes(builder: ir.IRBuilder, index: int, count: int) -> tuple[Any, Any]:
    """Return the metadata "in array `index`" and "in none of the other arrays"."""
    module = builder.module
    domain = module.add_metadata(["fastopt"])
    scopes = [module.add_metadata([f"fastopt.{j}", domain]) for j in range(count)]
    others = [scope for j, scope in enumerate(scopes) if j != index]
    return module.add_metadata([scopes[index]]), module.add_metadata(others)


def _pointer(context: Any, builder: Any, addresses: Any, array: int, i: Any, dtype: Any) -> Any:
    """Return the pointer to element `i` of array number `array`."""
    element = context.get_value_type(dtype)
    base = builder.inttoptr(builder.extract_value(addresses, array), element.as_pointer())
    return builder.gep(base, [i])


def _annotate(builder: Any, instruction: Any, array: int, count: int) -> None:
    builder.function.attributes.add("noinline")
    scope, others = _scopes(builder, array, count)
    instruction.set_metadata("alias.scope", scope)
    instruction.set_metadata("noalias", others)


@intrinsic
def load(typingctx, addresses, i, layout):
    """Return element `i` of every array: ``(a[i] for a in addresses)``.

    `layout` is the tuple of the arrays' dtypes.
    """
    result = types.Tuple([dtype.dtype for dtype in layout])

    def codegen(context, builder, signature, args):
        values = []
        for k, dtype in enumerate(result):
            value = builder.load(_pointer(context, builder, args[0], k, args[1], dtype))
            _annotate(builder, value, k, len(result))
            values.append(value)
        return context.make_tuple(builder, result, values)

    return result(addresses, types.intp, layout), codegen


@intrinsic
def store(typingctx, addresses, i, values, layout):
    """Write `values` to element `i` of every array but the first: the gradient is only read."""
    arrays = [dtype.dtype for dtype in layout]
    if len(values) != len(arrays) - 1 or any(value != array for value, array in zip(values, arrays[1:], strict=True)):
        raise TypeError(f"a rule returned {values} where the arrays hold {arrays[1:]}")

    def codegen(context, builder, signature, args):
        for k in range(1, len(arrays)):
            pointer = _pointer(context, builder, args[0], k, args[1], arrays[k])
            value = builder.extract_value(args[2], k - 1)
            _annotate(builder, builder.store(value, pointer), k, len(arrays))
        return context.get_dummy_value()

    return types.none(addresses, types.intp, values, layout), codegen


@intrinsic
def column(typingctx, table, j, layout):
    """Return column `j` of a 2-D table of addresses as a tuple, one address per array."""
    result = types.UniTuple(types.uint64, len(layout))

    def codegen(context, builder, signature, args):
        array = _array(context, builder, signature.args[0], args[0])
        width = builder.extract_value(array.shape, 1)
        addresses = []
        for k in range(len(layout)):
            index = builder.add(builder.mul(INT64(k), width), args[1])
            addresses.append(builder.load(builder.gep(array.data, [index])))
        return context.make_tuple(builder, result, addresses)

    return result(table, types.intp, layout), codegen


@intrinsic
def advance(typingctx, addresses, i, layout):
    """Return the addresses of element `i` of every array."""

    def codegen(context, builder, signature, args):
        moved = []
        for k, dtype in enumerate(layout):
            pointer = _pointer(context, builder, args[0], k, args[1], dtype.dtype)
            moved.append(builder.ptrtoint(pointer, INT64))
        return context.make_tuple(builder, addresses, moved)

    return addresses(addresses, types.intp, layout), codegen


@intrinsic
def unpack(typingctx, array, layout):
    """Return the first elements of a 1-D array as a tuple, one for each entry of `layout`."""
    result = types.UniTuple(array.dtype, len(layout))

    def codegen(context, builder, signature, args):
        data = _array(context, builder, signature.args[0], args[0]).data
        values = [builder.load(builder.gep(data, [INT64(k)])) for k in range(len(layout))]
        return context.make_tuple(builder, result, values)

    return result(array, layout), codegen


def _peek(kind: Any, width: ir.IntType, doc: str) -> Any:
    @intrinsic
    def peek(typingctx, address):
        def codegen(context, builder, signature, args):
            value = builder.load(builder.inttoptr(args[0], width.as_pointer()))
            return value if width is INT64 else builder.sext(value, INT64)

        return types.int64(types.int64), codegen

    peek.__doc__ = doc
    return peek


peek_int64 = _peek(types.int64, INT64, "Return the 64-bit integer at an address.")
peek_int32 = _peek(types.int32, ir.IntType(32), "Return the 32-bit integer at an address.")
peek_int8 = _peek(types.int8, ir.IntType(8), "Return the 8-bit integer at an address.")
