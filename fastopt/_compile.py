"""(rule, dtype, target) -> kernel: the only place with jit flags and cache policy.

Kernels are compiled for one exact signature each, on first use, and kept on disk by Numba.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys
from numba.extending import register_jitable

from . import _headers
from ._layout import Layout
from ._layout import layout as layout_of
from ._loops import cpu
from ._names import digest, named_by_contents
from ._scaled import BLOCK

# No exception on division by zero: the check keeps LLVM from packing the loop. `contract` alone of the
# fast-math flags: a multiplication and an addition may become one fused operation; NaN and infinity
# keep their meaning.
_ELEMENTS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
FLAGS: dict[str, Any] = _ELEMENTS | {"nogil": True}
# For the scalars of a step: they must be to the bit what Python computes.
EXACT: dict[str, Any] = {"error_model": "numpy", "fastmath": False}

# On a GPU. Products and sums are contracted there too; divisions and roots are rounded as IEEE 754 says.
DEVICE: dict[str, Any] = {"fastmath": False, "opt": True}
# What a thread of a GPU moves at a time, of each array: the most that one instruction can.
DEVICE_BYTES = 16

#: Why kernels are not kept on disk, or None.
uncached: str | None = None

TABLE = types.Array(types.uint64, 2, "C")
VECTOR = types.Array(types.int64, 1, "C")
MATRIX = types.Array(types.int64, 2, "C")


class Spec(NamedTuple):
    """What a kernel is compiled from.

    The rule, how many scalars it takes, and the codecs of the gradient, the parameter and the states.
    """

    rule: Callable[..., Any]
    scalars: int
    codecs: tuple[str, ...]

    @property
    def text(self) -> str:
        """The codecs as compiled code takes them."""
        return " ".join(self.codecs)

    @property
    def layout(self) -> Layout:
        """The arrays of a tensor."""
        return layout_of(self.text)

    @property
    def number(self) -> np.dtype[Any]:
        """In what is computed."""
        return self.layout.number

    @property
    def lanes(self) -> int:
        """How many elements of each array a thread of a GPU moves at a time."""
        return DEVICE_BYTES // self.number.itemsize

    @property
    def scalar_layout(self) -> tuple[np.dtype[Any], ...]:
        return (self.number,) * self.scalars

    @property
    def values(self) -> types.Type:
        """The type of the array that carries the scalars."""
        return types.Array(numba.from_dtype(self.number), 1, "C")


@functools.cache
def _stamp() -> int:
    """Return a number that changes when a file changes that Numba's cache does not look at."""
    here = Path(__file__).parent
    own = (
        "_blocks.py",
        "_codecs.py",
        "_headers.py",
        "_layout.py",
        "_noise.py",
        "_pairs.py",
        "_scaled.py",
        "_storage.py",
    )
    files = [Path(__file__), *(here / name for name in own)]
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return zlib.crc32(repr(stats).encode())


class _KernelCache(FunctionCache):  # type: ignore[misc]  # numba is untyped
    """Numba's disk cache, with three differences.

    - The key is the digest of :mod:`fastopt._names`, :func:`_stamp` and the flags: without the flags, the serial
      and the parallel kernel of one sweep are the same to Numba, and whichever was compiled first serves for
      both.
    - Loading does not first set up everything that compiling would need, which is most of the time from
      starting a process to its first step (about 0.1 s of 0.13 s; with SciPy installed 0.2 s of 0.23 s).
    - A file that cannot be read counts as a miss, and one that cannot be written is not a failed step.
    """

    def __init__(self, function: Callable[..., Any], flags: dict[str, Any]) -> None:
        super().__init__(function)
        self._own_key = (digest(function), repr(sorted(flags.items())), _stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # what kernels are linked against
        try:
            return self._load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError):
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _give_up_caching(str(error))

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (sig, codegen.magic_tuple(), *self._own_key)


def _give_up_caching(why: str) -> None:
    global uncached
    if uncached is None:
        uncached = why
        warnings.warn(
            f"fastopt cannot keep compiled kernels on disk, so each process compiles them anew ({why}); set "
            "NUMBA_CACHE_DIR to a writable folder",
            RuntimeWarning,
            stacklevel=2,
        )


