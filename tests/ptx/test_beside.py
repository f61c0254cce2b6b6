"""In executed PTX, with the bits of the CPU: an average of the parameters, copies of them, gradients left at 0."""

import numpy as np
import pytest

import fastopt

from .. import test_beside as shared
from .device import arrays_of


@pytest.mark.parametrize("storage", [{}, {"state_dtype": "int8"}], ids=str)
def test_the_bits_of_the_cpu(storage, device):
    sizes = [5, 0, 1, 9000]

    def made(of):
        params, to = shared.arrays(np.float32, 1, sizes), [a.view("u2") for a in shared.arrays(shared.BF16, 2, sizes)]
        copies = [of(a, "copy") for a in to]
        more = {"copy_to": copies, "ema": 0.5, "zero_grads": True, "reproducible": True}
        return fastopt.AdamW([of(p, "p") for p in params], **more, **storage)

    there, here = made(device.array), made(lambda a, name: a)
    for step in (1, 2, 3):
        grads = shared.arrays(np.float32, step, sizes)
        zeroed = [device.array(g.copy(), "g") for g in grads]
        there.step(zeroed)
        here.step(grads)
        assert not any(g.array.any() for g in zeroed)
    theirs = [[p.array for p in there.params], *arrays_of(there)]
    ours = [here.params, *(list(row) for row in here._states.values())]
    for row, other in zip(theirs, ours, strict=True):
        for a, b in zip(row, other, strict=True):
            np.testing.assert_array_equal(a, b)
