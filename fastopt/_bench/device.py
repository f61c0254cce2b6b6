"""A GPU's clock, copies, free memory and graphs, for measuring and for tests; in the simulator, stand-ins for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array
from . import measure

# Of the memory that is free, what is left to the libraries for what they allocate besides.
_KEPT_FREE = 0.1
# What a copy moves at a time, over the same two pieces of memory again: more than any cache holds.
_PIECE = 1 << 30
#: CUDA's handle for the default stream, which PyTorch, CuPy and Numba use unless told otherwise.
DEFAULT_STREAM = 0


def missing() -> str | None:
    """Return why nothing can run on a GPU here, in the words of ``fastopt.info()["cuda"]``, or None."""
    said = driver.describe_devices()
    return said.removeprefix("no: ") if said.startswith("no") else None


def synchronize() -> None:
    """Wait for all work enqueued on the GPU."""
    driver.module().synchronize()


def room() -> int:
    """Return how many bytes can be allocated on the GPU; in the simulator, that lies in host memory."""
    if driver.simulated():
        return measure.memory() // 2
    free, _ = driver.module().current_context().get_memory_info()
    return int(free * (1 - _KEPT_FREE))


class OwnStreams:
    """A step that a library takes on streams of its own, for which an event on the default stream does not wait."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step

    def __call__(self) -> None:
        self._step()


def call(function: Callable[[], object], calls: int) -> float:
    """Return the seconds of one of `calls` calls, from event to event on the default stream.

    In the simulator, which does not know times, by the host's clock.
    """
    synchronize()
    if driver.simulated():
        return host(function, calls)
    cuda = driver.module()
    start, end = cuda.event(), cuda.event()
    start.record()
    for _ in range(calls):
        function()
    if isinstance(function, OwnStreams):
        synchronize()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3 / calls


def host(function: Callable[[], object], calls: int) -> float:
    """Return the seconds that the host spends on one of `calls` calls, not waiting for the GPU.

    So few that the GPU's queue, of about a thousand launches, does not fill.
    """
    start = time.perf_counter()
    for _ in range(calls):
        function()
    taken = (time.perf_counter() - start) / calls
    synchronize()
    return taken


class Copy:
    """A copy within the GPU's memory that reads and writes `nbytes` in all; called, it enqueues one."""

    def __init__(self, nbytes: int) -> None:
        count = max(nbytes // 2, 1)
        whole, rest = divmod(count, _PIECE)
        self._pieces = [_PIECE] * whole + [rest] * bool(rest)
        with driver.on(0):
            cuda = driver.module()
            self._arrays = [cuda.device_array(min(count, _PIECE), np.uint8) for _ in range(2)]
            self._to, self._from = map(driver.address_of, self._arrays)

    def __call__(self) -> None:
        if driver.simulated():
            for piece in self._pieces:
                self._arrays[0][:piece].copy_to_device(self._arrays[1][:piece])
            return
        from cuda.bindings import driver as bindings

        for piece in self._pieces:
            checked(bindings.cuMemcpyDtoDAsync(self._to, self._from, piece, DEFAULT_STREAM))


def put(values: Array, count: int) -> Any:
    """Return an array on the GPU of `count` elements, in which `values` repeat."""
    cuda = driver.module()
    if count <= values.size:
        return cuda.to_device(np.ascontiguousarray(values[:count]))
    out, tile = cuda.device_array(count, values.dtype), cuda.to_device(values)
    for start in range(0, count, values.size):
        part = min(values.size, count - start)
        out[start : start + part].copy_to_device(tile[:part])
    return out


class Graph:
    """What `enqueue` asks of a stream, captured once; called, it enqueues all of it again.

    `enqueue` takes the handle of the stream; it must have been called before, so that nothing is compiled any more.
    In the simulator, which has no graphs, it is called again instead.
    """

    def __init__(self, enqueue: Callable[[int], object]) -> None:
        self._enqueue = enqueue
        if driver.simulated():
            return
        from cuda.bindings import driver as bindings

        synchronize()
        (self._stream,) = checked(bindings.cuStreamCreate(1))  # does not wait for the default stream
        self.handle = int(self._stream)
        mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        checked(bindings.cuStreamBeginCapture(self._stream, mode))
        try:
            enqueue(self.handle)
        finally:
            (graph,) = checked(bindings.cuStreamEndCapture(self._stream))
        (self._executable,) = checked(bindings.cuGraphInstantiate(graph, 0))

    def __call__(self) -> None:
        self.replay(DEFAULT_STREAM)

    def replay(self, handle: int) -> None:
        """Enqueue what was captured on a stream."""
        if driver.simulated():
            self._enqueue(handle)
            return
        from cuda.bindings import driver as bindings

        checked(bindings.cuGraphLaunch(self._executable, handle))


def checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a function of the driver answered, without its error code.

    Raises
    ------
    RuntimeError
        If that says that it failed.
    """
    error, *rest = answer
    if int(error):
        raise RuntimeError(f"the CUDA driver answered {error!r}")
    return tuple(rest)
