"""Everything that is particular to numba-cuda: the compiler, the driver, the simulator.

Another compiler of Python for GPUs takes its place by answering to the names here and in
:mod:`fastopt._cuda.storage`. With ``NUMBA_ENABLE_CUDASIM=1`` kernels run as Python on host memory, at the
host's addresses.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numba
import numpy as np

from .._arrays import Array

EXTRAS = "pip install 'fastopt[cuda13]' (or fastopt[cuda12] for a driver of CUDA 12)"
# Of one block. 256 threads of 16 bytes each take 4 KiB of every array at a time. The simulator runs each thread of a
# block as a thread of Python.
THREADS = 256
_SIMULATED_THREADS = 3


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


def describe() -> str:
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


def complete() -> None:
    """Add to numba-cuda what its rules for NumPy lack: it infers a type for ``np.sqrt``, and has no code for it."""
    import math

    from numba.cuda.mathimpl import get_unary_impl_for_fn_and_ty
    from numba.cuda.ufuncs import ufunc_db

    def root(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return get_unary_impl_for_fn_and_ty(math.sqrt, signature.args[0])(context, builder, signature, arguments)

    ufunc_db().setdefault(np.sqrt, {"f->f": root, "d->d": root})


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Within this block, kernels are compiled so that a product and a sum are two operations, each rounded by itself.

    NVVM has an option for that, and numba-cuda no way to give it; here what holds the code of a kernel gives it. As the
    lock of its compiler is held, no other thread compiles meanwhile.
    """
    from numba.cuda.codegen import JITCUDACodegen
    from numba.cuda.dispatcher import global_compiler_lock

    usual = JITCUDACodegen._library_class

    class Library(usual):  # type: ignore[misc, valid-type]  # numba-cuda is untyped
        _nvvm_options: dict[str, Any]

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._nvvm_options = self._nvvm_options | {"fma": False}

    with global_compiler_lock:
        JITCUDACodegen._library_class = Library
        try:
            yield
        finally:
            JITCUDACodegen._library_class = usual


def compiled(function: Callable[..., Any], signature: Any, **flags: Any) -> Any:
    """Return the kernel for `signature`, on the current device."""
    cuda = module()
    if simulated():
        return cuda.jit(function)
    complete()
    with unfused():
        return cuda.jit(signature, **flags)(function)


def on(device: int) -> Any:
    """Return a context manager in which `device` is the current one."""
    return module().gpus[device]


def threads() -> int:
    """Return the number of threads of a block."""
    return _SIMULATED_THREADS if simulated() else THREADS


@functools.cache
def blocks(device: int) -> int:
    """Return how many blocks fill a device."""
    if simulated():
        return 2
    with on(device):
        processors: int = module().get_current_device().MULTIPROCESSOR_COUNT
    return 8 * processors


def address_of(array: Any) -> int:
    """Return where an array of :func:`copy_of` or :func:`zeros` lies."""
    interface = array._ary.__array_interface__ if simulated() else array.__cuda_array_interface__
    address: int = interface["data"][0]
    return address


def argument(address: int) -> np.uint64:
    """Return an address as kernels take it."""
    return np.uint64(address)


def copy_of(array: Array) -> Any:
    """Return a copy of `array` on the current device."""
    return module().to_device(array)


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]) -> Any:
    """Return zeros on the current device, as an array of numba-cuda's."""
    return module().to_device(np.zeros(shape, dtype, order))


@functools.lru_cache(maxsize=64)
def stream(handle: int) -> Any:
    """Return the stream object for a handle."""
    cuda = module()
    if simulated():
        return cuda.stream()
    return cuda.external_stream(handle) if handle else cuda.default_stream()


def launcher(kernel: Any, blocks: int, threads: int, handle: int) -> Any:
    """Return `kernel` with a launch configuration, made once for each."""
    if simulated():  # where a kernel has one configuration at a time
        return kernel[blocks, threads]
    return _launcher(kernel, blocks, threads, handle)


@functools.lru_cache(maxsize=256)
def _launcher(kernel: Any, blocks: int, threads: int, handle: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about few blocks, which are right for few elements
        return kernel[blocks, threads, stream(handle)]


def wait(maker: int, handle: int) -> None:
    """Have the stream `handle` wait for all that the stream `maker` was asked for until now."""
    if simulated():  # where every call waits
        return
    event = module().event(timing=False)
    event.record(stream(maker))
    event.wait(stream(handle))


def capturing(handle: int) -> bool:
    """Return whether a stream is being captured into a graph."""
    if simulated():
        return False
    from cuda.bindings import driver

    return bool(_call(driver.cuStreamIsCapturing(handle))[0] != driver.CUstreamCaptureStatus(0))


def device_at(address: int) -> int:
    """Return the device that an address belongs to; the current one for that of an empty array, 0."""
    if simulated():
        return 0
    cuda = module()
    if not address:
        return int(cuda.get_current_device().id)
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_call(driver.cuPointerGetAttribute(attribute, address))[0])


def read(address: int, out: Array) -> None:
    """Copy from the device into a contiguous array, after everything that was asked of the device before."""
    if simulated():
        out.reshape(-1, order="A").view(np.uint8)[:] = _host(address, out.nbytes)
        return
    from cuda.bindings import driver

    _call(driver.cuCtxSynchronize())
    _call(driver.cuMemcpyDtoH(out.ctypes.data, address, out.nbytes))


def write(address: int, array: Array) -> None:
    """Copy a contiguous array to the device, after everything that was asked of it before."""
    if simulated():
        _host(address, array.nbytes)[:] = array.reshape(-1, order="A").view(np.uint8)
        return
    from cuda.bindings import driver

    _call(driver.cuCtxSynchronize())
    _call(driver.cuMemcpyHtoD(address, array.ctypes.data, array.nbytes))


def _host(address: int, nbytes: int) -> Array:
    from .simulated import view

    return view(address, np.dtype(np.uint8), nbytes)


def _call(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    error, *rest = answer
    if int(error):
        raise RuntimeError(f"the CUDA driver answered {error!r}")
    return tuple(rest)


class Uploads:
    """Rows of addresses that are sent to the device without waiting for it.

    The rows stand in page-locked memory, from which the device reads in its own time; a row is used again only when the
    copy from it, `depth` uploads ago, is done.
    """

    def __init__(self, length: int, depth: int = 8) -> None:
        cuda = module()
        self._rows = [cuda.pinned_array(length, np.int64) for _ in range(depth)]
        self._events = [cuda.event() if simulated() else cuda.event(timing=False) for _ in range(depth)]
        self._used = [False] * depth
        self._next = 0

    def send(self, row: Array, address: int, handle: int) -> None:
        """Copy `row` to the device, in the order of a stream."""
        k = self._next
        if self._used[k]:
            self._events[k].synchronize()
        self._rows[k][:] = row
        if simulated():
            write(address, self._rows[k])
        else:
            from cuda.bindings import driver

            _call(driver.cuMemcpyHtoDAsync(address, self._rows[k].ctypes.data, row.nbytes, handle))
        self._events[k].record(stream(handle))
        self._used[k], self._next = True, (k + 1) % len(self._rows)
