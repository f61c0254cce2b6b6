"""What is an acceptable array.

Everything here runs before the first byte is written. Each error names the argument, what is allowed
and what was given.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from .tensors import as_array, is_tensor, obstacle, shows_dlpack
from .view import View, view_of

Array = np.ndarray[Any, np.dtype[Any]]

#: In which formats parameters and gradients can be, by what NumPy calls their dtype; uint16 is taken for the bits of
#: bfloat16, which it lacks.
FORMATS = {
    "float64": "float64",
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "uint16": "bfloat16",
}


def format_of(dtype: np.dtype[Any]) -> str | None:
    """Return the name of the format in which an array of this dtype holds numbers, or None if there is none."""
    return FORMATS.get(dtype.name) if dtype.isnative else None


def is_on_gpu(array: Any) -> bool:
    """Say whether `array` is an array on a GPU, of any library that says so, without importing one."""
    kind = type(array)
    if isinstance(array, np.ndarray):
        return False
    if is_tensor(array) and array.is_meta:  # of which there is no DLPack
        return False
    if hasattr(kind, "__dlpack_device__"):
        return array.__dlpack_device__()[0] in (2, 13)  # DLPack's CUDA and CUDA managed
    return hasattr(kind, "__cuda_array_interface__") or bool(getattr(kind, "__cuda_ndarray__", False))


def check_array(name: str, array: Any, *, written: bool) -> None:
    """Raise unless `array` can be updated in place (`written`), or read, by a sweep.

    Raises
    ------
    TypeError
        If it is no ndarray and no view of an array on a GPU, or of a dtype that :func:`format_of` does not know.
    ValueError
        If it is read-only, misaligned, or neither C- nor Fortran-contiguous.
    """
    if not isinstance(array, (np.ndarray, View)):
        raise TypeError(f"{name} must be a numpy.ndarray, got {describe(array)}{advice(name, array)}")
    check_unmasked(name, array)
    if format_of(array.dtype) is None:
        wanted = "float64, float32, float16 or bfloat16 (or its bits as uint16) in native byte order"
        raise TypeError(f"{name} must have dtype {wanted}, got {array.dtype.str} ({array.dtype})")
    check_layout(name, array, written=written)


def check_unmasked(name: str, array: Any) -> None:
    """Raise for a masked array.

    Raises
    ------
    TypeError
        As its mask would be ignored.
    """
    # NumPy loads this module when it is first used: 20 ms, and a lock that a forked child would wait for.
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is not None and isinstance(array, masked):
        raise TypeError(f"{name} is a masked array; its mask would be ignored: pass {name}.data to use every element")


def check_layout(name: str, array: Array | View, *, written: bool) -> None:
    """Raise unless the memory of an array can be updated in place (`written`), or read, by a sweep.

    Raises
    ------
    ValueError
        If it is read-only, misaligned, or neither C- nor Fortran-contiguous.
    """
    view = view_of(array)
    if not view.aligned:
        raise ValueError(f"{name} must be aligned to its {array.itemsize}-byte elements: pass a copy of it")
    if not (view.c_contiguous or view.f_contiguous):
        raise ValueError(
            f"{name} must be contiguous in C or Fortran order, got shape {array.shape} with strides "
            f"{array.strides} bytes: pass a contiguous copy"
        )
    if written and not view.writable:
        raise ValueError(f"{name} is updated in place and must be writable, got a read-only array")


def check_unchanged(name: str, array: Array, address: int, size: int, dtype: np.dtype[Any]) -> None:
    """Raise unless an array that a step writes is as it was when the optimizer was made, and writable.

    Raises
    ------
    ValueError
        If it was resized, given another dtype, or made read-only.
    """
    if array.ctypes.data != address or array.size != size:
        raise ValueError(f"{name} was resized since the optimizer was made")
    if array.dtype != dtype:
        raise ValueError(f"{name} was given the dtype {array.dtype} since the optimizer was made with {dtype}")
    check_layout(name, array, written=True)


def fits(format_: str | None, arithmetic_of: str | None) -> bool:
    """Say whether numbers in a format are no wider than the arithmetic for parameters in another."""
    return format_ != "float64" or arithmetic_of == "float64"


def check_gradient(name: str, array: Array | View, like_name: str, like: Array | View) -> None:
    """Raise unless `array` can be the gradient of `like`: no wider than its arithmetic.

    Raises
    ------
    TypeError
        If it has more digits than would count.
    """
    if not fits(format_of(array.dtype), format_of(like.dtype)):
        raise TypeError(
            f"{name} must have the dtype of {like_name}, {like.dtype}, or another of at most 32 bits, in which its "
            f"updates are computed; got {array.dtype}"
        )


def check_like(name: str, array: Array | View, like_name: str, like: Array | View) -> None:
    """Raise unless `array` has the shape and the memory order of `like`.

    Raises
    ------
    ValueError
        If the shapes or the memory orders differ.
    """
    if array.shape != like.shape:
        raise ValueError(f"{name} must have the shape of {like_name}, {like.shape}; got {array.shape}")
    own, wanted = view_of(array), view_of(like)
    if not (own.c_contiguous and wanted.c_contiguous) and not (own.f_contiguous and wanted.f_contiguous):
        order, as_order = ("C", "contiguous") if wanted.c_contiguous else ("F", "fortran")
        raise ValueError(
            f"{name} must have the memory order of {like_name}, {order}; got {'C' if own.c_contiguous else 'F'}: pass "
            f"numpy.as{as_order}array({name})"
        )


def check_disjoint(named: Iterable[tuple[str, Array | View]]) -> None:
    """Raise if any two of the arrays share memory.

    Host and devices have one address space.

    Raises
    ------
    ValueError
        Naming the two arrays.
    """
    views = [(name, view_of(array)) for name, array in named if array.nbytes]
    spans = sorted((view.address, view.address + view.nbytes, name) for name, view in views)
    for (_, end, name), (start, _, other) in pairwise(spans):
        if start < end:
            first, second = sorted((name, other))
            raise ValueError(f"{first} and {second} share memory: each array of a step must have its own")


#: A count of steps can be this; the kernels take numbers of 63 bits.
MOST_STEPS = 2**62 - 1


def check_integer(name: str, given: Any, least: int, most: int = 2**63 - 1) -> int:
    """Return an integer as the kernels take it.

    Raises
    ------
    TypeError
        If it is none.
    ValueError
        If it is less than `least` or more than `most`.
    """
    try:
        number = operator.index(given)
    except TypeError:
        number = None
    if number is None or isinstance(given, bool):
        raise TypeError(f"{name} must be an integer >= {least}, got {given!r}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be an integer >= {least} and below 2^{most.bit_length()}, got {given!r}")
    return number


def as_gradient(grad: Any) -> Any:
    """Return a NumPy scalar as the 0-d array that it came from, another library's as its memory, all else as it is.

    NumPy's arithmetic turns 0-d arrays into scalars, so the gradient of a 0-d parameter arrives as one.
    """
    return np.asarray(grad) if isinstance(grad, np.generic) else as_array(grad, written=False)


def describe(given: Any) -> str:
    """Return what an error calls a thing that is no array, or another one."""
    kind = type(given)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    text = f"{module}{kind.__qualname__}"
    if isinstance(given, np.ndarray):
        return f"one array of shape {given.shape}"
    if isinstance(given, (bool, int, float, complex, np.generic)) or given is None:
        return f"{text} {given!r}"
    return text


def advice(name: str, given: Any) -> str:
    """Return what to do about an array of a kind that is refused, or nothing."""
    library = type(given).__module__.partition(".")[0]
    if library in ("jax", "jaxlib"):
        return f": JAX arrays are immutable; numpy.array({name}) is a copy that can be updated"
    if shows_dlpack(given):
        return ", which DLPack shows as only to be read, or in a dtype that NumPy does not have"
    if not is_tensor(given):
        return ""
    if found := obstacle(given):
        return f", which {found}"
    bits = ".view(torch.uint16)" if str(given.dtype) == "torch.bfloat16" else ""
    return f": pass {name}.detach(){bits}.numpy(), which is the same memory"
