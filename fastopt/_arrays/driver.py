"""The driver of a GPU, by way of numba-cuda: which devices there are, and their memory.

With ``NUMBA_ENABLE_CUDASIM=1`` kernels run as Python on host memory, at the host's addresses.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import Any, Literal

import numba
import numpy as np

from .checks import Array

EXTRAS = "pip install 'fastopt[cuda13]' (or fastopt[cuda12] for a driver of CUDA 12)"


class CudaUnavailableError(RuntimeError):
    """An array on a GPU came and there is nothing here to update it with; the text says what is missing."""


def simulated() -> bool:
    """Return whether kernels run in the simulator."""
    return bool(numba.config.ENABLE_CUDASIM)


@functools.cache
def why_not() -> str | None:
    """Return why no GPU can be used, or None. Starts the driver."""
    if simulated():
        return None
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed: {EXTRAS}"
    from numba import cuda  # 0.2 s

    if not cuda.is_available():
        error = str(cuda.cuda_error() or "no device").strip()
        return "the driver cannot be used: " + " ".join(error.split())
    if not cuda.is_supported_version():
        return f"the driver is too old for the installed numba-cuda: update it, or {EXTRAS}"
    return None


def module() -> Any:
    """Return ``numba.cuda``.

    Raises
    ------
    CudaUnavailableError
        If no GPU can be used.
    """
    reason = why_not()
    if reason is not None:
        raise CudaUnavailableError(f"an array on a GPU cannot be updated here: {reason}")
    from numba import cuda

    return cuda


def describe_devices() -> str:
    """Return what is there, in words."""
    if simulated():
        return "simulated: NUMBA_ENABLE_CUDASIM is set"
    reason = why_not()
    if reason is not None:
        return f"no: {reason}"
    found = []
    for device in module().gpus:
        name = device.name.decode() if isinstance(device.name, bytes) else device.name
        found.append(f"{name} (compute capability {'.'.join(map(str, device.compute_capability))})")
    return "yes: " + ", ".join(found)


def on(device: int | None) -> Any:
    """Return a context manager in which `device` is the current one."""
    return module().gpus[device]


def address_of(array: Any) -> int:
    """Return where an array of :func:`copy_of` or :func:`new_zeros` lies."""
    interface = array._ary.__array_interface__ if simulated() else array.__cuda_array_interface__
    address: int = interface["data"][0]
    return address


def argument(address: int) -> np.uint64:
    """Return an address as kernels take it."""
    return np.uint64(address)


def copy_of(array: Array) -> Any:
    """Return a copy of `array` on the current device."""
    return module().to_device(array)


def new_zeros(shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]) -> Any:
    """Return zeros on the current device, as an array of numba-cuda's."""
    return module().to_device(np.zeros(shape, dtype, order))


def device_at(address: int) -> int:
    """Return the device that an address belongs to; the current one for that of an empty array, 0."""
    if simulated():
        return 0
    cuda = module()
    if not address:
        return int(cuda.get_current_device().id)
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(check_answer(driver.cuPointerGetAttribute(attribute, address))[0])


def copy_to_host(address: int, out: Array) -> None:
    """Copy from the device into a contiguous array, after everything that was asked of the device before."""
    if simulated():
        out.reshape(-1, order="A").view(np.uint8)[:] = host_memory(address, np.dtype(np.uint8), out.nbytes)
        return
    from cuda.bindings import driver

    check_answer(driver.cuCtxSynchronize())
    check_answer(driver.cuMemcpyDtoH(out.ctypes.data, address, out.nbytes))


def copy_to_device(address: int, array: Array) -> None:
    """Copy a contiguous array to the device, after everything that was asked of it before."""
    if simulated():
        host_memory(address, np.dtype(np.uint8), array.nbytes)[:] = array.reshape(-1, order="A").view(np.uint8)
        return
    from cuda.bindings import driver

    check_answer(driver.cuCtxSynchronize())
    check_answer(driver.cuMemcpyHtoD(address, array.ctypes.data, array.nbytes))


def host_memory(address: int, dtype: np.dtype[Any], count: int) -> Array:
    """Return host memory at an address as an array."""
    if count == 0:
        return np.empty(0, dtype)
    memory = (ctypes.c_uint8 * (int(count) * dtype.itemsize)).from_address(int(address))
    return np.ctypeslib.as_array(memory).view(dtype)


def check_answer(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    error, *rest = answer
    if int(error):
        raise RuntimeError(f"the CUDA driver answered {error!r}")
    return tuple(rest)
