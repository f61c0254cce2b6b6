"""8-bit states in whole steps: held to the oracle, to their block, to what float32 states do."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastopt
from fastopt._storage.int8 import BLOCK

from . import bounds
from .cases import CASES, assert_same_bits, name_of, random
from .oracles import answer
from .test_formats import every_stateful_by_ci
from .test_narrow import F32, make


@every_stateful_by_ci
@pytest.mark.parametrize("size", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
def test_against_the_oracle(case, size):
    p = random(size, F32, 1)
    opt = make(case, p, state_dtype="int8")
    assert all(a.dtype == np.uint8 for name, a in opt.state.items() if not name.endswith("_scale"))
    for step in (1, 2, 3, 4):
        g = random(size, F32, 1 + step)
        old = [p.copy(), *(opt.decoded(name) for name in opt._state_names)]
        opt.step(g)
        right = answer(case[0], old[0], g, old[1:], step, **case[1])
        assert np.max(right[0].excess(p), initial=0) <= 1
        for name, exact in zip(opt._state_names, right[1:], strict=True):
            given = opt.decoded(name)
            allowed = bounds.of_state(exact.value, "int8", F32, name in opt.squares)
            assert (np.abs(given - exact.value) <= allowed + exact.error).all()
            if name in opt.squares:
                assert (given > 0).all()


def test_tensors_do_not_share_blocks_and_cuts_at_blocks_change_nothing_but_the_noise():
    p, g = random(4 * BLOCK, F32, 1), random(4 * BLOCK, F32, 2)
    whole = fastopt.Momentum(p, state_dtype="int8")
    whole.step(g)
    pieces = np.split(random(4 * BLOCK, F32, 1), [BLOCK, 2 * BLOCK + 5])
    parts = fastopt.Momentum(pieces, state_dtype="int8")
    parts.step(np.split(g, [BLOCK, 2 * BLOCK + 5]))
    assert [len(a) for a in parts.state["v_scale"]] == [1, 2, 2]
    np.testing.assert_array_equal(parts.state["v"][0], whole.state["v"][:BLOCK])
    np.testing.assert_allclose(np.concatenate(parts.decoded("v")), whole.decoded("v"), rtol=0.29, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_stays_where_it_is(bad):
    """The others of its block are as if it had been another number."""
    size, at = 3 * BLOCK, BLOCK + 3
    p, q = random(size, F32, 1), random(size, F32, 1)
    opt, other = (fastopt.Adam(a, state_dtype="int8") for a in (p, q))
    grads = [random(size, F32, k, zeros=False) for k in range(2, 8)]
    for k, g in enumerate(grads):
        h = g.copy()
        g[at] = bad if k == 2 else g[at]
        h[at] = 0 if k == 2 else h[at]
        opt.step(g)
        other.step(h)
        for name in ("m", "v"):
            given, wanted = opt.decoded(name), other.decoded(name)
            if bad != 1e30:  # a finite number that large does widen the range of its block
                np.testing.assert_array_equal(np.delete(given, at), np.delete(wanted, at))
            assert np.isfinite(np.delete(given, at)).all()
    assert_same_bits([np.delete(p, at)], [np.delete(q, at)]) if bad != 1e30 else None
    if bad == 1e30:
        assert np.isinf(opt.decoded("v")[at])
        assert np.isfinite(opt.decoded("m")[at])
    else:
        assert not np.isfinite(opt.decoded("m")[at])
        assert np.isnan(p[at])
    assert (opt.state["v_scale"] > 255).tolist() == [False, True, False]


def test_a_block_recovers_when_it_is_mended():
    p, g = np.ones(BLOCK, F32), np.ones(BLOCK, F32)
    opt = fastopt.Adam(p, state_dtype="int8")
    g[7] = np.nan
    opt.step(g)
    assert opt.state["m_scale"][0] > 255
    g[7], p[7] = 1, 1
    for name in ("m", "v"):
        opt.state[name][7] = opt.state[name][6]
    opt.step(g)
    assert opt.state["m_scale"][0] < 256
    assert np.isfinite(p).all()
    assert np.ptp(opt.decoded("m")) < 0.2 * opt.decoded("m").max()


def test_gradients_that_grow_and_shrink_by_1e30():
    """Whatever the scale was before, no code is written for one that will not do."""
    rng = np.random.default_rng(0)
    p = np.zeros(2 * BLOCK + 9, F32)
    opt = fastopt.Momentum(p, beta=0.0, dampening=0.0, state_dtype="int8")
    for exponent in (0, 10, -20, 15, 15, -30, 18, 0):
        g = (rng.normal(size=p.size) * 10.0**exponent).astype(F32)
        opt.step(g)
        off = np.abs(opt.decoded("v") - g)
        assert (off <= np.abs(g) / 8 + np.abs(g).max() * 2.0**-15).all()


@every_stateful_by_ci
def test_over_the_steps_states_follow_those_in_float32(case):
    """The mean of a state over many elements is that of the float32 run; each is off by a few codes."""
    size, steps = 8 * BLOCK, 300
    scale = np.float32(10) ** np.random.default_rng(5).uniform(-2, 0, size).astype(F32)
    p, q = (np.zeros(size, F32) for _ in range(2))
    kwargs = case[1] | {"weight_decay": 0.0}  # the same gradients for both
    opt, full = (make((case[0], kwargs), a, state_dtype=s) for a, s in ((p, "int8"), (q, None)))
    for step in range(steps):
        g = random(size, F32, step, zeros=False) * scale
        opt.step(g)
        full.step(g)
    feeds_back = case[0] == "Adadelta"  # u is an average of what it scales
    # The noise of stochastic rounding is a random walk, whose steps get smaller the longer an average remembers, but
    # not by as much as the average of random gradients does: 0.32 after 300 steps for these, which forget none of them.
    remembers = {"m2", "d"}
    for name in opt._state_names:
        given, right = (o.decoded(name).astype(float) / scale for o in (opt, full))
        if name in opt.squares:
            given, right = given / scale, right / scale
            assert abs(given.mean() / right.mean() - 1) < (0.04 if feeds_back else 0.03)
        off = np.sqrt(np.mean((given - right) ** 2) / np.mean(right**2))
        assert off < (0.35 if feeds_back or name in remembers else 0.25), (name, off)


def test_squares_are_the_states_that_are_never_negative():
    """Which states have no sign in 8 bits is said by hand, in `squares`; here it is seen."""
    for case in CASES:
        opt = make(case, np.zeros(500, F32))
        for step in range(5):
            opt.step(random(500, F32, step))
        seen = {name for name, a in opt.state.items() if (a >= 0).all()}
        assert seen == set(opt.squares) & set(opt.state), name_of(case)


_VECTORIZED = """
import sys
import llvmlite.binding

llvmlite.binding.set_option("", "-pass-remarks=loop-vectorize")
from fastopt._kernels import compiler
from fastopt._bench.catalog import OPTIMIZERS

compiler.sweep(OPTIMIZERS["Adam"].with_hyperparameters().spec(tuple(sys.argv[1].split())), False)
"""


@pytest.mark.parametrize("codecs", ["float32 float32 int8 uint8", "bfloat16 bfloat16-split8 int8 uint8"])
def test_every_loop_over_a_block_is_packed(codecs, tmp_path):
    """The update with and without marked blocks, the search for the peak and the second writing."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _VECTORIZED, codecs]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout + done.stderr).count(": vectorized loop") == 4
