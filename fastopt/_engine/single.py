"""Plans of a single tensor: what the functions run, on arrays that the caller hands in each time.

A plan is kept for each rule, rounding and dtypes, whatever the numbers of a step are. What a call writes is its own, so
that a plan may be run within itself and by many threads at once.
"""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import driver, gpu
from .._arrays.checks import (
    as_gradient,
    check_array,
    check_disjoint,
    check_gradient,
    check_like,
    format_of,
    is_on_gpu,
)
from .._kernels import compiler
from .._kernels.cache import warn_if_useless
from .._kernels.cpu import LARGE, UNSURE
from .._storage.formats import STATES, check_rounding, compute_dtype, param_codec, state_codec
from . import gpu as devices
from . import streams, threads
from .chunks import chunks_of, chunks_there
from .norms import DeviceNorms, HostNorms
from .scalars import ScalarTable, Update

#: The group of the only tensor.
_GROUP = np.zeros(1, np.int64)
_cached_chunks = functools.lru_cache(maxsize=16)(chunks_of)


class _Work:
    """What one call at a time writes: identities and addresses of the arrays, and the scalars."""

    __slots__ = ("ids", "scalars", "set_ids", "table")

    def __init__(self, arrays: int, spec: compiler.Spec) -> None:
        self.ids = np.empty(arrays, np.int64)
        self.set_ids = functools.partial(struct.Struct(f"={arrays}q").pack_into, self.ids.data, 0)
        self.table = np.empty((arrays, 1), np.uint64)
        self.scalars = ScalarTable(1, spec.scalars, spec.compute)


class Single:
    """The plan of one tensor in the host's memory.

    Parameters
    ----------
    spec : Spec
    dtypes : sequence of numpy.dtype
        Of the gradient, the parameter and the states.
    """

    def __init__(self, spec: compiler.Spec, dtypes: Sequence[np.dtype[Any]]) -> None:
        self.spec, self._count = spec, len(dtypes)
        self._kinds = np.array([[d.num for d in dtypes], [d.itemsize for d in dtypes]], np.int64)
        self._direct = compiler.direct(spec) if compiler.gather() is not None else None
        self._spare: list[_Work] = []

    def run(self, arrays: Sequence[Any], names: Sequence[str], values: tuple[float, ...], seed: int, step: int) -> None:
        """Check the arrays and update them."""
        try:
            work = self._spare.pop()
        except IndexError:
            work = _Work(self._count, self.spec)
        work.scalars.pack(values)
        answer = UNSURE
        if self._direct is not None:
            work.set_ids(*map(id, arrays))
            limit, scalars = threads.PARALLEL_FROM - 1, work.scalars.array
            answer = self._direct(work.ids, self._kinds, work.table, scalars, limit, id(np.ndarray), seed, step)
        if answer == UNSURE:
            arrays = check_arrays(arrays, names)
            work.table[:, 0] = [a.ctypes.data for a in arrays]
        if answer in (UNSURE, LARGE):
            size = arrays[1].size
            kernels = threads.Kernels(functools.partial(compiler.sweep, self.spec), size)
            kernels.prepare()
            scalars = work.scalars.array
            if self.spec.measured:
                norms = HostNorms(self.spec, (size,), _GROUP)
                norms.prepare()
                scalars = norms.run(work.table, scalars)
            threads.launch([(kernels, (work.table, *_cached_chunks((size,)), _GROUP, scalars, seed, step))])
        self._spare.append(work)


#: A plan, and whether it rounds stochastically, by what its kernel depends on.
_PLANS: dict[tuple[Any, ...], tuple[Single, bool]] = {}


def update_arrays(
    method: Update,
    arrays: Sequence[Any],
    names: Sequence[str],
    step: int | None,
    *,
    stream: Any = None,
    rounding: str = "nearest",
    seed: int = 0,
) -> None:
    """Check the gradient, the parameter and the states, in this order, and update them.

    `rounding`: of a parameter of 16 bits, "nearest" or "stochastic", by `seed` and `step`.
    """
    p = arrays[1]
    if not isinstance(p, np.ndarray) and is_on_gpu(p):
        _update_on_gpu(method, arrays, names, step, stream, rounding, seed)
        return
    if stream is not None:
        raise TypeError(f"p is on the CPU, where an update takes no stream; got {stream!r}")
    try:
        key = (method._kernel_key, rounding, *[a.dtype for a in arrays])
        found = _PLANS.get(key)
    except AttributeError:  # no arrays, or one of another library
        arrays, found = [as_gradient(arrays[0]), *arrays[1:]], None
    if found is None:
        codecs = _codecs_for(arrays, names, rounding)
        key = (method._kernel_key, rounding, *[a.dtype for a in arrays])
        values = method.values(1 if step is None else step)
        plan = Single(method.spec(codecs, len(values)), [a.dtype for a in (as_gradient(arrays[0]), *arrays[1:])])
        found = _PLANS[key] = plan, any(codec.endswith("-stochastic") for codec in codecs)
    plan, stochastic = found
    step = _step_for(stochastic, step)
    values = method.values(step)
    if plan.spec.codecs not in method._specs:
        method.spec(plan.spec.codecs, len(values))  # which checks the numbers of this method
    plan.run(arrays, names, values, seed, step)


