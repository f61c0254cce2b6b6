"""Every optimizer, dtype, size and flag against the oracle; the same bits however the work is cut."""

import itertools

import numba
import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._engine import threads
from fastopt._kernels import reference

from .cases import (
    CASES,
    PERIOD,
    assert_same_bits,
    check_step,
    elementwise_cases_in_turns,
    every_case,
    every_case_in_turns,
    first_states,
    make,
    random,
)
from .oracles import GRADIENTS, ORACLES, answer, has_norms, ulps

SIZES = [0, 1, 7, 1023, 1025, 2**20 + 3]


def ours():
    return OPTIMIZERS


def test_every_optimizer_has_cases_and_an_oracle():
    assert set(ours()) == {name for name, _ in CASES} == set(ORACLES)


@pytest.mark.parametrize("name", ORACLES)
def test_every_hyperparameter_has_a_case_and_the_default_of_the_oracle(name):
    hyperparameters = ours()[name].hyperparameters
    assert hyperparameters == ORACLES[name][1]
    in_cases = {k for n, kwargs in CASES if n == name for k in kwargs}
    elsewhere = {"reproducible", *GRADIENTS}  # tests/test_reproducible.py, tests/test_gradients.py
    assert set(hyperparameters) == in_cases | elsewhere


@every_case_in_turns
@pytest.mark.parametrize("size", SIZES)
def test_against_the_oracle(case, dtype, size):
    p, *grads = (np.resize(random(min(size, PERIOD), dtype, k), size) for k in range(4))
    opt = make(case, p)
    for g in grads:
        check_step(case, opt, p, g)
    assert opt.step_count == 3


@every_case_in_turns
def test_steady_gradients_against_the_oracle(case, dtype):
    """As averages approach what they are taken of, s - mu^2 cancels and rounds to negative numbers too."""
    p, g = random(1023, dtype, 1), random(1023, dtype, 2)
    opt = make(case, p)
    for _ in range(200):
        check_step(case, opt, p, g)
    assert np.isfinite(p).all()


@every_case_in_turns
def test_the_first_step_from_zero_in_ulps(case, dtype):
    """Nothing but products, quotients and roots, and no difference to amplify a rounding: 5 ulps each."""
    name, kwargs = case
    p, g = np.zeros(1023, dtype), random(1023, dtype, 2)
    opt = make(case, p)
    opt.step(g)
    exact = answer(name, np.zeros_like(p), g, [*first_states(opt, p).values()], 1, **kwargs)
    for new, right in zip([p, *opt.state.values()], exact, strict=True):
        assert np.max(ulps(new, right.value)) <= 5


@every_case_in_turns
@pytest.mark.parametrize("size", [3, 1000])
def test_nan_and_infinity_go_where_the_equations_lead_them(case, dtype, size):
    for bad in (np.nan, np.inf, -np.inf):
        p, g = random(size, dtype, 1), random(size, dtype, 2)
        opt = make(case, p)
        g[1] = bad
        check_step(case, opt, p, g)
        assert np.isfinite(np.delete(p, 1)).all() or has_norms(case[0], **case[1])
        g[1], p[2] = 1, bad
        check_step(case, opt, p, g)


@every_case_in_turns
def test_subnormals_are_kept_in_parameters_and_not_in_states(case, dtype):
    tiny, normal = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_normal
    p = random(100, dtype, 1) * 100 * tiny
    opt = make(case, p)
    for k in range(3):
        check_step(case, opt, p, random(100, dtype, 2 + k) * 100 * tiny)
        for state in opt.state.values():
            assert ((state == 0) | (np.abs(state) >= normal)).all()
    assert np.any((p != 0) & (np.abs(p) < normal)) or case[0] != "GD"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sign_and_the_least_number_of_a_state(dtype):
    """With beta = 0 and no dampening the velocity is the gradient."""
    normal = np.finfo(dtype).smallest_normal
    below = np.nextafter(normal, dtype(0))
    g = np.array([normal, below, -normal, -below, 0.0, np.inf, -np.inf, np.nan], dtype)
    opt = fastopt.Momentum(np.zeros_like(g), beta=0.0, dampening=0.0, lr=0.0)
    opt.step(g)
    v = opt.state["v"]
    np.testing.assert_array_equal(v, [normal, 0, -normal, 0, 0, np.inf, -np.inf, np.nan])
    assert np.signbit(v[3])


@pytest.mark.parametrize("storage", [{}, {"state_dtype": "bfloat16"}, {"state_dtype": "int8"}], ids=str)
def test_states_decay_to_where_arithmetic_is_fast(storage):
    """A product with a decay factor is rounded back to a few times the smallest subnormal number, for ever."""
    p = np.zeros(300, np.float32)
    opt = fastopt.Adam(p, betas=(0.9, 0.9), **storage)
    opt.step(np.full(300, 1e-12, np.float32))
    zero = np.zeros(300, np.float32)
    opt.bind(zero)
    for _ in range(3000):
        opt.step()
    for name in ("m", "v"):
        after = np.float32(0.9) * opt.decoded(name)
        assert ((after == 0) | (np.abs(after) >= np.finfo(np.float32).smallest_normal)).all()


