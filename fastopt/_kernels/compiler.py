"""(rule, dtype, target) -> kernel: the only place with jit flags and cache policy.

Kernels are compiled for one exact signature each, on first use, and kept on disk by :mod:`fastopt._kernels.cache`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.core.bytecode import FunctionIdentity
from numba.core.compiler_lock import global_compiler_lock

from .._arrays import driver, exchange, headers
from .._storage.int8 import BLOCK
from .._storage.layout import Layout
from .._storage.layout import layout as layout_of
from . import access, cpu, cpu_reduce, targets
from .cache import KernelCache
from .libraries import FusedCompiler, KernelCompiler, UpdateCompiler
from .parts import PART, PartCompiler, named_part, part
from .symbols import digest, named

# No exception on division by zero: the check keeps LLVM from packing the loop. No fast-math flag: every operation is
# rounded by itself as IEEE 754 says, so that results are those of NumPy's expressions and the same on every processor.
EXACT: dict[str, Any] = {"error_model": "numpy", "fastmath": False}
FLAGS: dict[str, Any] = EXACT | {"nogil": True, "no_cfunc_wrapper": True}

# On a GPU, likewise; `toolchain.compiled` keeps NVVM from fusing, and nothing is left to be optimized while linking.
DEVICE: dict[str, Any] = {"fastmath": False, "opt": True, "lto": False}
# What a thread of a GPU moves at a time, of each array: the most that one instruction can.
DEVICE_BYTES = 16

TABLE = types.Array(types.uint64, 2, "C")
VECTOR = types.Array(types.int64, 1, "C")
MATRIX = types.Array(types.int64, 2, "C")


class Spec(NamedTuple):
    """What a kernel is compiled from.

    The rule, how many scalars it takes, the codecs of the gradient, the parameter and the states, and whether every
    operation is rounded by itself on the CPU, as it always is on a GPU. And of what the rule takes norms over a tensor,
    if it does: the function that returns these numbers of an element, and how many they are.
    """

    rule: Callable[..., Any]
    scalars: int
    codecs: tuple[str, ...]
    reproducible: bool = True
    norms: Callable[..., Any] | None = None
    measured: int = 0

    @property
    def columns(self) -> int:
        """How many numbers a rule takes that are the same for all elements of a tensor."""
        return self.scalars + self.measured

    @property
    def text(self) -> str:
        """The codecs as compiled code takes them."""
        return " ".join(self.codecs)

    @property
    def layout(self) -> Layout:
        """The arrays of a tensor."""
        return layout_of(self.text)

    @property
    def compute(self) -> np.dtype[Any]:
        """The dtype of the arithmetic."""
        return self.layout.compute

    @property
    def lanes(self) -> int:
        """How many elements of each array a thread of a GPU moves at a time."""
        return DEVICE_BYTES // self.compute.itemsize

    @property
    def values(self) -> types.Type:
        """The type of the array that carries the scalars."""
        return types.Array(numba.from_dtype(self.compute), 2, "C")


#: How an update inside a user's compiled code is compiled: its scalars are to the bit what Python computes.
INSIDE: dict[str, Any] = EXACT | PART | {"pipeline_class": UpdateCompiler}


def _compile(function: Callable[..., Any], signature: Any, *, reproducible: bool = True, **flags: Any) -> Any:
    if numba.config.DISABLE_JIT:
        raise RuntimeError("fastopt cannot run with NUMBA_DISABLE_JIT=1: its kernels are compiled")
    flags = FLAGS | flags
    contents = digest(function, flags, reproducible)  # which says how the loop within was compiled
    with global_compiler_lock:  # and no fork, which waits for it, leaves a child with a lock of what happens here
        # Numba imports it when a kernel is first called with an array. It is not imported with fastopt: 20 ms.
        importlib.import_module("numpy.ma")
        kernel = numba.njit(**flags, pipeline_class=KernelCompiler)(named(function, contents))
        kernel._cache = KernelCache(function.__name__, contents)
        # What is compiled with the kernel, such as the loop that `parallel=True` makes of a prange, has names of
        # Numba's own, of which only the count can be set apart; see fastopt._kernels.symbols.
        count = FunctionIdentity._unique_ids
        FunctionIdentity._unique_ids = itertools.count(int(hashlib.sha256(contents.encode()).hexdigest()[:15], 16))
        try:
            kernel.compile(signature)
        finally:
            FunctionIdentity._unique_ids = count
    kernel.disable_compile()
    return kernel


@functools.cache
def run(rule: Callable[..., Any], codecs: str, reproducible: bool) -> Callable[..., None]:
    """Return the loop over the elements of one tensor, for use inside compiled code.

    It has its flags whatever those of the code around it are; where it is not `reproducible`, it alone is fused.
    """
    function = cpu.make_run(rule, codecs)
    named(function, digest(function, reproducible))
    return part(function, PartCompiler if reproducible else FusedCompiler, **EXACT)


@functools.cache
def run_whole(spec: Spec) -> Callable[..., None]:
    """Return the same for whole tensors, of which the norms are taken first if the rule has some."""
    loop = run(spec.rule, spec.text, spec.reproducible)
    if spec.norms is None:
        return loop
    return named_part(cpu_reduce.make_measured(spec.norms, loop, spec.text, spec.measured), **EXACT)


@functools.cache
def sweep(spec: Spec, parallel: bool) -> Any:
    """Return the kernel that updates all tensors of one dtype."""
    function = cpu.make_sweep(run(spec.rule, spec.text, spec.reproducible), spec.text, spec.columns)
    signature = types.void(TABLE, VECTOR, MATRIX, VECTOR, spec.values, types.int64, types.int64)
    return _compile(function, signature, reproducible=spec.reproducible, parallel=parallel)


@functools.cache
def direct(spec: Spec) -> Any:
    """Return the kernel that checks and updates one small tensor."""
    function = cpu.make_direct(run_whole(spec), spec.text, spec.scalars)
    signature = types.int64(VECTOR, MATRIX, TABLE, spec.values, types.int64, types.int64, types.int64, types.int64)
    return _compile(function, signature, reproducible=spec.reproducible)


@functools.cache
def norms(spec: Spec, parallel: bool) -> Any:
    """Return the kernel that sums the squares of which a rule takes norms, by chunks."""
    assert spec.norms is not None
    function = cpu_reduce.make_norms(spec.norms, spec.text, spec.scalars, spec.measured)
    signature = types.void(TABLE, MATRIX, VECTOR, spec.values, types.uint64)
    return _compile(function, signature, parallel=parallel)


@functools.cache
def gather() -> Any:
    """Return the compiled check of :mod:`fastopt._arrays.headers`, or None where headers cannot be read."""
    if headers.probe() is not None:
        return None
    number = types.int64
    signature = number(MATRIX, MATRIX, MATRIX, number, VECTOR, number, number, number)
    return _compile(headers.gather, signature, nogil=False)  # what it looks at must stay where it is


@functools.cache
def where() -> Any:
    """Return the compiled :func:`fastopt._arrays.exchange.where`, or None where lists cannot be read."""
    if headers.probe() is not None:
        return None
    number = types.int64
    signature = types.boolean(number, number, VECTOR, MATRIX, VECTOR, number, VECTOR)
    return _compile(exchange.where, signature, nogil=False)


@functools.cache
def sums(codec: str, parallel: bool) -> Any:
    """Return the kernel that reduces arrays in a codec, or results."""
    signature = types.void(TABLE, MATRIX, types.uint64, types.uint64)
    return _compile(cpu_reduce.make_sums(codec), signature, parallel=parallel)


def device_kernel(spec: Spec, in_memory: bool, counted: bool, limited: bool = False) -> tuple[Callable[..., None], Any]:
    """Return the CUDA sweep and its signature.

    `in_memory`: the scalars of a step are in the device's memory, by group; `counted`: so is its number; `limited`: so
    is the number of chunks.
    """
    from . import cuda as loops  # loads numba.cuda

    one, packed = (device_access(spec, lanes) for lanes in (1, spec.lanes))
    function = loops.make_sweep(spec.rule, one, packed, in_memory, counted, limited)
    address, number = types.uint64, types.int64
    values = address if in_memory else types.UniTuple(numba.from_dtype(spec.compute), spec.columns)
    step = address if counted else number
    count = address if limited else number
    return function, types.void(address, number, address, count, address, values, number, step)


def device_threads(spec: Spec, usual: int) -> int:
    """Return how many threads a block of a GPU has: where there are scales, a block of numbers is theirs together."""
    return BLOCK // spec.lanes if spec.layout.scales else usual


def device_access(spec: Spec, lanes: int) -> access.Access:
    """Return how a kernel on a GPU, or in the simulator, moves so many elements at a time."""
    return access.of(device_target(), spec.text, lanes, spec.columns)


def device_target() -> targets.Target:
    return targets.SIMULATOR if driver.simulated() else targets.cuda()


@functools.cache
def device_sweep(spec: Spec, in_memory: bool, counted: bool, device: int, limited: bool = False) -> Any:
    """Return the kernel that updates all tensors of one dtype on the GPU `device`, which is the current one."""
    from . import toolchain

    return toolchain.compiled(*device_kernel(spec, in_memory, counted, limited), **DEVICE)


def device_counter_kernel(
    values: Callable[..., Any], spec: Spec, limited: bool = False
) -> tuple[Callable[..., None], Any]:
    """Return the CUDA kernel that counts a step and works out its scalars, and its signature."""
    from . import cuda as loops

    address = types.uint64
    return loops.make_counter(values, device_access(spec, 1), limited), types.void(address, address, address)


_advances: dict[tuple[str, Spec, int, bool], Any] = {}


def device_counter(values: Callable[..., Any], spec: Spec, device: int, limited: bool = False) -> Any:
    """Return the kernel that counts a step on the GPU `device` and works out its scalars, as `values` does."""
    from . import toolchain

    key = (values.__qualname__, spec, device, limited)  # the name says what is in it
    if key not in _advances:
        _advances[key] = toolchain.compiled(*device_counter_kernel(values, spec, limited), **DEVICE)
    return _advances[key]
