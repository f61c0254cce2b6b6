"""Arrays of other libraries in the host's memory, which show themselves by DLPack."""

import copy

import numpy as np
import pytest

import fastopt


class Other:
    """An array of a library that nobody knows."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Old(Other):
    """One that does not say whether it may be written to."""

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


@pytest.mark.parametrize("given", [lambda a: a, lambda a: [a], lambda a: {"a": a}, lambda a: [{"params": [a]}]])
@pytest.mark.parametrize("grad", [Other, Old, np.asarray], ids=["Other", "Old", "numpy"])
def test_it_is_the_same_memory(given, grad):
    p, twin, g = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    opt = fastopt.Adam(given(Other(p)), lr=0.1)
    grads = {"a": grad(g)} if isinstance(opt.params, dict) else grad(g) if isinstance(opt.params, Other) else [grad(g)]
    if isinstance(opt.params, list) and isinstance(opt.params[0], list):
        grads = [grads]
    other = fastopt.Adam(twin, lr=0.1)
    opt.step(grads)
    other.step(g)
    opt.bind(grads)
    opt.step()
    other.step(g)
    np.testing.assert_array_equal(p, twin)
    assert (g == 2).all()
    copied = copy.deepcopy(opt)
    copied.step(copy.deepcopy(grads))
    np.testing.assert_array_equal(p, twin)


def test_gradients_alone():
    """Of JAX, for example, whose arrays are immutable."""
    p, q = np.zeros(3), np.zeros(3)
    g = np.ones(3)
    g.setflags(write=False)
    fastopt.GD(p, lr=1.0).step(Other(g))
    fastopt.gd(q, Other(g), lr=1.0)
    assert (p == -1).all()
    assert (q == -1).all()
    zeroed = np.ones(3)
    fastopt.GD(p, zero_grads=True).step(Other(zeroed))
    assert (zeroed == 0).all()


def test_what_is_refused():
    p, locked = np.zeros(3), np.zeros(3)
    locked.setflags(write=False)
    opt = fastopt.GD(p)
    for refused, error, words in (
        (lambda: fastopt.GD(Other(locked)), TypeError, "params must be a numpy.ndarray, got .*only to be read"),
        (lambda: fastopt.GD([Old(p)]), TypeError, r"params\[0\] must be a numpy.ndarray, got .*only to be read"),
        (lambda: fastopt.GD([p, Other(p)]), ValueError, "share memory"),
        (lambda: opt.step(Other(p)), ValueError, "share memory"),
        (lambda: opt.step(Other(np.zeros(4))), ValueError, r"grads must have the shape of params, \(3,\)"),
        (lambda: opt.step(Other(np.zeros(3, int))), TypeError, "int64"),
        (lambda: opt.step(Other(np.zeros(6)[::2])), ValueError, "contiguous"),
        (lambda: fastopt.GD(p, zero_grads=True).step(Other(locked)), ValueError, "read-only"),
        (lambda: fastopt.GD([p]).step(Other(p.copy())), TypeError, "grads must be a sequence of 1 arrays"),
    ):
        with pytest.raises(error, match=words):
            refused()
    assert (p == 0).all()
