"""Every storage on the device writes the bits that it writes on the CPU, from the same codecs."""

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt._scaled import BLOCK

from ..cases import assert_same_bits, random
from .device import Device, host

BF16, F16, F32 = ml_dtypes.bfloat16, np.float16, np.float32
STORAGES = [
    (F32, F32, {"state_dtype": "bfloat16"}),
    (F32, BF16, {"state_dtype": "float16"}),
    (np.float64, F32, {"state_dtype": "float32"}),
    (F32, F32, {"state_dtype": "int8"}),
    (BF16, BF16, {}),
    (F16, F32, {"rounding": "stochastic", "seed": 5}),
    (BF16, F16, {"rounding": "stochastic", "state_dtype": "bfloat16", "seed": 2**40}),
    (F16, F16, {"rounding": "kahan"}),
    (BF16, BF16, {"rounding": "kahan", "state_dtype": "int8"}),
    (BF16, BF16, {"master": "split8", "state_dtype": "int8"}),
    (BF16, F32, {"master": "split16", "state_dtype": "int8"}),
]
every_storage = pytest.mark.parametrize(("kind", "grad", "kwargs"), STORAGES, ids=str)
# Powers of two: products are exact, so it does not matter whether they are rounded before they are added.
EXACT = {"lr": 0.25, "beta": 0.5, "dampening": 0.5}


def raw(array):
    return array.view(np.uint16) if array.dtype == BF16 else array


def pairs(on_cpu, on_device):
    """Return all arrays that steps write, of both."""
    for one, other in zip(on_cpu._states.values(), on_device._states.values(), strict=True):
        for a, b in zip(one, other, strict=True):
            yield raw(a), raw(host(b.base.owner))


@every_storage
@pytest.mark.parametrize("sizes", [[1, 0, 7], [BLOCK + 3, 130]])
@pytest.mark.parametrize("capturable", [False, True])
def test_the_bits_are_those_of_the_cpu(kind, grad, kwargs, sizes, capturable):
    params = [random(n, F32, k).astype(kind) for k, n in enumerate(sizes)]
    twins = [p.copy() for p in params]
    cpu = fastopt.Momentum(params, **EXACT, **kwargs)
    gpu = fastopt.Momentum([Device(raw(p)) for p in twins], **EXACT, **kwargs, capturable=capturable)
    for step in range(3):
        grads = [random(n, F32, 10 * step + k).astype(grad) for k, n in enumerate(sizes)]
        if step == 1 and sizes[0] > 3:
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


@every_storage
def test_checkpoints_go_from_one_to_the_other(kind, grad, kwargs):
    params = random(BLOCK + 40, F32, 1).astype(kind)
    grads = [random(BLOCK + 40, F32, k).astype(grad) for k in range(2, 5)]
    cpu = fastopt.Momentum(params, **EXACT, **kwargs)
    cpu.step(grads[0])
    twin = params.copy()
    gpu = fastopt.Momentum(Device(raw(twin)), **EXACT, **kwargs | {"seed": 1})
    gpu.load_state_dict(cpu.state_dict())
    for g in grads[1:]:
        cpu.step(g)
        gpu.step(Device(raw(g)))
    assert_same_bits([raw(params)], [raw(twin)])
    for one, other in pairs(cpu, gpu):
        assert_same_bits([one], [other])


@pytest.mark.parametrize("kind", [BF16, F16])
def test_functions(kind):
    p, g = random(100, F32, 1).astype(kind), random(100, F32, 2).astype(kind)
    q, v, w = p.copy(), np.zeros(100, kind), np.zeros(100, kind)
    for step in (1, 2):
        fastopt.momentum(p, g, v, **EXACT, step=step, rounding="stochastic", seed=3)
        fastopt.momentum(*(Device(raw(a)) for a in (q, g, w)), **EXACT, step=step, rounding="stochastic", seed=3)
    assert_same_bits([raw(p), raw(v)], [raw(q), raw(w)])


def test_misaligned_for_16_bytes():
    whole = np.ones(BLOCK + 9, BF16)
    p, g = whole[1:], np.full(BLOCK + 8, 0.5, F32)
    q = p.copy()
    fastopt.Momentum(Device(raw(p)), **EXACT, state_dtype="int8").step(Device(g))
    fastopt.Momentum(q, **EXACT, state_dtype="int8").step(g)
    assert_same_bits([raw(p)], [raw(q)])
    assert whole[0] == 1
