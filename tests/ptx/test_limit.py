"""In executed PTX, with the bits of the CPU: a norm of gradients that is not waited for."""

import numpy as np
import pytest

import fastopt

from .. import test_beside as shared
from .device import arrays_of

SIZES = [5, 0, 1, 9000]


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize(
    ("hyper", "kernels"),
    [
        ({"clip_norm": 1.0}, 6),
        ({"clip_norm": 2.0, "grad_scale": 3.0, "state_dtype": "int8"}, 6),
        ({"nonfinite": "skip"}, 5),
    ],
    ids=str,
)
def test_the_bits_of_the_cpu(hyper, kernels, capturable, device, monkeypatch):
    """The second step has an infinity."""
    if "nonfinite" in hyper and not capturable:
        pytest.skip("it is waited for")

    def made(of, **more):
        return fastopt.AdamW(
            [of(p, "p") for p in shared.arrays(np.float32, 1, SIZES)], reproducible=True, **hyper, **more
        )

    there, here = made(device.array, capturable=capturable), made(lambda a, name: a)
    for step in (1, 2, 3):
        grads = shared.arrays(np.float32, step, SIZES)
        if step == 2 and (capturable or "state_dtype" not in hyper):
            grads[3][8000] = np.inf
        with monkeypatch.context() as patch:
            patch.setattr("fastopt._arrays.driver.copy_to_host", None)  # which waits
            there.step([device.array(g.copy(), "g", writable=False) for g in grads])
        with np.errstate(all="ignore"):
            here.step(grads)
        assert there.grad_norm == here.grad_norm
    assert there.skipped == here.skipped == ("nonfinite" in hyper)
    assert there.step_count == here.step_count
    # Three of the norm, one that judges it, one of the factor if there is one, one that counts, the update.
    assert device.launches == 3 * (kernels + capturable)
    theirs = [[p.array for p in there.params], *arrays_of(there)]
    ours = [here.params, *(list(row) for row in here._states.values())]
    for row, other in zip(theirs, ours, strict=True):
        for a, b in zip(row, other, strict=True):
            np.testing.assert_array_equal(a, b)
