"""Arrays of more than one block on the device have the bits that they have on the CPU, whatever is stored.

Everything else about storages is in tests/test_gpu.py, which runs in the simulator, too, with small arrays.
"""

import ml_dtypes
import numpy as np

import fastopt
from fastopt._bench.storages import selected
from fastopt._storage.int8 import BLOCK

from ..cases import assert_same_bits, dtype_of, every_one_of, random
from .device import Device, host

BF16, F32 = ml_dtypes.bfloat16, np.float32
STORAGES = selected(
    (
        "float32, float16 states, bfloat16 gradients",
        "float32, int8 states",
        "float16, stochastic, float32 gradients",
        "bfloat16, stochastic, bfloat16 states, float16 gradients",
        "bfloat16, kahan, int8 states",
        "split8, int8 states",
        "split16, int8 states, float32 gradients",
    )
)
EXACT = {"lr": 0.3, "beta": 0.9, "nesterov": True, "weight_decay": 0.1, "reproducible": True}


def raw(array):
    return array.view(np.uint16) if array.dtype == BF16 else array


def pairs(on_cpu, on_device):
    """Return all arrays that steps write, of both."""
    for one, other in zip(on_cpu._states.values(), on_device._states.values(), strict=True):
        for a, b in zip(one, other, strict=True):
            yield raw(a), raw(host(b.owner))


@every_one_of(STORAGES.values())
def test_the_bits_are_those_of_the_cpu(storage):
    kind, grad, kwargs = dtype_of(storage.param), dtype_of(storage.grad), storage.options | {"seed": 2**40}
    sizes = [BLOCK + 3, 130]
    params = [random(n, F32, k).astype(kind) for k, n in enumerate(sizes)]
    twins = [p.copy() for p in params]
    cpu = fastopt.Momentum(params, **EXACT, **kwargs)
    gpu = fastopt.Momentum([Device(raw(p)) for p in twins], **EXACT, **kwargs)
    for step in range(3):
        grads = [random(n, F32, 10 * step + k).astype(grad) for k, n in enumerate(sizes)]
        if step == 1:
            grads[0][2], grads[0][3] = np.nan, np.inf
        cpu.step(grads)
        gpu.step([Device(raw(g)) for g in grads])
        for one, other in zip(params, twins, strict=True):
            nan = np.isnan(one.astype(F32))
            np.testing.assert_array_equal(nan, np.isnan(other.astype(F32)))
            assert_same_bits([raw(one)[~nan]], [raw(other)[~nan]])
        for one, other in pairs(cpu, gpu):
            if one.dtype in (np.uint8, np.int16, np.int8):
                np.testing.assert_array_equal(one, other)
    for name in ("params", "v"):
        for one, other in zip(cpu.decoded(name), gpu.decoded(name), strict=True):
            np.testing.assert_array_equal(one, other)
