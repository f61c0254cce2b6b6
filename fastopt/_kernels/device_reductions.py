"""The reductions on a GPU, compiled: of gradients, of what a rule computes, and what follows from their norm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import types

from . import norms as norms_access
from .compiler import DEVICE, Spec, device_target


def device_norms_kernel(spec: Spec) -> tuple[Callable[..., None], Any]:
    """Return the CUDA kernel that sums the squares of which a rule takes norms, by chunks, and its signature."""
    from . import cuda_reduce as loops  # loads numba.cuda

    assert spec.norms is not None
    address, number = types.uint64, types.int64
    signature = types.void(address, number, address, number, address, address, address)
    return loops.make_norms(spec.norms, _device_norms_access(spec), spec.measured), signature


def device_rows_kernel(spec: Spec) -> tuple[Callable[..., None], Any]:
    """Return the CUDA kernel that puts the scalars of each tensor together, and its signature."""
    from . import cuda_reduce as loops

    address = types.uint64
    function = loops.make_rows(_device_norms_access(spec), spec.scalars, spec.measured)
    return function, types.void(address, address, address, types.int64, address)


def _device_norms_access(spec: Spec) -> norms_access.Measured:
    return norms_access.of(device_target(), spec.text, spec.scalars, spec.measured)


@functools.cache
def device_norms(spec: Spec, device: int) -> tuple[Any, Any]:
    """Return both, compiled, on the GPU `device`, which is the current one."""
    from . import toolchain

    del device
    kernels = device_norms_kernel(spec), device_rows_kernel(spec)
    norms, rows = (toolchain.compiled(*kernel, **DEVICE) for kernel in kernels)
    return norms, rows


def device_sums_kernel(codec: str) -> tuple[Callable[..., None], Any]:
    """Return the CUDA kernel that reduces arrays in a codec, or results, and its signature."""
    from . import cuda_reduce as loops

    address = types.uint64
    return loops.make_device_sums(device_target(), codec), types.void(address, address, types.int64, address, address)


@functools.cache
def device_sums(codec: str, device: int) -> Any:
    """Return the compiled one on the GPU `device`, which is the current one."""
    from . import toolchain

    del device
    return toolchain.compiled(*device_sums_kernel(codec), **DEVICE)


def device_limit_kernels(spec: Spec) -> list[tuple[Callable[..., None], Any]]:
    """Return the CUDA kernels that judge the norm of all gradients and put the factor into scalars; signatures."""
    from . import cuda_reduce as loops

    address, number = types.uint64, types.int64
    memory = norms_access.of(device_target(), spec.text, spec.scalars, 0)
    return [
        (loops.make_limit(device_target()), types.void(address, address, address, number, address)),
        (loops.make_factor(memory, spec.scalars), types.void(address, number, address)),
    ]


@functools.cache
def device_limits(spec: Spec, device: int) -> tuple[Any, Any]:
    """Return both, compiled, on the GPU `device`, which is the current one."""
    from . import toolchain

    del device
    limit, factor = (toolchain.compiled(*kernel, **DEVICE) for kernel in device_limit_kernels(spec))
    return limit, factor
