"""Reductions in executed PTX: the bits of the CPU."""

import numpy as np
import pytest

import fastopt
from fastopt._engine.reduce import Reduction

from ..test_reduce import KINDS, gradients, reduced
from .check import raw


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [None, np.nan, -np.inf])
def test_the_bits_of_the_cpu(kind, bad, device):
    grads = gradients([1, 0, 300, 4096, 9000], kind)
    if bad is not None:
        grads[4][5000] = bad
    params = [device.array(np.zeros_like(raw(g)), "p") for g in grads]
    plan = fastopt.GD(params)._plan
    reduction = Reduction(plan._groups)
    plan.gather([device.array(raw(g), "g", writable=False) for g in grads])
    reduction.run()
    assert device.launches == 2
    for ours, theirs in zip(reduction.read(), reduced(grads), strict=True):
        np.testing.assert_array_equal(ours, theirs)
