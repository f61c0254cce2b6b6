"""The storages that are measured, by name; arrays in them, and whether a GPU and the CPU agree on their bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays.checks import Array
from . import gpu
from .catalog import OPTIMIZERS

#: The format of parameters and gradients, and what an optimizer is given. All arithmetic but that of the last two is in
#: float32.
STORAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "bfloat16 states": ("float32", {"state_dtype": "bfloat16"}),
    "float16 states": ("float32", {"state_dtype": "float16"}),
    "int8 states": ("float32", {"state_dtype": "int8"}),
    "bfloat16": ("bfloat16", {}),
    "bfloat16, stochastic, bfloat16 states": ("bfloat16", {"rounding": "stochastic", "state_dtype": "bfloat16"}),
    "bfloat16, kahan, bfloat16 states": ("bfloat16", {"rounding": "kahan", "state_dtype": "bfloat16"}),
    "split8, bfloat16 states": ("bfloat16", {"master": "split8", "state_dtype": "bfloat16"}),
    "split8, int8 states": ("bfloat16", {"master": "split8", "state_dtype": "int8"}),
    "split16, int8 states": ("bfloat16", {"master": "split16", "state_dtype": "int8"}),
    "float16": ("float16", {}),
    "float16, stochastic, float16 states": ("float16", {"rounding": "stochastic", "state_dtype": "float16"}),
    "float16, kahan, int8 states": ("float16", {"rounding": "kahan", "state_dtype": "int8"}),
    "float64": ("float64", {}),
    "float64, float32 states": ("float64", {"state_dtype": "float32"}),
}

#: The optimizers whose bits are compared.
CHECKED: dict[str, dict[str, Any]] = {"Momentum": {"nesterov": True}, "Adam": {"weight_decay": 0.1}}


def stored(numbers: Array, format_: str) -> Array:
    """Return float32 numbers in a format; in bfloat16, as its bits, cut off: so nothing but NumPy is needed."""
    if format_ == "bfloat16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(format_)


def params_and_grads(format_: str, sizes: Sequence[int], seed: int = 0) -> tuple[list[Array], list[Array]]:
    """Return parameters and gradients of these sizes in a format."""
    rng = np.random.default_rng(seed)
    params = [stored(rng.standard_normal(n, np.float32), format_) for n in sizes]
    grads = [stored(rng.random(n, np.float32) + np.float32(0.5), format_) for n in sizes]
    return params, grads


def moved(format_: str, optimizer: Any) -> float:
    """Return the bytes per element that a step moves: a gradient read, the others read and written."""
    kept = sum(a.nbytes for row in optimizer._states.values() for a in row if a is not None)
    elements = sum(a.size for a in optimizer._arrays)
    return float(3 * int(format_[-2:]) / 8 + 2 * kept / elements)


def arrays_of(optimizer: Any) -> Iterator[tuple[str, Array]]:
    """Yield all state arrays of a checkpoint by name, the bits of bfloat16 as uint16."""
    for name, value in optimizer.state_dict().items():
        array = np.asarray(value)
        if isinstance(value, np.ndarray) and array.ndim:
            yield name, array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def differing(optimizer: str, storage: str, sizes: Sequence[int], steps: int = 3) -> Mapping[str, int]:
    """Return how many elements of each array differ between the CPU and the GPU after a few steps, where any does."""
    format_, kwargs = STORAGES[storage]
    params, grads = params_and_grads(format_, sizes)
    there, there_grads = gpu.on_device(params), gpu.on_device(grads)
    cls, hyper = OPTIMIZERS[optimizer], CHECKED[optimizer]
    on_cpu, on_gpu = (cls(p, **hyper, **kwargs, reproducible=True) for p in (params, there))
    for _ in range(steps):
        on_cpu.step(grads)
        on_gpu.step(there_grads)
    found = {"params": (gpu.on_host(there), params)}
    wanted = dict(arrays_of(on_cpu))
    found |= {name: ([array], [wanted[name]]) for name, array in arrays_of(on_gpu)}
    counts = {
        name: sum(int(np.count_nonzero(a.view(np.uint8) != b.view(np.uint8))) for a, b in zip(one, other, strict=True))
        for name, (one, other) in found.items()
    }
    return {name: count for name, count in counts.items() if count}
