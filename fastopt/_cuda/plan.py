"""The plan of a step on one GPU: tables on the device, and the launch."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import _compile
from .._arrays import Array, is_on_gpu
from .._compile import Spec
from .._method import Method, Packer
from .._plan import Group, Members, chunks_of
from . import arrays, toolchain

# A block takes a chunk at a time: 4 rounds of 256 threads that move 16 bytes. Small, so that few elements meet many
# processors; the table of chunks costs 24 bytes for 4096 elements of 28 bytes each.
CHUNK = 1 << 12


class DeviceGroup(Group):
    """The tensors of one dtype on one device, updated by one launch.

    Parameters
    ----------
    members : Members
        The arrays are headers.
    method : Method
        Whose step it is.
    capturable : bool
        Keep the step number and `lr` on the device.
    """

    def __init__(self, members: Members, method: Method, capturable: bool) -> None:
        super().__init__(members)
        params = self.params
        self.device = arrays.exposed(params[0]).device
        self.capturable, self._method = capturable, method
        _, chunks = chunks_of([p.size for p in params], CHUNK)
        self._count = len(chunks)
        self._known: list[Any] = [None] * len(params)
        self._places = [_glance(arrays.exposed(p).owner) for p in params]
        with toolchain.on(self.device):
            self._sent = np.zeros(len(params), np.int64)
            self._table = toolchain.copy_of(self.table.view(np.int64).reshape(-1))
            self._uploads = toolchain.Uploads(len(params))
            self._chunks = toolchain.copy_of(np.concatenate([chunks.reshape(-1), np.zeros(1, np.int64)]))
            self._scalars = toolchain.copy_of(np.zeros(64, np.float64)) if capturable else None
            self._clock = toolchain.copy_of(np.zeros(2, np.float64)) if capturable else None
        self._handle = 0
        self._addresses = tuple(toolchain.argument(toolchain.address_of(a)) for a in (self._table, self._chunks))

    def read(self, grads: Sequence[Any]) -> None:
        """Check the gradients of the group and take their addresses; change nothing else."""
        for t, place in enumerate(self._places):
            if _glance(arrays.exposed(self.params[t]).owner) != place:
                raise ValueError(
                    f"{self.label('params', t)} was moved or resized since the optimizer was made: make a new one"
                )
        headers = []
        for t, grad in enumerate(grads):
            header = self._recognise(t, grad)
            if header is None:
                name = self.label("grads", t)
                if not is_on_gpu(grad):
                    raise TypeError(
                        f"{name} must be on the GPU {self.device}, as {self.label('params', t)} is; got "
                        f"{type(grad).__module__}.{type(grad).__qualname__}"
                    )
                header = arrays.header(name, grad)
                device = arrays.exposed(header).device
                if device != self.device:
                    raise ValueError(f"{name} must be on the GPU {self.device}, as its parameter is; it is on {device}")
                self._known[t] = _remember(grad, header)
            headers.append(header)
        super().read(headers)

    def _recognise(self, t: int, grad: Any) -> Array | None:
        """Return the header of a gradient that was looked at before and is where and as it was."""
        if self._known[t] is None:
            return None
        seen, place, interface = self._known[t]
        if seen() is not grad or _glance(grad) != place:
            return None
        return np.asarray(arrays.Exposed(grad, self.device, interface))

    def aim(self, stream: Any) -> None:
        """Take the stream of the next launch.

        Raises
        ------
        TypeError
            If it is no stream.
        RuntimeError
            If it is being captured, and the step is not capturable or the gradients are at new addresses.
        """
        self._handle = arrays.stream_handle(stream, self.params[0])
        with toolchain.on(self.device):
            if not toolchain.capturing(self._handle):
                return
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

    def prepare(self, spec: Spec, values: tuple[float, ...]) -> None:
        """Take the scalars of a step, and compile its kernel, so that nothing can fail once writing began."""
        with toolchain.on(self.device):
            if spec is not self.spec:
                self._kernel = _compile.device_sweep(spec, self.capturable, self.device)
                if self.capturable:
                    self._advance = _compile.device_advance(self._method.compiled_values(), spec, self.device)
                self.spec, self.values = spec, Packer(spec.scalars, spec.number)
        self.values.pack(values)

    def launch(self, step: int) -> None:
        """Update all tensors of the group, in the order of the stream."""
        assert self.spec is not None  # prepare() comes first
        handle, threads = self._handle, _compile.device_threads(self.spec, toolchain.threads())
        blocks = max(1, min(self._count, toolchain.blocks(self.device)))
        with toolchain.on(self.device):
            if not np.array_equal(self.found, self._sent):
                self._uploads.send(self.found, toolchain.address_of(self._table), handle)  # its first row
                self._sent[:] = self.found
            table, chunks = self._addresses
            scalars: Any = tuple(self.values.array)
            number: Any = step
            if self.capturable:
                scalars = toolchain.argument(toolchain.address_of(self._scalars))
                clock = toolchain.argument(toolchain.address_of(self._clock))
                toolchain.launcher(self._advance, 1, 1, handle)(clock, scalars)
                number = clock
            kernel = toolchain.launcher(self._kernel, blocks, threads, handle)
            kernel(table, len(self.params), chunks, self._count, scalars, self.seed, number)
        self._release()

    def write_clock(self, step: int | None, lr: float) -> None:
        """Set the learning rate on the device, and the step number unless it is None."""
        with toolchain.on(self.device):
            address = toolchain.address_of(self._clock)
            if step is not None:
                toolchain.write(address, np.array([step], np.int64))
            toolchain.write(address + 8, np.array([lr], np.float64))

    def read_step(self) -> int:
        """Return the step number on the device, after all that the device was asked for."""
        out = np.zeros(1, np.int64)
        with toolchain.on(self.device):
            toolchain.read(toolchain.address_of(self._clock), out)
        return int(out[0])


def update(
    method: Method, given: Sequence[Any], names: Sequence[str], look: Callable[..., Any], stream: Any, seed: int
) -> None:
    """Check the gradient, the parameter and the states of a call, all on one GPU, and update them.

    `look` checks the headers and returns the codecs and the number of the step.
    """
    headers = [arrays.header(name, array) for name, array in zip(names, given, strict=True)]
    codecs, step = look(headers)
    devices = {arrays.exposed(h).device for h in headers}
    if len(devices) != 1:
        raise ValueError(f"{', '.join(names)} must be on one GPU, got the GPUs {sorted(devices)}")
    (device,) = devices
    p = headers[1]
    spec = method.spec(codecs)
    scalars = Packer(spec.scalars, spec.number)
    scalars.pack(method.values(step))
    handle = arrays.stream_handle(stream, p)
    with toolchain.on(device):
        if toolchain.capturing(handle):
            raise RuntimeError(
                "a function cannot be captured into a graph, where its step number would be frozen: use the class with "
                "capturable=True"
            )
        kernel = _compile.device_sweep(spec, False, device)
        chunks, count = _chunks(p.size, device)
        table, uploads = _table(device, handle)
        row = np.zeros(_ROWS, np.int64)
        row[: len(headers)] = [h.ctypes.data for h in headers]
        uploads.send(row, toolchain.address_of(table), handle)
        blocks = max(1, min(count, toolchain.blocks(device)))
        places = [toolchain.argument(toolchain.address_of(a)) for a in (table, chunks)]
        launch = toolchain.launcher(kernel, blocks, toolchain.threads(), handle)
        launch(places[0], 1, places[1], count, tuple(scalars.array), seed, step)


# More arrays than any update has.
_ROWS = 16


@functools.lru_cache(maxsize=16)
def _chunks(size: int, device: int) -> tuple[Any, int]:
    """Return the chunks of one tensor, on the device, and their number."""
    _, chunks = chunks_of([size], CHUNK)
    with toolchain.on(device):
        return toolchain.copy_of(np.concatenate([chunks.reshape(-1), np.zeros(1, np.int64)])), len(chunks)


@functools.lru_cache(maxsize=64)
def _table(device: int, handle: int) -> tuple[Any, toolchain.Uploads]:
    """Return the table of addresses of the calls on one stream, whose order keeps them apart."""
    with toolchain.on(device):
        return toolchain.copy_of(np.zeros(_ROWS, np.int64)), toolchain.Uploads(_ROWS)


def _remember(grad: Any, header: Array) -> Any:
    """Return what :meth:`DeviceGroup._recognise` needs; it does not keep the gradient alive."""
    place = _glance(grad)
    return None if place is None else (weakref.ref(grad), place, arrays.exposed(header).__array_interface__)


def _glance(grad: Any) -> Any:
    """Return what shows at a glance whether an array is where and as it was, or None for a closer look."""
    if type(grad).__module__.partition(".")[0] == "torch":
        return grad.data_ptr(), grad.shape, grad.stride(), grad.dtype
    return None
