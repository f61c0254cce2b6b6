"""Tuples of arrays and of numbers in compiled code, for updates inside a user's own."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .cache import Present


@intrinsic(prefer_literal=True)
def depends_on(typingctx: Any, contents: Any) -> Any:
    """Have Numba load the code around this from its cache only where `contents` is in ``cache.present``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # What is called after loading, of all that is linked together; it is kept beside the code.
        context.active_code_library._reload_init.add(Present(contents.literal_value))
        return context.get_dummy_value()

    return types.none(contents), codegen


@intrinsic
def addresses(typingctx: Any, arrays: Any) -> Any:
    """Return the address of the first element of every array of a tuple."""
    result = types.UniTuple(types.uint64, len(arrays))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from numba.np.arrayobj import make_array

        found = []
        for k, kind in enumerate(arrays):
            array = make_array(kind)(context, builder, builder.extract_value(args[0], k))
            found.append(builder.ptrtoint(array.data, context.get_value_type(types.uint64)))
        return context.make_tuple(builder, result, found)

    return result(arrays), codegen


@intrinsic
def shapes(typingctx: Any, arrays: Any) -> Any:
    """Return the shape of every array of a tuple; all have the same number of dimensions."""
    shape = types.UniTuple(types.intp, arrays[0].ndim)
    result = types.UniTuple(shape, len(arrays))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from numba.np.arrayobj import make_array

        found = []
        for k, kind in enumerate(arrays):
            array = make_array(kind)(context, builder, builder.extract_value(args[0], k))
            found.append(array.shape)
        return context.make_tuple(builder, result, found)

    return result(arrays), codegen


@intrinsic
def cast(typingctx: Any, values: Any, cast: Any) -> Any:
    """Return a tuple of float64 as a tuple of another float type."""
    result = types.UniTuple(cast.instance_type, len(values))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = [
            context.cast(builder, builder.extract_value(args[0], k), kind, cast.instance_type)
            for k, kind in enumerate(values)
        ]
        return context.make_tuple(builder, result, numbers)

    return result(values, cast), codegen
