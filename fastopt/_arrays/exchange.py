"""Reading tensors from compiled code, by the table of functions that DLPack has a library give for its type.

A step must look at every tensor: is it where it was, and does it lie as it must? In Python that is 0.3 µs a tensor.
The table and ``DLTensor`` are those of DLPack 1.3 (``DLPackExchangeAPI`` in ``dlpack.h``), whose places are fixed
within a major version.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .headers import LIST_ITEMS, LIST_SIZE, TYPE, peek_int32, peek_int64

_NAME, _MAJOR = b"dlpack_exchange_api", 1
#: Of the table: the address of what fills a ``DLTensor`` from an object, after the header and three others.
_DESCRIBE = 5 * 8
#: Of ``DLTensor``: data, device, dimensions and dtype, shape, strides, offset.
DEVICE, FORMAT, _SHAPE, _STRIDES, _OFFSET, SIZE = 8, 16, 24, 32, 40, 48


#: Made once: ctypes makes a class of it.
_PROTOTYPE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)


def function_of(kind: Any) -> int:
    """Return the address of the function that describes a tensor of a type, or 0 if there is none."""
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if type(capsule).__name__ != "PyCapsule":
        return 0
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = get(capsule, _NAME)
    if ctypes.c_uint32.from_address(table).value != _MAJOR:
        return 0
    return ctypes.c_size_t.from_address(table + _DESCRIBE).value


@intrinsic
def describe(typingctx, function, tensor, out):
    """Have the function at an address describe the tensor at `tensor` at `out`, and return 0 if it could."""

    def codegen(context, builder, signature, args):
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(word, [pointer, pointer]).as_pointer()
        given = [builder.inttoptr(a, pointer) for a in args[1:]]
        answer = builder.call(builder.inttoptr(args[0], kind), given)
        with builder.if_then(builder.icmp_signed("!=", answer, word(0))):
            context.get_python_api(builder).err_clear()
        return builder.sext(answer, ir.IntType(64))

    return types.int64(types.int64, types.int64, types.int64), codegen


def where(function, given, kinds, expected, dims, out, found):
    """Write where the tensors of a list are to `found`, and say whether all lie as is expected.

    `given` is the identity of the list, `kinds` are those of the types that they may have. The rows of `expected` are
    the device, the number of dimensions with the dtype, and where in `dims` shape and strides begin. `out` is the
    address of memory for a description.
    """
    if peek_int64(given + LIST_SIZE) != expected.shape[1]:
        return False
    items = peek_int64(given + LIST_ITEMS)
    for t in range(expected.shape[1]):
        tensor = peek_int64(items + 8 * t)
        known = False
        for k in range(kinds.shape[0]):
            known |= peek_int64(tensor + TYPE) == kinds[k]
        if not known or describe(function, tensor, out) != 0:
            return False
        if peek_int64(out + DEVICE) != expected[0, t] or peek_int64(out + FORMAT) != expected[1, t]:
            return False
        place, count = expected[2, t], peek_int32(out + FORMAT)
        shape, strides = peek_int64(out + _SHAPE), peek_int64(out + _STRIDES)
        if count > 0 and (shape == 0 or strides == 0):
            return False
        for d in range(count):
            if peek_int64(shape + 8 * d) != dims[place + d] or peek_int64(strides + 8 * d) != dims[place + count + d]:
                return False
        found[t] = peek_int64(out) + peek_int64(out + _OFFSET)
    return True


def description(function: int, tensor: Any) -> tuple[int, int, list[int]] | None:
    """Return the device, the number of dimensions with the dtype, and shape and strides of a tensor; None without."""
    out = (ctypes.c_int64 * (SIZE // 8))()
    call = _PROTOTYPE(function)
    try:
        call(tensor, ctypes.addressof(out))
    except (RuntimeError, ValueError, TypeError, NotImplementedError, BufferError):  # as the library has it
        return None
    count = out[FORMAT // 8] & 0xFFFFFFFF
    words = ctypes.c_int64 * count
    if count and not (out[_SHAPE // 8] and out[_STRIDES // 8]):
        return None
    dims = [*words.from_address(out[_SHAPE // 8]), *words.from_address(out[_STRIDES // 8])] if count else []
    return out[DEVICE // 8], out[FORMAT // 8], dims
