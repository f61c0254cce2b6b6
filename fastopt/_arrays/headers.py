"""Reading an array's header from compiled code.

A step must look at every gradient: is it still an array of the right dtype, shape and memory order,
and where is it? In Python that is 1.5 µs an array (``a.ctypes.data`` alone 0.9 µs), far more than
updating a small tensor takes. The fields below are the ones that NumPy's own header file compiles
into every extension module (``PyArrayObject_fields`` in ``ndarraytypes.h``), so their places cannot
move without breaking all of them. :func:`probe` compares them with what Python says before they are
first relied on.

False from :func:`same_layout` means "check in Python", not "wrong": a memory map is an array too. What decides is
:mod:`fastopt._arrays.checks`.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

INT64 = ir.IntType(64)
_HEAD = object.__basicsize__
TYPE = _HEAD - 8
_DATA = _HEAD
_NDIM = _HEAD + 8
_SHAPE = _HEAD + 16
_STRIDES = _HEAD + 24
_DESCR = _HEAD + 40
_FLAGS = _HEAD + 48
_DESCR_BYTEORDER = _HEAD + 10
_DESCR_TYPE_NUMBER = _HEAD + 12
# Of a list: `ob_size` and `ob_item`.
LIST_SIZE = _HEAD
LIST_ITEMS = _HEAD + 8

_CONTIGUOUS = 0x1 | 0x2  # in C or in Fortran order
_ALIGNED = 0x100
_WRITEABLE = 0x400
_NATIVE = ord("=")


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


@register_jitable
def data_address(array):
    """Return the address of the first element of the array object at `array`."""
    return peek_int64(array + _DATA)


@register_jitable
def writable(array):
    """Say whether the array object at `array` may be written to."""
    return peek_int32(array + _FLAGS) & _WRITEABLE != 0


@register_jitable
def element_count(array):
    """Return the number of elements of the array object at `array`."""
    count = 1
    for d in range(peek_int32(array + _NDIM)):
        count *= peek_int64(peek_int64(array + _SHAPE) + 8 * d)
    return count


@register_jitable
def same_layout(array, like, ndarray, type_number, itemsize, like_itemsize):
    """Say whether `array` is surely a contiguous ndarray of this dtype, shaped and ordered as `like`.

    `array` and `like` are identities of objects, `like` that of an array; `ndarray` is the identity of
    the type itself, `type_number` NumPy's number of the dtype and `itemsize` the size of its elements.
    """
    if peek_int64(array + TYPE) != ndarray:
        return False
    flags = peek_int32(array + _FLAGS)
    if flags & _CONTIGUOUS == 0 or flags & _ALIGNED == 0:
        return False
    dtype = peek_int64(array + _DESCR)
    if peek_int32(dtype + _DESCR_TYPE_NUMBER) != type_number:
        return False
    if peek_int8(dtype + _DESCR_BYTEORDER) != _NATIVE:
        return False
    dimensions = peek_int32(array + _NDIM)
    if dimensions != peek_int32(like + _NDIM):
        return False
    shape, strides = peek_int64(array + _SHAPE), peek_int64(array + _STRIDES)
    like_shape, like_strides = peek_int64(like + _SHAPE), peek_int64(like + _STRIDES)
    for d in range(dimensions):
        length = peek_int64(shape + 8 * d)
        if length != peek_int64(like_shape + 8 * d):
            return False
        stride, like_stride = peek_int64(strides + 8 * d), peek_int64(like_strides + 8 * d)
        if length > 1 and stride * like_itemsize != like_stride * itemsize:
            return False
    return True


# What `gather` answers.
SAME, MOVED, UNSORTED, UNSURE = 0, 1, 2, 3


@register_jitable
def unchanged(written, params, listed):
    """Say whether what a step writes is as it was, and the caller's list of it: see :func:`gather`."""
    same = listed == 0 or peek_int64(listed + LIST_SIZE) == params.shape[0]
    if same and listed != 0:
        items = peek_int64(listed + LIST_ITEMS)
        for k in range(params.shape[0]):
            same &= peek_int64(items + 8 * k) == params[k]
    for w in range(written.shape[1]):
        array = written[0, w]
        same &= data_address(array) == written[1, w] and peek_int64(array + _DESCR) == written[3, w]
        same &= writable(array) and element_count(array) == written[2, w]
    return same


