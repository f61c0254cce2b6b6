"""A step allocates nothing that grows with the arrays."""

import gc
import itertools
import tracemalloc
import weakref

import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS

from .cases import every_class

pytestmark = pytest.mark.internals

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


@pytest.mark.parametrize("name", every_class(OPTIMIZERS, pytest.mark.slow))
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


def test_states_of_many_small_tensors_take_no_more_than_they_hold():
    """A page for each would be 70 times as much."""
    opt = fastopt.Adam([np.ones(16, np.float32) for _ in range(50_000)])
    arrays = [a for row in opt.state.values() for a in row]
    buffers = {id(a.base): a.base for a in arrays}.values()
    assert sum(a.nbytes for a in arrays) == 50_000 * 128
    assert sum(b.nbytes for b in buffers) <= 50_000 * 128 + 64


def test_what_is_held_beside_the_states():
    """Of each tensor an entry in every table, and an object for each state."""
    params = [np.ones(16, np.float32) for _ in range(2000)]
    tracemalloc.start()
    try:
        opt = fastopt.Adam(params)
        gc.collect()  # whatever refers to itself and was used for a moment
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(opt.params) == 2000
    assert held < 2000 * (128 + 900)


@pytest.mark.parametrize("sizes", [[1], [3, 0, 1000], [1023, 1025, 5], [1, 2, 3, 5000, 7]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_packed_states_are_apart_and_aligned(sizes, order):
    params = [np.ones((n, 2), np.float32, order=order) for n in sizes]
    opt = fastopt.Adam(params)
    arrays = [a for row in opt.state.values() for a in row]
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.nbytes)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for a, p in zip(arrays, [*params, *params], strict=True):
        assert (a.shape, a.dtype) == (p.shape, p.dtype)
        assert getattr(a.flags, f"{order.lower()}_contiguous")
        assert a.ctypes.data % 64 == 0
        assert (a == 0).all()


def test_states_of_medium_tensors_lie_together():
    """In megabytes that the system can have in large pages; each is moved within a page, no more."""
    params = [np.ones(2**14, np.float32) for _ in range(100)]
    arrays = [a for row in fastopt.Adam(params).state.values() for a in row]
    assert len({id(a.base) for a in arrays}) == 1
    ends = [a.ctypes.data for a in arrays] + [a.ctypes.data + a.nbytes for a in arrays]
    assert max(ends) - min(ends) <= sum(a.nbytes + 4096 for a in arrays)


@pytest.mark.parametrize("sizes", [[2**12] * 100, [2**20] * 16, [2**22, 5, 2**21], [2**24 + 3, 7, 2**10]])
def test_a_piece_of_memory_has_a_bounded_size(sizes):
    """Of what is let go no more than that is kept by what is not."""
    arrays = [a for row in fastopt.Adam([np.ones(n, np.float32) for n in sizes]).state.values() for a in row]
    of_pieces = {}
    for a in arrays:
        of_pieces.setdefault(id(a.base), (a.base.nbytes, []))[1].append(a)
    for nbytes, own in of_pieces.values():
        assert len(own) == 1 or nbytes <= 2**25 + 64
        assert nbytes <= sum(a.nbytes + (2**21 if a.nbytes >= 2**26 else 4096) for a in own) + 64