def _compile(function: Callable[..., Any], signature: Any, **flags: Any) -> Any:
    if numba.config.DISABLE_JIT:
        raise RuntimeError("fastopt cannot run with NUMBA_DISABLE_JIT=1: its kernels are compiled")
    function = named_by_contents(function)
    kernel = numba.njit(**FLAGS, **flags)(function)
    try:
        kernel._cache = _KernelCache(function, FLAGS | flags)
    except RuntimeError as error:  # Numba's word for finding no folder to write to
        _give_up_caching(str(error))
    with global_compiler_lock:
        # The loop that `parallel=True` makes of a prange has a name of Numba's own, of which only the
        # count can be set apart; see fastopt._names.
        count = FunctionIdentity._unique_ids
        FunctionIdentity._unique_ids = itertools.count(int(digest(function), 16))
        try:
            kernel.compile(signature)
        finally:
            FunctionIdentity._unique_ids = count
    kernel.disable_compile()
    return kernel


def run(spec: Spec) -> Callable[..., None]:
    """Return the loop over the elements of one tensor, for use inside compiled code.

    It has its flags whatever those of the code around it are.
    """
    function = named_by_contents(cpu.make_run(spec.rule, spec.text))
    loop: Callable[..., None] = register_jitable(**_ELEMENTS)(function)
    return loop


@functools.cache
def sweep(spec: Spec, parallel: bool) -> Any:
    """Return the kernel that updates all tensors of one dtype."""
    function = cpu.make_sweep(run(spec), spec.text, spec.scalar_layout)
    signature = types.void(TABLE, VECTOR, MATRIX, spec.values, types.int64, types.int64)
    return _compile(function, signature, parallel=parallel)


@functools.cache
def direct(spec: Spec) -> Any:
    """Return the kernel that checks and updates one small tensor."""
    function = cpu.make_direct(run(spec), spec.text, spec.scalar_layout)
    signature = types.int64(VECTOR, MATRIX, TABLE, spec.values, types.int64, types.int64, types.int64, types.int64)
    return _compile(function, signature)


@functools.cache
def refresh() -> Any:
    """Return the compiled gradient check of :mod:`fastopt._headers`, or None where headers cannot be read."""
    if _headers.probe() is not None:
        return None
    signature = types.int64(MATRIX, TABLE, MATRIX, types.int64, types.int64, types.int64, types.int64)
    return _compile(_headers.refresh, signature)


def device_kernel(spec: Spec, on_device: bool) -> tuple[Callable[..., None], Any]:
    """Return the CUDA sweep and its signature; `on_device`: the scalars of a step are in memory there."""
    from ._loops import cuda as loops  # loads numba.cuda

    function = loops.make_sweep(spec.rule, device_storage(spec), spec.lanes, len(spec.layout.scales), on_device)
    values = types.uint64 if on_device else types.UniTuple(numba.from_dtype(spec.number), spec.scalars)
    step = types.uint64 if on_device else types.int64
    return function, types.void(types.uint64, types.int64, types.uint64, types.int64, values, types.int64, step)


def device_threads(spec: Spec, usual: int) -> int:
    """Return how many threads a block of a GPU has: where there are scales, a block of numbers is theirs together."""
    return BLOCK // spec.lanes if spec.layout.scales else usual


def device_storage(spec: Spec) -> Any:
    """Return how a kernel reads and writes on a GPU, or in the simulator."""
    from ._cuda import toolchain

    if toolchain.simulated():
        from ._cuda import simulated

        return simulated.Storage(spec.layout, spec.lanes, spec.scalars)
    from ._cuda import storage

    return storage.Storage(spec.layout, spec.lanes, spec.scalars)


@functools.cache
def device_sweep(spec: Spec, on_device: bool, device: int) -> Any:
    """Return the kernel that updates all tensors of one dtype on the GPU `device`, which is the current one."""
    from ._cuda import toolchain

    return toolchain.compiled(*device_kernel(spec, on_device), **DEVICE)


def device_counter(values: Callable[..., Any], spec: Spec) -> tuple[Callable[..., None], Any]:
    """Return the CUDA kernel that counts a step and works out its scalars, and its signature."""
    from ._loops import cuda as loops

    return loops.make_advance(values, device_storage(spec)), types.void(types.uint64, types.uint64)


_advances: dict[tuple[str, Spec, int], Any] = {}


def device_advance(values: Callable[..., Any], spec: Spec, device: int) -> Any:
    """Return the kernel that counts a step on the GPU `device` and works out its scalars, as `values` does."""
    from ._cuda import toolchain

    key = (values.__qualname__, spec, device)  # the name says what is in it
    if key not in _advances:
        _advances[key] = toolchain.compiled(*device_counter(values, spec), **DEVICE)
    return _advances[key]