@register_jitable
def overlap(grads, fixed):
    """Return MOVED, or UNSORTED, or UNSURE if gradients share memory with each other or with what is written."""
    past = np.int64(0)
    for k in range(grads.shape[1]):
        t = grads[7, k]
        if grads[3, t] == 0:
            continue
        first = grads[2, t]
        end = first + grads[3, t] * grads[6, t]
        if first < past:
            return UNSORTED
        past = end
        low, high = 0, fixed.shape[1]  # the number of fixed arrays that begin before `end`
        while low < high:
            middle = (low + high) // 2
            if fixed[0, middle] < end:
                low = middle + 1
            else:
                high = middle
        if low > 0 and fixed[1, low - 1] > first:
            return UNSURE
    for t in range(grads.shape[1]):  # an assignment of one row to another takes Numba 2 s to compile
        grads[8, t] = grads[2, t]
    return MOVED


def gather(grads, written, fixed, ndarray, params, zeroed, listed, given):
    """Check all gradients of a step and read their addresses, in one call.

    The rows of `grads` are, for each tensor: the identities of the gradient and of the parameter, the address found,
    the number of elements, NumPy's numbers of the gradient's dtype, the sizes of a parameter's and of a gradient's
    elements, an order that sorted the gradients by address when they were last looked at, and the address that was
    found then. `written` has the identity, the address, the number of elements and the identity of the dtype of every
    array that the step writes, `fixed` their sorted first and past-the-end addresses. `params` are the identities of
    the parameters as they were given, `zeroed` is 1 if gradients must be writable, and `listed` is the identity of a
    list of the parameters that are there now, or 0. `given` is that of the list of the gradients.

    Nothing is written but what was found of the gradients, and, once all is well, their last addresses.
    """
    if not unchanged(written, params, listed):
        return UNSURE
    items, moved = peek_int64(given + LIST_ITEMS), False
    for t in range(grads.shape[1]):
        grad = grads[0, t] = peek_int64(items + 8 * t)
        if not same_layout(grad, grads[1, t], ndarray, grads[4, t], grads[6, t], grads[5, t]):
            return UNSURE
        if zeroed != 0 and not writable(grad):
            return UNSURE
        grads[2, t] = data_address(grad)
        moved |= grads[2, t] != grads[8, t]
    return overlap(grads, fixed) if moved else SAME


@functools.cache
def probe() -> str | None:
    """Return why array headers cannot be read here, or None."""
    if sys.maxsize != 2**63 - 1:
        return "not a 64-bit interpreter"
    samples: list[np.ndarray] = [
        np.zeros((3, 5), np.float32),
        np.zeros((2, 3, 4)).T,
        np.zeros((), np.float64),
    ]
    samples[1].setflags(write=False)
    int64, int32, char = ctypes.c_int64.from_address, ctypes.c_int32.from_address, ctypes.c_char
    for a in samples:
        at = id(a)
        dtype, flags = int64(at + _DESCR).value, int32(at + _FLAGS).value
        shape, strides = int64(at + _SHAPE).value, int64(at + _STRIDES).value
        seen = {
            "type": int64(at + TYPE).value == id(np.ndarray),
            "data": int64(at + _DATA).value == a.ctypes.data,
            "ndim": int32(at + _NDIM).value == a.ndim,
            "dtype": dtype == id(a.dtype),
            "type number": int32(dtype + _DESCR_TYPE_NUMBER).value == a.dtype.num,
            "byte order": char.from_address(dtype + _DESCR_BYTEORDER).value == b"=",
            "contiguous": bool(flags & _CONTIGUOUS) == a.flags.forc,
            "writable": bool(flags & _WRITEABLE) == a.flags.writeable,
            "aligned": bool(flags & _ALIGNED) == a.flags.aligned,
            "shape": a.ndim == 0 or int64(shape).value == a.shape[0],
            "strides": a.ndim == 0 or int64(strides).value == a.strides[0],
        }
        wrong = [name for name, agrees in seen.items() if not agrees]
        if wrong:
            return f"the header of an array reads differently in: {', '.join(wrong)}"
    items = [object(), object()]
    at = id(items)
    first = int64(at + LIST_ITEMS).value
    if int64(at + LIST_SIZE).value != 2 or [int64(first + 8 * k).value for k in (0, 1)] != [id(i) for i in items]:
        return "a list reads differently"
    return None


def identities(objects: list[Any]) -> bytes | None:
    """Return which objects are in a list, in order, as bytes to be compared; None where lists cannot be read."""
    if probe() is not None:
        return None
    return ctypes.string_at(ctypes.c_size_t.from_address(id(objects) + LIST_ITEMS).value, 8 * len(objects))
