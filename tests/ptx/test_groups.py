"""Groups of parameters in executed PTX: the bits of the CPU, in one launch a step."""

import numpy as np
import pytest

from .. import test_groups as shared


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_the_cpu(dtype, device, monkeypatch):
    monkeypatch.setattr(shared, "SIZES", [5, 9000, 1, 300, 5000])
    twins = shared.numbers(dtype, 0)
    params = [device.array(p.copy(), "p") for p in twins]
    there, here = shared.grouped(params), shared.grouped(twins)
    for step in (1, 2, 3):
        grads = shared.numbers(dtype, step)
        shared.take(*there, [device.array(g, "g", writable=False) for g in grads], step)
        shared.take(*here, grads, step)
    for ours, theirs in zip(params, twins, strict=True):
        np.testing.assert_array_equal(ours.array, theirs)
    assert device.launches == 3
