"""The plan of a step on one GPU: tables on the device, and the launch."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from .._arrays import driver, gpu
from .._arrays.checks import Array, is_on_gpu
from .._kernels import compiler
from .._kernels.compiler import Spec
from . import streams, threads
from .plan import Group, Members, chunks_of
from .scalars import Packer, Update
from .signals import deferred

# A block takes a chunk at a time: 4 rounds of 256 threads that move 16 bytes. Small, so that few elements meet many
# processors; the table of chunks costs 24 bytes for 4096 elements of 28 bytes each.
CHUNK = 1 << 12


class DeviceGroup(Group):
    """The tensors of one dtype on one device, updated by one launch.

    Parameters
    ----------
    members : Members
        The arrays are headers.
    method : Update
        Whose step it is.
    capturable : bool
        Keep the step number and `lr` on the device.
    """

    def __init__(self, members: Members, method: Update, capturable: bool) -> None:
        super().__init__(members)
        params = self.params
        self.device = gpu.exposed(params[0]).device
        self.capturable, self._method = capturable, method
        _, chunks = chunks_of([p.size for p in params], CHUNK)
        self._count = len(chunks)
        self._known: list[Any] = [None] * len(params)
        self._places = [_identity(gpu.exposed(p).owner) for p in params]
        with driver.on(self.device):
            self._sent = np.zeros(len(params), np.int64)
            self._table = driver.copy_of(self.table.view(np.int64).reshape(-1))
            self._uploads = streams.Uploads(len(params))
            self._chunks = driver.copy_of(np.concatenate([chunks.reshape(-1), np.zeros(1, np.int64)]))
            self._scalars = driver.copy_of(np.zeros(64, np.float64)) if capturable else None
            self._clock = driver.copy_of(np.zeros(2, np.float64)) if capturable else None
        self._handle = 0
        written = [*params, *(a for row in self.states for a in row)]
        self._makers = gpu.makers(written)  # the streams on which arrays of the next step are made
        self._addresses = tuple(driver.argument(driver.address_of(a)) for a in (self._table, self._chunks))

    def headers(self, grads: Sequence[Any]) -> list[Any]:
        """Return the headers of the gradients of the group, of those of all parameters."""
        for t, place in enumerate(self._places):
            if _identity(gpu.exposed(self.params[t]).owner) != place:
                raise ValueError(
                    f"{self.label('params', t)} was moved or resized since the optimizer was made: make a new one"
                )
        headers = []
        for t, index in enumerate(self.indices):
            grad = grads[index]
            header = self._recognise(t, grad)
            if header is None:
                name = self.label("grads", t)
                if not is_on_gpu(grad):
                    raise TypeError(
                        f"{name} must be on the GPU {self.device}, as {self.label('params', t)} is; got "
                        f"{type(grad).__module__}.{type(grad).__qualname__}"
                    )
                header = gpu.header(name, grad)
                device = gpu.exposed(header).device
                if device != self.device:
                    raise ValueError(f"{name} must be on the GPU {self.device}, as its parameter is; it is on {device}")
                self._known[t] = _remember(grad, header)
            headers.append(header)
        self._makers |= gpu.makers(headers)
        return headers

    def _recognise(self, t: int, grad: Any) -> Array | None:
        """Return the header of a gradient that was looked at before and is where and as it was."""
        if self._known[t] is None:
            return None
        seen, place, interface = self._known[t]
        if seen() is not grad or _identity(grad) != place:
            return None
        return np.asarray(gpu.Exposed(grad, self.device, interface))

    def prepare(self, spec: Spec, values: tuple[float, ...], stream: Any) -> None:
        """Take the scalars and the stream of a step, and compile its kernel, so that only launching can fail.

        Raises
        ------
        TypeError
            If there is no such stream.
        RuntimeError
            If it is being captured, and the step cannot be.
        """
        self._handle = gpu.stream_handle(stream, self.params[0])
        with driver.on(self.device):
            if streams.capturing(self._handle):
                self._check_capture()
            if spec is not self.spec:
                self._kernel = compiler.device_sweep(spec, self.capturable, self.device)
                if self.capturable:
                    self._advance = compiler.device_counter(self._method.compiled_values(), spec, self.device)
                self.spec, self.values = spec, Packer(spec.scalars, spec.compute)
        self.values.pack(values)

    def _check_capture(self) -> None:
        if not self.capturable:
            raise RuntimeError(
                "a step is being captured into a graph, where its number and lr would be frozen: make the optimizer "
                "with capturable=True"
            )
        if not np.array_equal(self.found, self._sent):
            raise RuntimeError(
                "gradients are at other addresses than at the last step before the capture: take a step with the very "
                "gradients that the graph will use, then capture"
            )
        if others := self._makers - {self._handle}:
            raise RuntimeError(
                f"arrays of the step say that they are made on the streams {sorted(others)}, for which a step in a "
                "graph cannot wait: make them on the stream that is captured"
            )

    def enqueue(self, step: int) -> None:
        """Ask the device to update all tensors of the group, in the order of the stream."""
        assert self.spec is not None  # prepare() comes first
        handle = self._handle
        with driver.on(self.device):
            _wait(self._makers, handle)
            self._makers.clear()
            if not np.array_equal(self.found, self._sent):
                self._uploads.send(self.found, driver.address_of(self._table), handle)  # its first row
                self._sent[:] = self.found
            scalars: Any = tuple(self.values.array)
            number: Any = step
            if self.capturable:
                scalars = driver.argument(driver.address_of(self._scalars))
                clock = driver.argument(driver.address_of(self._clock))
                streams.launcher(self._advance, 1, 1, handle)(clock, scalars)
                number = clock
            kernel = _launcher(self._kernel, self.spec, self._count, self.device, handle)
            table, chunks = self._addresses
            kernel(table, len(self.params), chunks, self._count, scalars, self.seed, number)

    def write_clock(self, step: int | None, lr: float) -> None:
        """Set the learning rate on the device, and the step number unless it is None."""
        with driver.on(self.device):
            address = driver.address_of(self._clock)
            if step is not None:
                driver.write(address, np.array([step], np.int64))
            driver.write(address + 8, np.array([lr], np.float64))

    def read_step(self) -> int:
        """Return the step number on the device, after all work enqueued on the device."""
        out = np.zeros(1, np.int64)
        with driver.on(self.device):
            driver.read(driver.address_of(self._clock), out)
        return int(out[0])


def launch_on_devices(
    groups: Sequence[DeviceGroup], launches: Sequence[threads.Launch], step: int, *others: tuple[Any, ...]
) -> None:
    """Enqueue the steps of groups on devices, then do as :func:`fastopt._engine.threads.launch` does.

    All of it, whatever comes between: signals wait, and where a device fails the others go on.
    """
    failed: list[Exception] = []
    with deferred():
        for group in groups:
            try:
                group.enqueue(step)
            except Exception as error:  # noqa: BLE001  raised below
                failed.append(error)
        threads.launch(launches, *others)
    if failed:
        raise failed[0]


def update(
    method: Update, given: Sequence[Any], names: Sequence[str], look: Callable[..., Any], stream: Any, seed: int
) -> None:
    """Check the gradient, the parameter and the states of a call, all on one GPU, and update them.

    `look` checks the headers and returns the codecs and the number of the step.
    """
    headers = [gpu.header(name, array) for name, array in zip(names, given, strict=True)]
    codecs, step = look(headers)
    devices = {gpu.exposed(h).device for h in headers}
    if len(devices) != 1:
        raise ValueError(f"{', '.join(names)} must be on one GPU, got the GPUs {sorted(devices)}")
    (device,) = devices
    p = headers[1]
    values = method.values(step)
    spec = method.spec(codecs, len(values))
    scalars = Packer(spec.scalars, spec.compute)
    scalars.pack(values)
    handle = gpu.stream_handle(stream, p)
    with driver.on(device):
        if streams.capturing(handle):
            raise RuntimeError(
                "a function cannot be captured into a graph, where its step number would be frozen: use the class with "
                "capturable=True"
            )
        kernel = compiler.device_sweep(spec, False, device)
        chunks, count = _chunks(p.size, device)
        table, uploads, lock = _table(device, handle, threading.get_ident() if handle == _PER_THREAD else 0)
        row = np.zeros(_ROWS, np.int64)
        row[: len(headers)] = [h.ctypes.data for h in headers]
        places = [driver.argument(driver.address_of(a)) for a in (table, chunks)]
        launch = _launcher(kernel, spec, count, device, handle)
        with lock:  # another thread's call on this stream comes before both or after both
            _wait(gpu.makers(headers), handle)
            uploads.send(row, driver.address_of(table), handle)
            launch(places[0], 1, places[1], count, tuple(scalars.array), seed, step)


# More arrays than any update has.
_ROWS = 16
# CUDA's handle for the default stream of the calling thread: the same for all threads, and in each another stream.
_PER_THREAD = 2


def _launcher(kernel: Any, spec: Spec, chunks: int, device: int, handle: int) -> Any:
    """Return a sweep with the launch configuration for so many chunks."""
    blocks = max(1, min(chunks, streams.blocks(device)))
    return streams.launcher(kernel, blocks, compiler.device_threads(spec, streams.threads()), handle)


def _wait(makers: Collection[int], handle: int) -> None:
    """Have a stream wait for those on which arrays are made."""
    for maker in makers:
        if maker != handle:
            streams.wait(maker, handle)


@functools.lru_cache(maxsize=16)
def _chunks(size: int, device: int) -> tuple[Any, int]:
    """Return the chunks of one tensor, on the device, and their number."""
    _, chunks = chunks_of([size], CHUNK)
    with driver.on(device):
        return driver.copy_of(np.concatenate([chunks.reshape(-1), np.zeros(1, np.int64)])), len(chunks)


@functools.lru_cache(maxsize=64)
def _table(device: int, handle: int, thread: int) -> tuple[Any, streams.Uploads, threading.Lock]:
    """Return the table of addresses of the calls on one stream, whose order keeps them apart, and its lock."""
    del thread  # which has a stream of its own
    with driver.on(device):
        return driver.copy_of(np.zeros(_ROWS, np.int64)), streams.Uploads(_ROWS), threading.Lock()


def _remember(grad: Any, header: Array) -> Any:
    """Return what :meth:`DeviceGroup._recognise` needs; it does not keep the gradient alive."""
    place = _identity(grad)
    return None if place is None else (weakref.ref(grad), place, gpu.exposed(header).__array_interface__)


def _identity(grad: Any) -> Any:
    """Return what identifies the memory of an array, or None if only its interface does."""
    if type(grad).__module__.partition(".")[0] == "torch":
        return grad.data_ptr(), grad.shape, grad.stride(), grad.dtype
    return None
