"""Every optimizer, dtype, size and flag against the oracle; the same bits however the work is cut."""

import numba
import numpy as np
import pytest

import fastopt
from fastopt import _threads
from fastopt._loops import reference
from fastopt._optimizer import registry

from .cases import CASES, DTYPES, make, name_of, random
from .oracles import EXACT, ORACLES, errors

SIZES = [0, 1, 7, 1023, 1025, 2**20 + 3]
every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Half an ulp for each of the at most 12 roundings between the inputs and a result, those of the scalars included. A new
# value is the old one plus a change; the roundings of the change are relative to the terms that it is made of, and
# these may cancel in an element but not in all, so the largest change of the array stands for them.
BOUND = 12
# Two differences amplify the rounding of what they subtract, which check_step accounts for: the variance of a centered
# RMSprop, by s / (s - mu^2 + eps_root), and in float64, where they are not computed in a wider type, Adam's bias
# corrections 1 - beta^t, by 1 / (1 - beta^t).


def test_every_optimizer_has_cases_and_an_oracle():
    ours = {name for name, cls in registry.items() if cls.__module__.startswith("fastopt.optimizers")}
    assert ours == {name for name, _ in CASES} == set(ORACLES)


def check_step(case, opt, p, g):
    """Take one step and hold parameter and states against the oracle, started from the same arrays."""
    name, kwargs = case
    before = p.copy()
    states = {k: v.copy() for k, v in opt.state.items()}
    opt.step(g)
    exact_p, exact_states = ORACLES[name](before, g, list(states.values()), opt.step_count, **kwargs)
    amplified = 1
    if kwargs.get("centered"):
        variance = np.maximum(exact_states[0] - exact_states[1] ** 2, 0) + EXACT(kwargs["eps_root"])
        amplified = 1 + (exact_states[0] + exact_states[1] ** 2) / variance
    if name.startswith("Adam") and p.dtype == np.float64:
        amplified = 1 + sum(1 / (1 - EXACT(beta) ** opt.step_count) for beta in opt.betas)
    pairs = [(p, before, exact_p), *zip(opt.state.values(), states.values(), exact_states, strict=True)]
    for new, old, exact in pairs:
        change = amplified * np.abs(exact - old)
        worst = errors(new, exact, np.abs(old) + np.max(change, initial=0))
        assert np.max(worst, initial=0) <= BOUND


@every_case
@every_dtype
@pytest.mark.parametrize("size", SIZES)
def test_against_the_oracle(case, dtype, size):
    p = random(size, dtype, 1)
    opt = make(case, p)
    for step in range(3):
        check_step(case, opt, p, random(size, dtype, 2 + step))
    assert opt.step_count == 3


@every_case
def test_the_reference_reads_the_rule_as_the_oracle_does(case):
    name, kwargs = case
    p, g = random(100, np.float64, 1), random(100, np.float64, 2)
    opt = make(case, p)
    states = [random(100, np.float64, 3 + k, zeros=False) ** 2 + 1 for k in range(len(opt.state))]
    got = reference.apply(opt.spec(p.dtype).rule, opt.values(5), [g, p, *states])
    exact_p, exact_states = ORACLES[name](p, g, states, 5, **kwargs)
    for a, b in zip(got, [exact_p, *exact_states], strict=True):
        np.testing.assert_allclose(a, b.astype(np.float64), rtol=1e-13, atol=1e-15)


def run(case, p, grads, cut=None):
    """Return parameter and states after a step for each gradient, as one array or cut into tensors."""
    pieces = np.split(p.copy(), cut) if cut is not None else [p.copy()]
    opt = make(case, pieces)
    for g in grads:
        opt.step(np.split(g, cut) if cut is not None else [g])
    return [np.concatenate(row) for row in (opt.params, *opt.state.values())]


def assert_same_bits(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.view(f"u{x.itemsize}"), y.view(f"u{y.itemsize}"))