def test_a_subnormal_difference_of_normal_numbers():
    smallest = np.finfo(np.float32).smallest_normal
    p, g = np.full(100, 1.5 * smallest, np.float32), np.full(100, smallest)
    fastopt.GD(p, lr=1.0).step(g)
    assert (p == 0.5 * smallest).all()
    assert (p != 0).all()


@every_case
def test_the_reference_reads_the_rule_as_the_oracle_does(case):
    name, kwargs = case
    p, g = random(100, np.float64, 1), random(100, np.float64, 2)
    opt = make(case, p)
    states = [random(100, np.float64, 3 + k, zeros=False) ** 2 + 1 for k in range(len(opt.state))]
    given = reference.apply(opt.plain_spec(p.dtype), opt.values(5), [g, p, *states])
    for new, right in zip(given, answer(name, p, g, states, 5, **kwargs), strict=True):
        assert np.max(right.excess(new)) <= 1


def run(case, p, grads, cut=None):
    """Return parameter and states after a step for each gradient, as one array or cut into tensors."""
    pieces = np.split(p.copy(), cut) if cut is not None else [p.copy()]
    opt = make(case, pieces)
    for g in grads:
        opt.step(np.split(g, cut) if cut is not None else [g])
    return [np.concatenate(row) for row in (opt.params, *opt.state.values())]


@elementwise_cases_in_turns
def test_the_same_bits_however_it_is_cut(case, dtype):
    p = random(1025, dtype, 1)
    grads = [random(1025, dtype, 2 + k) for k in range(3)]
    whole = run(case, p, grads)
    assert_same_bits(whole, run(case, p, grads, list(range(1, 1025))))  # each element alone: no packed loop
    cuts = np.sort(np.random.default_rng(0).integers(0, 1025, 20))
    assert_same_bits(whole, run(case, p, grads, cuts))


@every_case_in_turns
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
    monkeypatch.setattr(threads, "PARALLEL_FROM", 2**40)
    results.append(run(case, p, grads, () if has_norms(case[0], **case[1]) else [3, 70_000]))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_small_steps_can_run_in_parallel_too(monkeypatch):
    p, g = random(5000, np.float32, 1), random(5000, np.float32, 2)
    serial = run(("Adam", {}), p, [g], [10, 10, 2000])
    monkeypatch.setattr(threads, "PARALLEL_FROM", 1)
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
        g = np.empty_like(p)
        g[...] = random(p.shape, np.float64, 2)
        twin = p.copy("C")
        opt, plain = fastopt.Momentum(p), fastopt.Momentum(twin)
        opt.step(g)
        plain.step(g.copy("C"))
        assert opt.state["v"].flags.c_contiguous == p.flags.c_contiguous
        assert_same_bits([p, opt.state["v"]], [twin, plain.state["v"]])


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


def test_bind_many_of_two_dtypes_and_bind_again():
    params = {k: random(s, d, s) for k, s, d in [("a", 3, np.float32), ("b", 4, np.float64), ("c", 0, np.float32)]}
    twins = {k: p.copy() for k, p in params.items()}
    first, second = ({k: random(p.size, p.dtype, seed) for k, p in params.items()} for seed in (1, 2))
    bound, plain = fastopt.Adam(params), fastopt.Adam(twins)
    bound.bind(first)
    with pytest.raises(ValueError, match="grads"):
        bound.step(first | {"b": np.ones(5)})  # a refused step does not disturb what is bound
    bound.step()
    bound.bind(second)
    bound.step()
    plain.step(first)
    plain.step(second)
    assert bound.step_count == 2
    assert_same_bits(params.values(), twins.values())


def test_a_bound_gradient_is_kept_alive():
    p = np.zeros(2**16)
    opt = fastopt.GD(p, lr=1.0)
    opt.bind(np.ones(2**16))
    trash = [np.full(2**16, 7.0) for _ in range(10)]
    opt.step()
    assert (p == -1).all()
    assert len(trash) == 10


def test_a_parameter_that_was_shrunk_is_refused(run_script):
    """It may keep its address, and a step of its former size writes past its end."""
    out = run_script("""
    import numpy as np, fastopt
    p = np.ones(5)
    opt = fastopt.GD(p, lr=1.0)
    p.resize(3, refcheck=False)
    try:
        opt.step(np.ones(3))
    except ValueError as error:
        print(error, p.sum())
    """)
    assert out == "params was resized since the optimizer was made 3.0"


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


@pytest.mark.parametrize("size", [2**18, 2**20, 2**24])
def test_states_are_placed_away_from_their_parameter(size):
    """In a page, and large ones in a page of 2 MiB, too."""
    p = np.zeros(size, np.float32)
    opt = fastopt.Adam(p)
    starts = [a.ctypes.data for a in (p, opt.state["m"], opt.state["v"])]
    for span, least in ((2**12, 2**10), (2**21, 2**19 if size == 2**24 else 0)):
        for first, second in itertools.permutations(starts, 2):
            assert (first - second) % span >= least
