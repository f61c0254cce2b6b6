"""What this installation can do."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np

from .._arrays import driver, headers
from .._engine import threads
from .._kernels import cache
from .._version import __version__

_SIMD = (("avx512f", 512), ("avx2", 256), ("avx", 256), ("vsx", 128), ("vector", 128))


def _simd_bits(features: Mapping[str, bool], machine: str) -> int:
    """Return the width of the vector registers: at least 128 on these kinds of processors, whatever LLVM says."""
    least = 128 if machine.lower() in ("x86_64", "amd64", "arm64", "aarch64") else 64
    return max([least, *(bits for name, bits in _SIMD if features.get(name))])


def info() -> dict[str, Any]:
    """Return what fastopt runs on: versions, threads, SIMD, cache, CUDA.

    Starts Numba's threads if they do not run yet, to name the layer that they run on.

    Returns
    -------
    dict
        ``fastopt``, ``python``, ``numpy``, ``numba``, ``llvm``: versions. ``threading_layer``: its name, or
        why steps are serial. ``threads``: how many a large step uses now. ``parallel_from``: the number of
        elements from which a step is parallel. ``cpu``: what LLVM calls the processor. ``simd_bits``: the
        width of its vector registers. ``kernel_cache``: "on", or why not. ``array_headers``: "read
        directly", or why not. ``cuda``: whether it can be used, and if not, why.

    Raises
    ------
    ValueError
        If the environment asks for a threading layer that cannot be loaded.

    Examples
    --------
    >>> import fastopt
    >>> fastopt.info()["parallel_from"]
    32768
    """
    features = llvm.get_host_cpu_features()
    return {
        "fastopt": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "threading_layer": threads.layer(),
        "threads": threads.budget(),
        "parallel_from": threads.PARALLEL_FROM,
        "cpu": llvm.get_host_cpu_name(),
        "simd_bits": _simd_bits(features, platform.machine()),
        "kernel_cache": cache.find_problem() or "on",
        "array_headers": headers.probe() or "read directly",
        "cuda": driver.describe_devices(),
    }
