"""How the elements of a tensor are loaded and stored on the CPU.

The sweeps see tensors as addresses. These intrinsics turn an address and an index into typed
loads and stores, for all arrays of a tensor at once, so that one sweep serves every number of
arrays. They are the only place that knows about pointers; what lies there, :mod:`fastopt._storage.codecs` knows.
`layout` is the names of the codecs as one string, which the caller closes over.

Every load and store says to LLVM that the arrays of one tensor do not overlap (alias scopes), which
:mod:`fastopt._arrays.checks` has checked. Without that, LLVM guards the packed loop with one comparison
per pair of arrays and compiles the loop twice. The promise holds within one call only: two calls in
sequence may use the same memory in different roles. The function that holds such a load is
therefore never inlined.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._storage import random_bits
from .._storage.codecs import ELEMENTS, FLOAT
from .._storage.float16 import converting
from .._storage.layout import Layout
from .._storage.layout import layout as layout_of
from .._storage.random_bits import INT64


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


class Memory:
    """The arrays of a tensor in a function that is being generated.

    A block's new numbers are kept until its scales are known: that is one more array for each codec with a scale,
    after all others.
    """

    def __init__(self, builder: Any, addresses: Any, layout: Layout) -> None:
        self._builder, self._addresses, self._layout = builder, addresses, layout
        self._elements = [ELEMENTS[dtype.name] for dtype in layout.dtypes] + [FLOAT] * len(layout.scales)

    def _pointer(self, array: int, i: Any, kind: Any) -> Any:
        base = self._builder.extract_value(self._addresses, array)
        return self._builder.gep(self._builder.inttoptr(base, kind.as_pointer()), [i])

    def load(self, array: int, i: Any) -> Any:
        value = self._builder.load(self._pointer(array, i, self._elements[array]))
        self._annotate(value, array)
        return value

    def store(self, value: Any, array: int, i: Any) -> None:
        self._annotate(self._builder.store(value, self._pointer(array, i, self._elements[array])), array)

    def load_pair(self, array: int, i: Any) -> list[Any]:
        """Return elements 2 `i` and 2 `i` + 1, read as one integer."""
        b, element, bits = self._builder, self._elements[array], self._bits(array)
        both = b.load(self._pointer(array, i, ir.IntType(2 * bits)))
        both.align = bits // 8
        self._annotate(both, array)
        halves = [both, b.lshr(both, both.type(bits))]
        return [b.bitcast(b.trunc(half, ir.IntType(bits)), element) for half in halves]

    def store_pair(self, pair: list[Any], array: int, i: Any) -> None:
        """Write elements 2 `i` and 2 `i` + 1 as one integer."""
        b, bits = self._builder, self._bits(array)
        whole = ir.IntType(2 * bits)
        low, high = (b.zext(b.bitcast(part, ir.IntType(bits)), whole) for part in pair)
        instruction = b.store(b.or_(low, b.shl(high, whole(bits))), self._pointer(array, i, whole))
        instruction.align = bits // 8
        self._annotate(instruction, array)

    def _bits(self, array: int) -> int:
        return 8 * self._layout.dtypes[array].itemsize

    def _annotate(self, instruction: Any, array: int) -> None:
        self._builder.function.attributes.add("noinline")
        scope, others = _scopes(self._builder, array, len(self._elements))
        instruction.set_metadata("alias.scope", scope)
        instruction.set_metadata("noalias", others)

    def scratch(self, scaled: int) -> int:
        """Return the array that keeps the new numbers of codec number `scaled`."""
        return len(self._layout.dtypes) + list(self._layout.scales).index(scaled)


def compute_type(layout: Layout) -> Any:
    return types.float64 if layout.compute.itemsize == 8 else types.float32


@intrinsic(prefer_literal=True)
def load(typingctx, addresses, i, layout, scales, nonfinite):
    """Return element `i` of the gradient, the parameter and every state, as numbers.

    `nonfinite`: blocks of which a scale is marked.
    """
    arrays = layout_of(layout.literal_value)
    compute = ELEMENTS[arrays.compute.name]
    result = types.UniTuple(compute_type(arrays), len(arrays.codecs))

    def codegen(context, builder, signature, args):
        memory, converter = Memory(builder, args[0], arrays), converting(builder)
        values = []
        for k, codec in enumerate(arrays.codecs):
            stored = [memory.load(row, args[1]) for row in arrays.rows[k]]
            scale = arrays.scale(builder, args[3], k)
            values.append(codec.read(converter, stored, compute, scale, nonfinite.literal_value))
        return context.make_tuple(builder, result, values)

    return result(addresses, types.intp, layout, scales, nonfinite), codegen


@intrinsic(prefer_literal=True)
def store(typingctx, addresses, i, values, layout, rand, scales):
    """Write `values` to element `i` of every array but the first: the gradient is only read.

    `rand` is 32 random bits, for the formats with stochastic rounding.
    """
    arrays = layout_of(layout.literal_value)
    compute = compute_type(arrays)
    if len(values) != len(arrays.codecs) - 1 or any(value != compute for value in values):
        raise TypeError(f"a rule returned {values} where it computes with {compute}")

    def codegen(context, builder, signature, args):
        memory, converter = Memory(builder, args[0], arrays), converting(builder)
        for k, codec in enumerate(arrays.codecs[1:], 1):
            value = builder.extract_value(args[2], k - 1)
            stored = codec.write(converter, value, args[4], arrays.scale(builder, args[5], k))
            for row, part in zip(arrays.rows[k], stored, strict=True):
                memory.store(part, row, args[1])
            if codec.scaled:
                memory.store(value, memory.scratch(k), args[1])
        return context.get_dummy_value()

    return types.none(addresses, types.intp, values, layout, types.uint32, scales), codegen


key, bits_at, next_bits = random_bits.intrinsics(intrinsic, types)


@intrinsic(prefer_literal=True)
def column(typingctx, table, j, layout):
    """Return column `j` of a 2-D table of addresses as a tuple, one address per array."""
    count = len(layout_of(layout.literal_value).dtypes)
    result = types.UniTuple(types.uint64, count)

    def codegen(context, builder, signature, args):
        array = _array(context, builder, signature.args[0], args[0])
        width = builder.extract_value(array.shape, 1)
        addresses = []
        for k in range(count):
            index = builder.add(builder.mul(INT64(k), width), args[1])
            addresses.append(builder.load(builder.gep(array.data, [index])))
        return context.make_tuple(builder, result, addresses)

    return result(table, types.intp, layout), codegen


@intrinsic(prefer_literal=True)
def advance(typingctx, addresses, i, layout):
    """Return the addresses of element `i` of every array; it begins a block where there are scales."""
    arrays = layout_of(layout.literal_value)

    def codegen(context, builder, signature, args):
        moved = [builder.extract_value(args[0], k) for k in range(len(addresses))]
        for k in range(len(arrays.dtypes)):
            moved[k] = builder.add(moved[k], arrays.offset(builder, k, args[1]))
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