@every_case
@every_dtype
def test_the_same_bits_however_it_is_cut(case, dtype):
    p = random(1025, dtype, 1)
    grads = [random(1025, dtype, 2 + k) for k in range(3)]
    whole = run(case, p, grads)
    assert_same_bits(whole, run(case, p, grads, list(range(1, 1025))))  # each element alone: no packed loop
    cuts = np.sort(np.random.default_rng(0).integers(0, 1025, 20))
    assert_same_bits(whole, run(case, p, grads, cuts))


@every_case
@every_dtype
def test_the_same_bits_for_any_number_of_threads(case, dtype, monkeypatch):
    p = random(2**17 + 5, dtype, 1)
    grads = [random(p.size, dtype, 2)]
    results = [run(case, p, grads)]
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        results.append(run(case, p, grads))
    finally:
        numba.set_num_threads(before)
    monkeypatch.setattr(_threads, "PARALLEL_FROM", 2**40)
    results.append(run(case, p, grads, [3, 70_000]))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_small_steps_can_run_in_parallel_too(monkeypatch):
    p, g = random(5000, np.float32, 1), random(5000, np.float32, 2)
    serial = run(("Adam", {}), p, [g], [10, 10, 2000])
    monkeypatch.setattr(_threads, "PARALLEL_FROM", 1)
    assert_same_bits(serial, run(("Adam", {}), p, [g], [10, 10, 2000]))


def test_structures():
    arrays = [random(s, np.float32, k) for k, s in enumerate([(3, 4), (), (0,), (2, 1, 5)])]
    grads = [random(a.shape, np.float32, 10 + k) for k, a in enumerate(arrays)]
    expected = []
    for a, g in zip(arrays, grads, strict=True):
        single = a.copy()
        fastopt.Adam(single).step(g)
        expected.append(single)
    as_list = [a.copy() for a in arrays]
    fastopt.Adam(as_list).step(tuple(grads))
    as_iterator = [a.copy() for a in arrays]
    fastopt.Adam(iter(as_iterator)).step(iter(grads))
    names = ["a", "b", "c", "d"]
    as_dict = {n: a.copy() for n, a in zip(names, arrays, strict=True)}
    opt = fastopt.Adam(as_dict)
    opt.step(dict(reversed(list(zip(names, grads, strict=True)))))  # the order of the keys does not matter
    for got in (as_list, as_iterator, list(as_dict.values())):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert list(opt.state) == ["m", "v"]
    assert {n: a.shape for n, a in opt.state["m"].items()} == {n: a.shape for n, a in as_dict.items()}


def test_two_dtypes_in_one_optimizer():
    calls = []
    params = [random(5, np.float32, 1), random(70_000, np.float64, 2), random((2, 3), np.float32, 3)]
    alone = [p.copy() for p in params]
    grads = [random(p.shape, p.dtype, 4 + k) for k, p in enumerate(params)]
    fastopt.Adam(params, lr=lambda step: calls.append(step) or 0.1).step(grads)
    assert calls == [1]  # a schedule is asked once per step
    for a, p, g in zip(alone, params, grads, strict=True):
        fastopt.Adam(a, lr=0.1).step(g)
        np.testing.assert_array_equal(a, p)


def test_fortran_order_and_views():
    base = random((4, 6, 5), np.float64, 1)
    fortran, transposed, part = np.asfortranarray(base), base.copy().T, np.zeros((9, 6, 5))[2:6]
    part[...] = base
    for p in (fortran, transposed, part):
        expected = p.copy()
        g = random(p.shape, np.float64, 2)
        g_like = np.empty_like(p)
        g_like[...] = g
        opt = fastopt.Momentum(p)
        opt.step(g_like)
        np.testing.assert_allclose(p, expected - 1e-2 * 0.1 * g, rtol=1e-13)
        assert opt.state["v"].flags.c_contiguous == p.flags.c_contiguous


