"""A step allocates nothing that grows with the arrays."""

import tracemalloc
import weakref

import numpy as np
import pytest

import fastopt

SIZES = [2**12, 2**22]
ENOUGH = 16 * 1024  # bytes, for the objects of one call; an array of 2^22 float32 would be 16 MiB


def peak(function):
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["GD", "Momentum", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("size", SIZES)
def test_step_and_bound_step(name, size):
    opt = getattr(fastopt, name)(np.ones(size, np.float32))
    grad = np.ones(size, np.float32)
    assert peak(lambda: opt.step(grad)) < ENOUGH
    opt.bind(grad)
    assert peak(opt.step) < ENOUGH


@pytest.mark.parametrize("size", SIZES)
def test_function(size):
    p, g, m, v = np.ones((4, size), np.float32)
    assert peak(lambda: fastopt.adam(p, g, m, v, step=1)) < ENOUGH


def test_the_measurement_sees_numpy_arrays():
    assert peak(lambda: np.ones(2**22, np.float32)) > 2**24


def test_many_tensors_cost_a_constant_each():
    params = [np.ones(64, np.float32) for _ in range(1000)]
    opt = fastopt.Adam(params)
    grads = [np.ones(64, np.float32) for _ in range(1000)]
    assert peak(lambda: opt.step(grads)) < ENOUGH + 1000 * 64  # a list of them, and their addresses
    opt.bind(grads)
    assert peak(opt.step) < ENOUGH


def test_gradients_are_let_go_after_the_step():
    opt = fastopt.Adam([np.ones(1000), np.ones(5, np.float32)])
    grads = [np.ones(1000), np.ones(5, np.float32)]
    watched = [weakref.ref(g) for g in grads]
    opt.step(grads)
    del grads
    assert [w() for w in watched] == [None, None]
    opt.bind([np.ones(1000), np.ones(5, np.float32)])
    opt.step([np.ones(1000), np.ones(5, np.float32)])
    opt.step()
