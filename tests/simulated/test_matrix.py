"""Every optimizer, dtype, size and flag in the simulator, against the oracle."""

import numpy as np
import pytest

import fastopt
from fastopt._engine import gpu

from ..cases import CASES, DTYPES, assert_same_bits, call, every_dtype, first_cases, first_states, make, name_of, random
from ..expressions import expression
from ..oracles import has_norms
from .device import Device, host

#: Every case with one dtype of the arithmetic; but for the first ones they are for the slow command.
in_alternation = pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(
            c,
            DTYPES[k % 2],
            id=f"{name_of(c)}-{DTYPES[k % 2].__name__}",
            marks=[] if c in first_cases(CASES) else pytest.mark.slow,
        )
        for k, c in enumerate(CASES)
    ],
)


def check_step(case, opt, p, g, step):
    """Take one step and compare every bit with the expression."""
    name, kwargs = case
    arrays = [p, *map(host, opt.state.values())]
    old = [a.copy() for a in arrays]
    opt.step(Device(g))
    for new, right in zip(arrays, expression(name, old[0], g, old[1:], step, **kwargs), strict=True):
        nan = np.isnan(right)
        np.testing.assert_array_equal(np.isnan(new), nan)
        assert_same_bits([new[~nan]], [right[~nan]])


@in_alternation
@pytest.mark.parametrize("size", [0, 1, 7, 515])
def test_every_optimizer_is_its_expression_to_the_bit(case, dtype, size):
    p = random(size, dtype, 1)
    opt = make(case, Device(p))
    for step in (1, 2, 3):
        check_step(case, opt, p, random(size, dtype, 1 + step), step)
    assert opt.step_count == 3


@in_alternation
def test_nan_and_infinity_go_where_the_equations_lead_them(case, dtype):
    for bad in (np.nan, np.inf, -np.inf):
        p, g = random(11, dtype, 1), random(11, dtype, 2)
        g[1] = bad
        check_step(case, make(case, Device(p)), p, g, 1)
        assert np.isfinite(np.delete(p, 1)).all() or has_norms(case[0], **case[1])


@in_alternation
def test_functions_are_the_classes(case, dtype):
    p, g = random(21, dtype, 1), random(21, dtype, 2)
    q = p.copy()
    opt = make(case, Device(p))
    states = {name: Device(a) for name, a in first_states(opt, q).items()}
    for step in (1, 2):
        opt.step(Device(g))
        given = Device(q)
        assert call(case, given, Device(g), states, step) is given
    assert_same_bits([p, *map(host, opt.state.values())], [q, *map(host, states.values())])


@pytest.mark.parametrize("case", [c for c in CASES if not callable(c[1].get("lr"))], ids=str)
@every_dtype
def test_capturable_counts_on_the_device(case, dtype):
    name, kwargs = case
    p, g = random(9, dtype, 1), random(9, dtype, 2)
    opt = getattr(fastopt, name)(Device(p), capturable=True, **kwargs)
    opt.bind(Device(g))
    arrays = [p, *map(host, opt.state.values())]
    for step in (1, 2, 3):
        old = [a.copy() for a in arrays]
        opt.step()
        assert opt.step_count == step
        assert_same_bits(arrays, expression(name, old[0], g, old[1:], step, **kwargs))


def test_chunks_blocks_and_many_tensors(monkeypatch):
    monkeypatch.setattr(gpu, "CHUNK", 32)
    sizes = [1, 0, 31, 32, 33, 100, 4]
    params, grads = ([random(s, np.float32, k + n) for n, s in enumerate(sizes)] for k in (0, 10))
    expected = [p.copy() for p in params]
    fastopt.GD([Device(p) for p in params]).step([Device(g) for g in grads])
    for p, old, g in zip(params, expected, grads, strict=True):
        np.testing.assert_array_equal(p, old - np.float32(1e-2) * g)


@every_dtype
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("which", ["p", "g", "both"])
def test_arrays_that_are_not_aligned_to_16_bytes(dtype, shift, which):
    raw = [np.zeros(64, dtype) for _ in range(2)]
    starts = [(-a.ctypes.data // a.itemsize) % (16 // a.itemsize) for a in raw]
    p, g = (
        a[s + (shift if which in (name, "both") else 0) :][:37]
        for a, s, name in zip(raw, starts, ("p", "g"), strict=True)
    )
    p[:], g[:] = random(37, dtype, 1), random(37, dtype, 2)
    q = p.copy()
    fastopt.Adam(Device(p)).step(Device(g))
    fastopt.Adam(Device(q)).step(Device(g.copy()))
    np.testing.assert_array_equal(p, q)
    assert (raw[0][: starts[0]] == 0).all()
    assert (raw[0][starts[0] + shift + 37 :] == 0).all()