def _step_for(stochastic: bool, step: int | None) -> int:
    """Return the number of the step, which may be left out where nothing depends on it."""
    if step is not None:
        return step
    if stochastic:
        raise TypeError("step must be given: stochastic rounding depends on the number of this update")
    return 1


def _codecs_for(arrays: Sequence[Any], names: Sequence[str], rounding: str) -> tuple[str, ...]:
    """Check arrays in Python; return the codecs for their dtypes."""
    warn_if_useless()
    arrays = check_arrays(arrays, names)
    formats = [str(format_of(a.dtype)) for a in arrays]
    compute = compute_dtype(formats[1])
    check_rounding(rounding, None, formats[1:2])
    for name, format_, array in zip(names[2:], formats[2:], arrays[2:], strict=True):
        if format_ not in STATES[compute]:
            allowed = ", ".join(STATES[compute][:3])
            raise TypeError(f"{name} must have one of the dtypes {allowed} beside {formats[1]}; got {array.dtype}")
    states = (state_codec(name, formats[1], square=False) for name in formats[2:])
    return formats[0], param_codec(formats[1], rounding, None), *states


def check_arrays(arrays: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Raise for what is wrong with the arrays of a call; the gradient may come back as another object."""
    arrays = [as_gradient(arrays[0]), *arrays[1:]]
    p = arrays[1]
    check_array("p", p, written=True)
    for name, array in zip(names, arrays, strict=True):
        check_array(name, array, written=name != "g")
        if name != "p":
            check_gradient(name, array, "p", p)
        check_like(name, array, "p", p)
    check_disjoint(zip(names, arrays, strict=True))
    return arrays


# CUDA's handle for the default stream of the calling thread: the same for all threads, and in each another stream.
_PER_THREAD = 2


def _update_on_gpu(
    method: Update,
    given: Sequence[Any],
    names: Sequence[str],
    step: int | None,
    stream: Any,
    rounding: str,
    seed: int,
) -> None:
    """Do the same for arrays that are all on one GPU."""
    views = [gpu.view(name, array) for name, array in zip(names, given, strict=True)]
    codecs = _codecs_for(views, names, rounding)
    step = _step_for(any(codec.endswith("-stochastic") for codec in codecs), step)
    numbers = {view.device for view in views if view.device is not None}
    if len(numbers) != 1:
        raise ValueError(f"{', '.join(names)} must be on one GPU, got the GPUs {sorted(numbers)}")
    (device,) = numbers
    p = views[1]
    values = method.values(step)
    spec = method.spec(codecs, len(values))
    scalars = ScalarTable(1, spec.scalars, spec.compute)
    scalars.pack(values)
    handle = gpu.stream_handle(stream, p)
    with driver.on(device):
        if streams.capturing(handle):
            raise RuntimeError(
                "a function cannot be captured into a graph, where its step number would be frozen: use the class with "
                "capturable=True"
            )
        kernel = compiler.device_sweep(spec, spec.measured > 0, False, device)
        chunks, count = _chunks(p.size, device)
        thread = threading.get_ident() if handle == _PER_THREAD else 0
        table, uploads, lock = _table(device, handle, thread, len(views))
        row = np.array([view.address for view in views], np.int64)
        table_at, chunks_at = (driver.argument(driver.address_of(a)) for a in (table, chunks))
        launch = devices.sweep_launcher(kernel, spec, count, device, handle)
        with lock:  # another thread's call on this stream comes before both or after both
            devices.wait_for(gpu.makers(views), handle)
            uploads.send(row, driver.address_of(table), handle)
            groups: Any = driver.argument(0)
            given_scalars: Any = tuple(scalars.array[0])
            if spec.measured:
                norms, sent = _norms(spec, device, handle, thread, p.size)
                sent.send(scalars.array, handle)
                norms.enqueue(table_at, chunks_at, norms.tensors, sent.place, handle)
                groups, given_scalars = norms.tensors, norms.rows
            launch(table_at, 1, chunks_at, count, groups, given_scalars, seed, step)


@functools.lru_cache(maxsize=64)
def _norms(spec: compiler.Spec, device: int, handle: int, thread: int, size: int) -> tuple[DeviceNorms, streams.Sent]:
    """Return the norms of one tensor and its scalars, of the calls on one stream, whose order keeps them apart."""
    del handle, thread  # which has a stream of its own
    return DeviceNorms(spec, [size], device), streams.Sent(spec.scalars * spec.compute.itemsize)


@functools.lru_cache(maxsize=16)
def _chunks(size: int, device: int) -> tuple[Any, int]:
    """Return the chunks of one tensor, on the device, and their number."""
    _, chunks = chunks_of([size], devices.CHUNK)
    with driver.on(device):
        return chunks_there(chunks), len(chunks)


@functools.lru_cache(maxsize=64)
def _table(device: int, handle: int, thread: int, arrays: int) -> tuple[Any, streams.Uploads, threading.Lock]:
    """Return the table of addresses of the calls on one stream, whose order keeps them apart, and its lock.

    Calls with other numbers of arrays have another one.
    """
    del thread  # which has a stream of its own
    with driver.on(device):
        return driver.copy_of(np.zeros(arrays, np.int64)), streams.Uploads(arrays), threading.Lock()
