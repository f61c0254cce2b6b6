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

INT16, INT32, INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOAT = ir.FloatType()
# What lies in memory, by the dtype that `layout` has for it; uint16 stands for bfloat16.
_ELEMENTS = {
    types.float64: ir.DoubleType(),
    types.float32: FLOAT,
    types.float16: ir.HalfType(),
    types.uint16: INT16,
}


def _widen(builder: Any, value: Any, stored: Any, compute: Any) -> Any:
    """Return an element as a number of the compute type, which holds every value of the other formats exactly."""
    if stored == types.uint16:  # the upper half of a float32
        return builder.bitcast(builder.shl(builder.zext(value, INT32), INT32(16)), FLOAT)
    return value if stored == compute else builder.fpext(value, _ELEMENTS[compute])


def _narrow(builder: Any, value: Any, compute: Any, stored: Any, noise: Any) -> Any:
    """Return a number as it is stored, rounded to the nearest, ties to even; NaN stays NaN.

    To bfloat16 it is rounded at random, up as often as it is near to the number above: an average that is decayed by
    0.999 changes by less than half a unit of its 8 bits, and would stand still if it were rounded to the nearest.
    """
    if stored != types.uint16:
        return value if stored == compute else builder.fptrunc(value, _ELEMENTS[stored])
    bits = builder.bitcast(value, INT32)
    rounded = builder.add(bits, builder.and_(noise, INT32(0xFFFF)))
    quiet = builder.or_(bits, INT32(0x400000))  # rounding could carry a NaN into the sign
    bits = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(builder.lshr(bits, INT32(16)), INT16)


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
    element = _ELEMENTS[dtype]
    base = builder.inttoptr(builder.extract_value(addresses, array), element.as_pointer())
    return builder.gep(base, [i])


def _annotate(builder: Any, instruction: Any, array: int, count: int) -> None:
    builder.function.attributes.add("noinline")
    scope, others = _scopes(builder, array, count)
    instruction.set_metadata("alias.scope", scope)
    instruction.set_metadata("noalias", others)


@intrinsic
def load(typingctx, addresses, i, layout):
    """Return element `i` of every array: ``(a[i] for a in addresses)``, as numbers of the dtype of the parameter.

    `layout` is the tuple of the arrays' dtypes.
    """
    stored, compute = [dtype.dtype for dtype in layout], layout[1].dtype
    result = types.Tuple([compute for _ in stored])

    def codegen(context, builder, signature, args):
        values = []
        for k, dtype in enumerate(stored):
            value = builder.load(_pointer(context, builder, args[0], k, args[1], dtype))
            _annotate(builder, value, k, len(result))
            values.append(_widen(builder, value, dtype, compute))
        return context.make_tuple(builder, result, values)

    return result(addresses, types.intp, layout), codegen


@intrinsic
def store(typingctx, addresses, i, values, layout, noise):
    """Write `values` to element `i` of every array but the first: the gradient is only read.

    `noise` is 32 random bits, for the formats that are rounded at random: each takes 16.
    """
    arrays, compute = [dtype.dtype for dtype in layout], layout[1].dtype
    if len(values) != len(arrays) - 1 or any(value != compute for value in values):
        raise TypeError(f"a rule returned {values} where it computes with {compute}")

    def codegen(context, builder, signature, args):
        for k in range(1, len(arrays)):
            pointer = _pointer(context, builder, args[0], k, args[1], arrays[k])
            own = builder.lshr(args[4], INT32(16 * (k % 2)))
            value = _narrow(builder, builder.extract_value(args[2], k - 1), compute, arrays[k], own)
            _annotate(builder, builder.store(value, pointer), k, len(arrays))
        return context.get_dummy_value()

    return types.none(addresses, types.intp, values, layout, types.uint32), codegen


# 2^32 over the golden ratio: multiples of it are spread evenly, in all their bits and in the lower half.
_WEYL = 0x9E3779B9


def _mix(builder: Any, bits: Any) -> Any:
    """Return 32 bits of which each depends on all of `bits`; C. Wellons' function "lowbias32"."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        bits = builder.mul(builder.xor(bits, builder.lshr(bits, INT32(shift))), INT32(factor))
    return bits


@intrinsic
def key(typingctx, step, tensor, first):
    """Return the key of the random bits of a tensor in a step, for the 2^32 elements that element `first` is among."""

    def codegen(context, builder, signature, args):
        bits = INT32(0)
        step, tensor, first = args
        for number in (step, builder.lshr(step, INT64(32)), tensor, builder.lshr(first, INT64(32))):
            bits = _mix(builder, builder.add(builder.xor(bits, builder.trunc(number, INT32)), INT32(_WEYL)))
        return bits

    return types.uint32(types.int64, types.int64, types.int64), codegen


@intrinsic
def noise(typingctx, key, i):
    """Return 32 random bits that depend on the key and the number of the element alone.

    Over the steps, whose keys are independent, those of an element are too. Within a step they are a Weyl sequence,
    spread evenly over the elements, from a random start: one addition an element, where a hash would take as long as
    the rest of Adam.
    """

    def codegen(context, builder, signature, args):
        return builder.add(args[0], builder.mul(builder.trunc(args[1], INT32), INT32(_WEYL)))

    return types.uint32(types.uint32, types.int64), codegen


@intrinsic
def following(typingctx, noise):
    """Return the random bits of the next element."""

    def codegen(context, builder, signature, args):
        return builder.add(args[0], INT32(_WEYL))

    return types.uint32(types.uint32), codegen


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
