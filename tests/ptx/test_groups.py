"""Groups of parameters in executed PTX: the bits of the CPU, in one launch a step."""

import numpy as np
import pytest

import fastopt

from .. import test_groups as shared


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_of_the_cpu(dtype, device, monkeypatch):
    monkeypatch.setattr(shared, "SIZES", [5, 9000, 1, 300, 5000])
    twins = shared.numbers(dtype, 0)
    params = [device.array(p.copy(), "p") for p in twins]
    own = ({"lr": 0.1}, {"weight_decay": 0.0}, {"betas": (0.5, 0.6)})
    there, here = (
        fastopt.AdamW([{"params": p, **h} for p, h in zip(shared.in_groups(arrays), own, strict=True)])
        for arrays in (params, twins)
    )
    for step in (1, 2, 3):
        there.groups[0].lr = here.groups[0].lr = 0.5**step
        grads = shared.numbers(dtype, step)
        there.step(shared.in_groups([device.array(g, "g", writable=False) for g in grads]))
        here.step(shared.in_groups(grads))
    for ours, theirs in zip(params, twins, strict=True):
        np.testing.assert_array_equal(ours.array, theirs)
    assert device.launches == 3
