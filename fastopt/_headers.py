"""Reading an array's header from compiled code.

A step must look at every gradient: is it still an array of the right dtype, shape and memory order,
and where is it? In Python that is 1.5 µs an array (``a.ctypes.data`` alone 0.9 µs), far more than
updating a small tensor takes. The fields below are the ones that NumPy's own header file compiles
into every extension module (``PyArrayObject_fields`` in ``ndarraytypes.h``), so their places cannot
move without breaking all of them. :func:`probe` compares them with what Python says before they are
first relied on.

"No" from :func:`same_layout` means "look closer", not "wrong": a memory map is an array too. The judge
is :mod:`fastopt._arrays`.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np
from numba.extending import register_jitable

from ._storage import peek_int8, peek_int32, peek_int64

_HEAD = object.__basicsize__
_TYPE = _HEAD - 8
_DATA = _HEAD
_NDIM = _HEAD + 8
_SHAPE = _HEAD + 16
_STRIDES = _HEAD + 24
_DESCR = _HEAD + 40
_FLAGS = _HEAD + 48
_DESCR_BYTEORDER = _HEAD + 10
_DESCR_TYPE_NUMBER = _HEAD + 12

_CONTIGUOUS = 0x1 | 0x2  # in C or in Fortran order
_ALIGNED = 0x100
_WRITEABLE = 0x400
_NATIVE = ord("=")


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
    if peek_int64(array + _TYPE) != ndarray:
        return False
    flags = peek_int32(array + _FLAGS)
    if flags & _CONTIGUOUS == 0 or flags & _ALIGNED == 0:
        return False
    descr = peek_int64(array + _DESCR)
    if peek_int32(descr + _DESCR_TYPE_NUMBER) != type_number:
        return False
    if peek_int8(descr + _DESCR_BYTEORDER) != _NATIVE:
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


# What `refresh` answers below zero; from zero on it is the number of the tensor to look at.
SAME, MOVED, UNSORTED = -1, -2, -3


def refresh(work, table, fixed, ndarray, type_number, itemsize, param_itemsize):
    """Check all gradients of a group and read their addresses, in one call.

    The rows of `work` are the identities of the gradients, of the parameters, the addresses found, the
    numbers of elements, and an order that sorted the gradients by address when they were last looked at.
    `fixed` holds the sorted first and past-the-end addresses of parameters and states. Nothing but the
    row of found addresses is written.
    """
    grads, params, found, sizes, order = work[0], work[1], work[2], work[3], work[4]
    moved = False
    for t in range(grads.shape[0]):
        if not same_layout(grads[t], params[t], ndarray, type_number, itemsize, param_itemsize):
            return t
        if not writable(params[t]) or data_address(params[t]) != np.int64(table[1, t]):
            return t
        if element_count(params[t]) != sizes[t]:
            return t
        found[t] = data_address(grads[t])
        moved |= found[t] != np.int64(table[0, t])
    if not moved:
        return SAME
    past = np.int64(0)
    for k in range(order.shape[0]):
        t = order[k]
        if sizes[t] == 0:
            continue
        first, end = found[t], found[t] + sizes[t] * itemsize
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
            return t
    return MOVED


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
        descr, flags = int64(at + _DESCR).value, int32(at + _FLAGS).value
        shape, strides = int64(at + _SHAPE).value, int64(at + _STRIDES).value
        seen = {
            "type": int64(at + _TYPE).value == id(np.ndarray),
            "data": int64(at + _DATA).value == a.ctypes.data,
            "ndim": int32(at + _NDIM).value == a.ndim,
            "type number": int32(descr + _DESCR_TYPE_NUMBER).value == a.dtype.num,
            "byte order": char.from_address(descr + _DESCR_BYTEORDER).value == b"=",
            "contiguous": bool(flags & _CONTIGUOUS) == a.flags.forc,
            "writable": bool(flags & _WRITEABLE) == a.flags.writeable,
            "aligned": bool(flags & _ALIGNED) == a.flags.aligned,
            "shape": a.ndim == 0 or int64(shape).value == a.shape[0],
            "strides": a.ndim == 0 or int64(strides).value == a.strides[0],
        }
        wrong = [name for name, agrees in seen.items() if not agrees]
        if wrong:
            return f"the header of an array reads differently in: {', '.join(wrong)}"
    return None
