"""The plan of a step on one GPU: tables on the device, and the launch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import driver, gpu
from .._arrays.checks import Array, check_array, check_gradient, check_like, is_on_gpu
from .._arrays.view import View
from .._kernels import compiler
from .._kernels.compiler import Spec
from . import streams, threads
from .chunks import chunks_of, chunks_there
from .limit import DeviceLimit, Limits
from .norms import DeviceNorms
from .plan import Group, Members
from .scalars import ScalarTable, Update
from .signals import deferred

# A block takes a chunk at a time: 4 rounds of 256 threads that move 16 bytes. Small, so that few elements meet many
# processors; the table of chunks costs 24 bytes for 4096 elements of 28 bytes each.
CHUNK = 1 << 12


class _Known(NamedTuple):
    """A gradient that was checked: found again, it is not checked again. It is not kept alive by this."""

    seen: Callable[[], Any]
    identity: Any
    address: int
    dtype: np.dtype[Any]


def _nothing() -> None:
    """Return what a reference to nothing does."""


class DeviceGroup(Group):
    """The tensors of one dtype on one device, updated by one launch.

    Parameters
    ----------
    members : Members
        The arrays are views.
    capturable : bool
        Keep the step number and `lr` on the device.
    """

    def __init__(self, members: Members, capturable: bool) -> None:
        super().__init__(members)
        params = self.params
        self.device = params[0].device
        self.capturable = capturable
        self._counted: Any = None  # what the kernel that counts was made of
        if capturable and self.group_count > 1:
            raise TypeError("capturable=True is for one group of parameters: the device works out the scalars of one")
        self._device_norms: DeviceNorms | None = None
        #: What is asked about the norm of the gradients without waiting for it, and what has been found.
        self.limits: Limits | None = None
        self.limit: DeviceLimit | None = None
        self._limited = False
        _, chunks = chunks_of([p.size for p in params], CHUNK)
        self._count = len(chunks)
        self._known: list[_Known | None] = [None] * len(params)
        self.found = np.zeros(len(params), np.int64)
        self._sizes = np.array([p.size for p in params], np.int64)
        self._identities = [_identity(p.owner) for p in params]
        with driver.on(self.device):
            self._sent = np.zeros(len(params), np.int64)
            self._table = driver.copy_of(self.table.view(np.int64).reshape(-1))
            self._uploads = streams.Uploads(len(params))
            self._chunks = chunks_there(chunks)
            self._clock = driver.copy_of(np.zeros(2, np.float64)) if capturable else None
            self._group_of = driver.copy_of(self.groups)
        self._handle = 0
        written = [*params, *(a for row in self.states for a in row)]
        self.makers = gpu.makers(written)  # the streams on which arrays of the next step are made
        self._places = tuple(driver.argument(driver.address_of(a)) for a in (self._table, self._chunks))

    @property
    def grad_lengths(self) -> Array:
        """The bytes of each gradient."""
        return self._sizes * self.grad_dtype.itemsize

    def read(self, grads: Sequence[Any]) -> None:
        """Check the gradients of the group, of those of all parameters, and take their addresses."""
        for t, identity in enumerate(self._identities):
            if _identity(self.params[t].owner) != identity:
                raise ValueError(
                    f"{self.label('params', t)} was moved or resized since the optimizer was made: make a new one"
                )
        known = [self._look_at(t, grads[index]) for t, index in enumerate(self.indices)]
        first = known[0]
        if first.dtype != self.grad_dtype:
            self.use_dtype(first.dtype)
        for t, one in enumerate(known):
            if one.dtype != self.grad_dtype:
                raise TypeError(
                    f"{self.label('grads', t)} must have the dtype of {self.label('grads', 0)}, {first.dtype}, as "
                    f"their parameters have one; got {one.dtype}"
                )
        self.found[:] = [one.address for one in known]

    def _look_at(self, t: int, grad: Any) -> _Known:
        """Return what is known of the gradient of tensor `t`, which is checked unless it is where and as it was."""
        known = self._known[t]
        if known is not None and known.seen() is grad and known.identity == _identity(grad):
            return known
        name, like, p = self.label("grads", t), self.label("params", t), self.params[t]
        if not is_on_gpu(grad):
            raise TypeError(
                f"{name} must be on the GPU {self.device}, as {like} is; got "
                f"{type(grad).__module__}.{type(grad).__qualname__}"
            )
        view = gpu.view(name, grad)
        if view.device != self.device:
            raise ValueError(f"{name} must be on the GPU {self.device}, as its parameter is; it is on {view.device}")
        check_array(name, view, written=self.zeroed)
        check_gradient(name, view, like, p)
        check_like(name, view, like, p)
        if view.stream is not None:
            self.makers.add(view.stream)
        identity = _identity(grad)
        found = _Known(_nothing if identity is None else weakref.ref(grad), identity, view.address, view.dtype)
        self._known[t] = None if identity is None else found
        return found

    def named_gradients(self, grads: Sequence[Any]) -> Iterator[tuple[str, View]]:
        """Yield what errors call the gradients of the group, and their views."""
        for t, index in enumerate(self.indices):
            name = self.label("grads", t)
            yield name, gpu.view(name, grads[index])

    def prepare(self, updates: Sequence[Update], rows: Sequence[tuple[float, ...]], stream: Any) -> None:
        """Take the scalars and the stream of a step, and compile its kernel, so that only launching can fail.

        Raises
        ------
        TypeError
            If there is no such stream.
        RuntimeError
            If it is being captured, and the step cannot be.
        """
        self._handle = gpu.stream_handle(stream, self.params[0])
        update = updates[self.rows[0]]
        spec = update.spec(self.codecs, len(rows[self.rows[0]]))
        with driver.on(self.device):
            if streams.capturing(self._handle):
                self._check_capture()
            limits = self.limits
            if spec is not self.spec or self._limited is not (limits is not None):
                self._limited = limits is not None
                self._in_memory = self.capturable or self.group_count > 1 or spec.measured > 0 or self._limited
                self._kernel = compiler.device_sweep(spec, self._in_memory, self.capturable, self.device, self._limited)
                sizes = [p.size for p in self.params]
                self._device_norms = DeviceNorms(spec, sizes, self.device) if spec.measured else None
                self.spec, self.values = spec, ScalarTable(self.group_count, spec.scalars, spec.compute)
                if self._in_memory:
                    self._scalars = streams.Sent(self.values.array.nbytes)
            if self.capturable and (counted := (spec, self._limited, *update.compiled_from())) != self._counted:
                self._advance = compiler.device_counter(update.compiled_values(), spec, self.device, self._limited)
                self._counted = counted
        self.pack(rows)

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
        if others := self.makers - {self._handle}:
            raise RuntimeError(
                f"arrays of the step say that they are made on the streams {sorted(others)}, for which a step in a "
                "graph cannot wait: make them on the stream that is captured"
            )

    def enqueue(self, step: int) -> None:
        """Ask the device to update all tensors of the group, in the order of the stream."""
        assert self.spec is not None  # prepare() comes first
        handle = self._handle
        with driver.on(self.device):
            wait_for(self.makers, handle)
            self.makers.clear()
            if not np.array_equal(self.found, self._sent):
                self._uploads.send(self.found, driver.address_of(self._table), handle)  # its first row
                self._sent[:] = self.found
            number: Any = step
            scalars: Any = tuple(self.values.array[0])
            groups = driver.argument(driver.address_of(self._group_of))
            if self._in_memory:
                scalars = self._scalars.place
                if not self.capturable:
                    self._scalars.send(self.values.array, handle)
            table, chunks = self._places
            count: Any = self._count
            limit = self.limit if self._limited else None
            if limit is not None:
                limit.enqueue(self.spec, self.format, table, count, handle)
                count = limit.chunks
            if self.capturable:
                clock = driver.argument(driver.address_of(self._clock))
                taken = driver.argument(0) if limit is None else limit.taken
                streams.launcher(self._advance, 1, 1, handle)(clock, scalars, taken)
                number = clock
            if limit is not None and self.limits is not None and self.limits.scales:
                limit.scale(self.spec, scalars, self.group_count, handle)
            kernel = sweep_launcher(self._kernel, self.spec, self._count, self.device, handle)
            if (norms := self._device_norms) is not None:
                norms.enqueue(table, chunks, groups, scalars, handle)
                groups, scalars = norms.tensors, norms.rows
            kernel(table, len(self.params), chunks, count, groups, scalars, self.seed, number)

    def use_limits(self, limits: Limits | None) -> None:
        """Take what is asked about the norm of the gradients of the steps to come, if that is not waited for."""
        self.limits = limits
        if limits is not None:
            if self.limit is None:
                with driver.on(self.device):
                    self.limit = DeviceLimit([p.size for p in self.params], self.device)
            self.limit.use(limits, at_once=self.capturable)

    def write_clock(self, step: int | None, lr: float) -> None:
        """Set the learning rate on the device, and the step number unless it is None."""
        with driver.on(self.device):
            address = driver.address_of(self._clock)
            if step is not None:
                driver.copy_to_device(address, np.array([step], np.int64))
            driver.copy_to_device(address + 8, np.array([lr], np.float64))

    def read_step(self) -> int:
        """Return the step number on the device, after all work enqueued on the device."""
        out = np.zeros(1, np.int64)
        with driver.on(self.device):
            driver.copy_to_host(driver.address_of(self._clock), out)
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


def sweep_launcher(kernel: Any, spec: Spec, chunks: int, device: int, handle: int) -> Any:
    """Return a sweep with the launch configuration for so many chunks."""
    blocks = max(1, min(chunks, streams.blocks(device)))
    return streams.launcher(kernel, blocks, compiler.device_threads(spec, streams.threads()), handle)


def wait_for(makers: Collection[int], handle: int) -> None:
    """Have a stream wait for those on which arrays are made."""
    for maker in makers:
        if maker != handle:
            streams.wait(maker, handle)


def _identity(grad: Any) -> Any:
    """Return what identifies the memory of an array, or None if only its interface does."""
    if type(grad).__module__.partition(".")[0] == "torch":
        return grad.data_ptr(), grad.shape, grad.stride(), grad.dtype
    return None
