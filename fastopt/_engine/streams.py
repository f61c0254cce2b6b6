"""Launches on a GPU: threads and blocks, streams, and addresses on their way to the device."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array

# Of one block. 256 threads of 16 bytes each take 4 KiB of every array at a time. The simulator runs each thread of a
# block as a thread of Python.
THREADS = 256
_SIMULATED_THREADS = 3


def threads() -> int:
    """Return the number of threads of a block."""
    return _SIMULATED_THREADS if driver.simulated() else THREADS


@functools.cache
def blocks(device: int) -> int:
    """Return how many blocks fill a device."""
    if driver.simulated():
        return 2
    with driver.on(device):
        processors: int = driver.module().get_current_device().MULTIPROCESSOR_COUNT
    return 8 * processors


@functools.lru_cache(maxsize=64)
def stream(handle: int) -> Any:
    """Return the stream object for a handle."""
    cuda = driver.module()
    if driver.simulated():
        return cuda.stream()
    return cuda.external_stream(handle) if handle else cuda.default_stream()


def launcher(kernel: Any, blocks: int, threads: int, handle: int) -> Any:
    """Return `kernel` with a launch configuration, made once for each."""
    if driver.simulated():  # where a kernel has one configuration at a time
        return kernel[blocks, threads]
    return _launcher(kernel, blocks, threads, handle)


@functools.lru_cache(maxsize=256)
def _launcher(kernel: Any, blocks: int, threads: int, handle: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about few blocks, which are right for few elements
        return kernel[blocks, threads, stream(handle)]


def launch(kernel: Any, items: int, device: int, handle: int, *arguments: Any) -> None:
    """Launch a kernel whose blocks take turns at so many items."""
    launcher(kernel, max(1, min(items, blocks(device))), threads(), handle)(*arguments)


def wait(maker: int, handle: int) -> None:
    """Have the stream `handle` wait for all work enqueued on the stream `maker` until now."""
    if driver.simulated():  # where every call waits
        return
    event = driver.module().event(timing=False)
    event.record(stream(maker))
    event.wait(stream(handle))


def capturing(handle: int) -> bool:
    """Return whether a stream is being captured into a graph."""
    if driver.simulated():
        return False
    from cuda.bindings import driver as cuda_driver

    return bool(driver.check_answer(cuda_driver.cuStreamIsCapturing(handle))[0] != cuda_driver.CUstreamCaptureStatus(0))


class Uploads:
    """Rows of addresses that are sent to the device without waiting for it.

    The rows stand in page-locked memory, from which the device reads in its own time; a row is used again only when the
    copy from it, `depth` uploads ago, is done.
    """

    def __init__(self, length: int, depth: int = 8) -> None:
        cuda = driver.module()
        self._rows = [cuda.pinned_array(length, np.int64) for _ in range(depth)]
        self._events = [cuda.event() if driver.simulated() else cuda.event(timing=False) for _ in range(depth)]
        self._used = [False] * depth
        self._next = 0

    def send(self, row: Array, address: int, handle: int) -> None:
        """Copy `row` to the device, in the order of a stream."""
        k = self._next
        if self._used[k]:
            self._events[k].synchronize()
        self._rows[k][:] = row
        if driver.simulated():
            driver.copy_to_device(address, self._rows[k])
        else:
            from cuda.bindings import driver as cuda_driver

            driver.check_answer(cuda_driver.cuMemcpyHtoDAsync(address, self._rows[k].ctypes.data, row.nbytes, handle))
        self._events[k].record(stream(handle))
        self._used[k], self._next = True, (k + 1) % len(self._rows)


class Sent:
    """An array of the host's on the current device, which it is sent to whenever it changes.

    Attributes
    ----------
    place : Any
        Where it is there, as an argument of a kernel.
    """

    def __init__(self, nbytes: int) -> None:
        self._bits = np.zeros(-(-nbytes // 8), np.int64)
        self._there = driver.copy_of(self._bits.view(np.float64))
        self._uploads = Uploads(len(self._bits))
        self.address = driver.address_of(self._there)
        self.place = driver.argument(self.address)

    def send(self, array: Array, handle: int) -> None:
        """Send it, in the order of a stream."""
        self._bits.view(np.uint8)[: array.nbytes] = array.reshape(-1).view(np.uint8)
        self._uploads.send(self._bits, self.address, handle)
