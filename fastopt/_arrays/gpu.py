"""Arrays on a GPU: recognised, seen as views, made, copied, and the streams that they are made on."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import driver
from .checks import Array, check_integer, is_on_gpu
from .view import View

# 4 is bfloat16, of which NumPy knows the bits alone.
_CODES = {0: "i", 1: "u", 2: "f", 4: "u"}


def as_view(name: str, array: Any) -> Any:
    """Return the view of an array on a GPU, anything else as it is."""
    return view(name, array) if is_on_gpu(array) else array


def device_of(array: Array | View) -> int | None:
    """Return the number of the GPU that an array lies on, or None."""
    return array.device if isinstance(array, View) else None


def view(name: str, array: Any) -> View:
    """Return the view of an array on a GPU.

    Parameters
    ----------
    name : str
        What the caller calls it.
    array : object
        Any GPU array that exposes ``__cuda_array_interface__`` or DLPack.

    Raises
    ------
    TypeError
        If it is a JAX array, which nobody may change, is on no GPU, or has a mask or a dtype that NumPy lacks.
    ValueError
        If it says that it is made on stream 0, which the interface forbids: nobody knows which is meant.
    CudaUnavailableError
        If there is nothing here to update it with.
    """
    given = f"{type(array).__module__}.{type(array).__qualname__}"
    if given.partition(".")[0] in ("jax", "jaxlib"):
        raise TypeError(f"{name} is a JAX array, which is immutable: it cannot be updated in place")
    if not is_on_gpu(array):
        raise TypeError(f"{name} must be on a GPU, as the parameters of its step are; got {given}")
    driver.module()
    interface = _interface(name, array)
    if interface.get("mask") is not None:
        raise TypeError(f"{name} has a mask, which would be ignored")
    address, read_only = interface["data"]
    device = array.__dlpack_device__()[1] if hasattr(type(array), "__dlpack_device__") else driver.device_at(address)
    stream = interface.get("stream")
    if stream == 0:
        raise ValueError(f"{name} must name the stream on which it is made, or None, got 0")
    return View(
        array,
        int(address or 0),
        tuple(interface["shape"]),
        interface.get("strides"),
        np.dtype(interface["typestr"]),
        writable=not read_only,
        device=int(device),
        stream=None if stream is None else int(stream),
    )


def makers(views: Iterable[View]) -> set[int]:
    """Return the streams on which arrays are made; a step waits for them."""
    return {view.stream for view in views if view.stream is not None}


def _interface(name: str, array: Any) -> dict[str, Any]:
    if driver.simulated() and hasattr(array, "_ary"):  # what the simulator calls an array on a device
        return dict(array._ary.__array_interface__)
    if getattr(array, "requires_grad", False):
        array = array.detach()  # the same memory; PyTorch shows none of what it differentiates
    try:
        return dict(array.__cuda_array_interface__)
    except (AttributeError, TypeError):  # there is none, or, of PyTorch, none for this dtype
        return _from_dlpack(name, array)


class _Tensor(ctypes.Structure):
    """DLPack's ``DLTensor``, which a ``DLManagedTensor`` begins with."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(name: str, array: Any) -> dict[str, Any]:
    capsule = array.__dlpack__(stream=-1)  # -1: do not wait
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    if tensor.lanes != 1 or tensor.code not in _CODES:
        raise TypeError(f"{name} has DLPack's dtype {tensor.code}, {tensor.bits} bits; it must be of floats")
    size = tensor.bits // 8
    return {
        "shape": tensor.shape[: tensor.ndim],
        "typestr": f"{'<' if sys.byteorder == 'little' else '>'}{_CODES[tensor.code]}{size}",
        "strides": tuple(s * size for s in tensor.strides[: tensor.ndim]) if tensor.strides else None,
        "data": ((tensor.data or 0) + tensor.byte_offset, False),
        "capsule": capsule,
    }


def owner(array: Array | View) -> Any:
    """Return the caller's array for a view, any other array as it is."""
    return array.owner if isinstance(array, View) else array


def zeros_like(like: View, dtype: np.dtype[Any], length: int | None = None) -> View:
    """Return the view of zeros beside an array on a GPU, laid out as it, made by the library that it comes from.

    With `length` they are that many, in one dimension.
    """
    owner, device = like.owner, like.device
    assert device is not None
    library = type(owner).__module__.partition(".")[0]
    with driver.on(device):
        if library in ("torch", "cupy"):
            made, kinds = sys.modules[library], {"uint16": "bfloat16"} if library == "torch" else {}
            kind = getattr(made, kinds.get(dtype.name, dtype.name))
            if length is not None:
                new = made.zeros(length, dtype=kind, **({"device": owner.device} if library == "torch" else {}))
            else:
                new = made.zeros_like(owner.detach() if library == "torch" else owner, dtype=kind)
            made_here = view("a state", new)
            made_here.stream = stream_handle(None, made_here)
            return made_here
        shape = like.shape if length is None else (length,)
        return view("a state", driver.new_zeros(shape, dtype, "C" if like.c_contiguous else "F"))


def copy(array: Array | View) -> Array:
    """Return a copy in host memory of an array, on a GPU after all work enqueued on the device."""
    if not isinstance(array, View):
        return array.copy(order="K")
    out = array.empty()
    if out.nbytes:
        with driver.on(array.device):
            driver.copy_to_host(array.address, out)
    return out


def fill(array: Array | View, values: Any) -> None:
    """Write `values` to an array, on a GPU after all work enqueued on the device."""
    if not isinstance(array, View):
        array[...] = values
        return
    laid_out = array.empty()
    laid_out[...] = values
    if laid_out.nbytes:
        with driver.on(array.device):
            driver.copy_to_device(array.address, laid_out)


def stream_handle(stream: Any, array: View) -> int:
    """Return the handle of a caller's stream; for None, of the stream that the library of `array` uses now.

    Raises
    ------
    TypeError
        If it is no stream of PyTorch, CuPy or Numba, has no ``__cuda_stream__``, and is no handle.
    ValueError
        If it is an integer that is no handle.
    """
    if stream is None:
        library = type(array.owner).__module__.partition(".")[0]
        if library == "torch":
            return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)
        if library == "cupy":
            return int(sys.modules["cupy"].cuda.get_current_stream(array.device).ptr)
        return 0
    if hasattr(type(stream), "__index__"):
        return check_integer("stream", stream, 0, 2**64 - 1)
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for attribute in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, attribute):
            value = getattr(stream, attribute)
            return int(getattr(value, "value", value) or 0)
    raise TypeError(
        f"stream must be a stream of PyTorch, CuPy or Numba, or its handle, got {type(stream).__name__} {stream!r}"
    )
