"""Reductions of gradients: right, and the same bits for any threads and on every target."""

import math

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt._engine import threads
from fastopt._engine.reduce import Reduction
from fastopt._kernels.reduce import CHUNK, LANES

from .expressions import sum_of_squares

KINDS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def gradients(sizes, kind, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=n) * 10.0 ** rng.integers(-3, 3)).astype(kind) for n in sizes]


def reduced(grads, param=None):
    """Return what is found of gradients, by way of an optimizer's plan."""
    params = [np.zeros(g.shape, param or g.dtype) for g in grads]
    plan = fastopt.GD(params)._plan
    reduction = Reduction(plan._groups)
    plan.gather(list(grads))
    reduction.run()
    return reduction.read()


SIZES = [1, 0, 7, LANES, LANES + 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77, 70_001]


@pytest.mark.parametrize("kind", KINDS)
def test_right_and_in_the_order_that_is_promised(kind):
    grads = gradients(SIZES, kind)
    found = reduced(grads)
    for g, squares, largest in zip(grads, found.squares, found.largest, strict=True):
        wide = g.astype(np.float64)
        assert squares == sum_of_squares(g)
        exact = math.fsum(wide * wide)
        assert squares == pytest.approx(exact, rel=1e-14)
        assert largest == np.max(np.abs(wide), initial=0)
    assert found.total == pytest.approx(math.fsum(found.squares), rel=1e-14)
    assert found.most == max(found.largest)
    assert found.finite


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, 69_999])
def test_one_element_that_is_not_finite_is_seen(kind, bad, place):
    grads = gradients([100, 70_000], kind)
    grads[1][place] = bad
    found = reduced(grads)
    assert np.isfinite(found.largest[0])
    np.testing.assert_array_equal(found.largest[1], abs(bad))
    assert not found.finite
    grads[0][5] = np.nan
    assert np.isnan(reduced(grads).most)  # NaN is above infinity


def test_neither_overflow_nor_underflow_of_float32():
    large, small = np.full(1000, 3e38, np.float32), np.full(1000, 1e-30, np.float32)
    found = reduced([large, small])
    assert found.squares == pytest.approx([1000 * float(np.float32(3e38)) ** 2, 1000 * float(np.float32(1e-30)) ** 2])


def test_the_same_bits_for_any_number_of_threads(monkeypatch):
    grads = gradients([3 * 2**15 + 11, 5, 2**16], np.float32)
    many = reduced(grads)
    monkeypatch.setattr(threads, "budget", lambda: 1)
    one = reduced(grads)
    np.testing.assert_array_equal(many.squares, one.squares)
    assert (many.total, many.most) == (one.total, one.most)


def test_groups_do_not_show():
    """Tensors of several dtypes are reduced group by group; what is over all goes by the order of the parameters."""
    grads = [g.astype(kind) for g, kind in zip(gradients([5000, 9, 300, 7000], np.float64), KINDS, strict=True)]
    params = [np.zeros(g.shape, g.dtype) for g in grads]
    plan = fastopt.Adam(dict(zip("abcd", params, strict=True)))._plan
    reduction = Reduction(plan._groups)
    plan.gather(list(grads))
    reduction.run()
    found = reduction.read()
    assert [sum_of_squares(g) for g in grads] == found.squares.tolist()
    assert found.total == sum_of_squares(np.sqrt(found.squares)) or found.total == pytest.approx(
        sum(found.squares), rel=1e-14
    )


def test_it_can_be_run_again_with_other_gradients():
    p = np.zeros(100, np.float32)
    plan = fastopt.GD(p)._plan
    reduction = Reduction(plan._groups)
    for kind in (np.float32, np.float16, np.float32):
        g = gradients([100], kind, 3)[0]
        plan.gather([g])
        reduction.run()
        assert reduction.read().squares[0] == sum_of_squares(g)
        assert (p == 0).all()


SIMULATED = """
import numpy as np, fastopt
from fastopt._engine.reduce import Reduction
from tests.simulated.device import Device
from tests.test_reduce import KINDS, gradients, reduced

for kind in KINDS:
    grads = gradients([1, 0, 300, 4097], kind)
    raw = [g.view(np.uint16) if g.dtype.name == "bfloat16" else g for g in grads]
    plan = fastopt.GD([Device(np.zeros_like(g)) for g in raw])._plan
    reduction = Reduction(plan._groups)
    plan.gather([Device(g) for g in raw])
    reduction.run()
    ours, theirs = reduction.read(), reduced(grads)
    same = (ours.squares == theirs.squares).all() and (ours.largest == theirs.largest).all()
    print(same, ours[2:] == theirs[2:], end=" ")
"""


def test_simulator(run_script):
    assert run_script(SIMULATED, NUMBA_ENABLE_CUDASIM=1, PYTHONPATH=".") == " ".join(["True"] * 8)