def test_scalars_as_gradients_of_0d_parameters():
    theta = np.array(0.0)
    opt = fastopt.GD(theta, lr=0.1)
    opt.step(2 * (theta - 3))  # NumPy makes this a scalar
    assert theta == 0.6000000000000001


def test_bind():
    p = random(100, np.float32, 1)
    twin = p.copy()
    g, other = random(100, np.float32, 2), random(100, np.float32, 3)
    bound, plain = fastopt.Adam(p), fastopt.Adam(twin)
    bound.bind(g)
    for k in range(6):
        g[...] = random(100, np.float32, 4 + k)
        if k == 3:
            bound.step(other)  # this once
            plain.step(other)
        else:
            bound.step()
            plain.step(g.copy())
        np.testing.assert_array_equal(p, twin)


def test_a_bound_gradient_is_kept_alive():
    p = np.zeros(2**16)
    opt = fastopt.GD(p, lr=1.0)
    opt.bind(np.ones(2**16))
    trash = [np.full(2**16, 7.0) for _ in range(10)]
    opt.step()
    assert (p == -1).all()
    assert len(trash) == 10


def test_many_tensors_with_new_gradients_each_step():
    params = [random(64, np.float32, k) for k in range(1000)]
    twins = [p.copy() for p in params]
    opt = fastopt.Adam(params)
    others = [fastopt.Adam(p) for p in twins]
    for step in range(3):
        grads = [random(64, np.float32, 5000 + 1000 * step + k) for k in range(1000)]
        order = np.random.default_rng(step).permutation(1000)  # memory in another order than the list
        grads = [grads[k].copy() for k in order]
        opt.step(grads)
        for other, g in zip(others, grads, strict=True):
            other.step(g)
    for a, b in zip(params, twins, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [3, 1000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_in_their_element(size, bad):
    g = random(size, np.float32, 2)
    g[1] = bad
    for case in (("GD", {}), ("Momentum", {}), ("RMSprop", {}), ("Adam", {})):
        p = random(size, np.float32, 1)
        make(case, p).step(g)
        assert not np.isfinite(p[1])
        assert np.isfinite(np.delete(p, 1)).all()


def test_subnormals_are_kept():
    tiny = np.float32(1e-42)
    p = np.full(100, tiny)
    fastopt.GD(p, lr=1.0).step(np.full(100, tiny / 2))
    assert (p == tiny - tiny / 2).all()
    assert (p != 0).all()


def test_a_schedule_gets_the_step_number_from_1():
    seen = []
    p = np.zeros(1)
    opt = fastopt.GD(p, lr=lambda step: seen.append(step) or 1.0 / step)
    for _ in range(3):
        opt.step(np.ones(1))
    assert seen == [1, 2, 3]
    assert p == -(1 + 1 / 2 + 1 / 3)


def test_hyperparameters_can_be_changed_between_steps():
    p = np.zeros(3)
    opt = fastopt.Momentum(p, lr=1.0, dampening=0.0)
    opt.step(np.ones(3))
    opt.lr, opt.nesterov, opt.weight_decay = 0.5, True, 0.25
    v, exact = np.ones(3), -np.ones(3)
    g = 1 + 0.25 * exact
    v = 0.9 * v + g
    exact -= 0.5 * (0.9 * v + g)
    opt.step(np.ones(3))
    np.testing.assert_allclose(p, exact, rtol=1e-15)


def test_repr_says_what_it_is():
    opt = fastopt.Adam({"a": np.zeros((1000, 3), np.float32), "b": np.zeros(2)}, lr=0.5)
    text = repr(opt)
    for word in ("Adam(", "2 arrays", "3_002 elements", "float32", "float64", "step_count=0", "lr=0.5"):
        assert word in text


def test_states_are_placed_away_from_their_parameter():
    p = np.zeros(2**20, np.float32)
    opt = fastopt.Adam(p)
    places = {a.ctypes.data % 4096 // 64 for a in (p, opt.state["m"], opt.state["v"])}
    assert len(places) == 3
    assert min(abs(a - b) for a in places for b in places if a != b) >= 16
