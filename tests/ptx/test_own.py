"""Optimizers written outside the package, in executed PTX."""

import numpy as np
import pytest

from ..own_optimizers import Ada, Lion
from .device import arrays_of

CASES = [(Lion, {}), (Ada, {}), (Ada, {"heavy": True}), (Ada, {"heavy": True, "state_dtype": "int8"})]


@pytest.mark.parametrize(("cls", "kwargs"), CASES, ids=["Lion", "Ada", "Ada-heavy", "Ada-int8"])
def test_the_bits_of_the_cpu(cls, kwargs, device):
    rng = np.random.default_rng(0)
    p = rng.normal(size=1100).astype(np.float32)
    there = device.array(p.copy(), "p")
    cpu, gpu = cls(p, reproducible=True, **kwargs), cls(there, reproducible=True, **kwargs)
    for _ in range(3):
        g = rng.normal(size=p.size).astype(np.float32)
        cpu.step(g)
        gpu.step(device.array(g, "g", writable=False))
    np.testing.assert_array_equal(there.array, p)
    for (ours,), theirs in zip(arrays_of(gpu), cpu.state.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
