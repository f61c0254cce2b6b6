"""Any shapes, any hyperparameters: hypothesis looks for what the chosen cases miss."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import fastopt

from .cases import CASES, assert_same_bits, call, check_step, first_states, make, random

quick = settings(derandomize=True, deadline=None, max_examples=100)
cases = st.sampled_from(CASES)
dtypes = st.sampled_from([np.float32, np.float64])
shapes = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
seeds = st.integers(0, 2**32 - 1)
decays = st.floats(0, 1, exclude_max=True)

# What a number may be; flags, and whether there is momentum or decay at all, stay as the case has them, so that
# nothing is compiled here. A hyperparameter that is not listed keeps the value of the case.
NUMBERS = {
    "lr": st.floats(0, 10),
    "weight_decay": st.floats(1e-3, 2),
    "beta": decays,
    "beta3": decays,
    "alpha": st.floats(0, 10),
    "betas": st.tuples(decays, decays),
    "dampening": st.none() | st.floats(0, 1),
    "eps": st.floats(1e-9, 1),  # positive: a quotient of two zeros is another matter
    "eps_root": st.just(0.0) | st.floats(1e-9, 1),
    "eps_hat": st.just(0.0) | st.floats(1e-9, 1),
    "momentum": st.floats(1e-3, 0.999),
    "rho": decays,
}


@st.composite
def any_numbers(draw):
    """Return a case with other numbers."""
    name, kwargs = draw(cases)
    hyperparameters = getattr(fastopt, name).hyperparameters | kwargs
    free = [k for k, v in hyperparameters.items() if k in NUMBERS and (v or k not in ("weight_decay", "momentum"))]
    numbers = NUMBERS if "eps" in hyperparameters else NUMBERS | {"eps_root": NUMBERS["eps"]}  # one of them is not 0
    return name, kwargs | {k: draw(numbers[k]) for k in free}


@st.composite
def same_shape(draw, count):
    """Return arrays of one shape and dtype with any values, subnormal ones and zeros included."""
    dtype = draw(dtypes)
    values = st.floats(-1000, 1000, width=32)
    shape = draw(array_shapes(min_dims=1, max_dims=1, max_side=40))
    return [draw(arrays(dtype, shape, elements=values)) for _ in range(count)]


@quick
@given(any_numbers(), same_shape(3), st.integers(1, 10**6))
def test_any_numbers_against_the_oracle(case, given_arrays, step):
    p, *grads = given_arrays
    opt = make(case, p)
    for g in grads:
        check_step(case, opt, p, g)
        opt.load_state_dict(opt.state_dict() | {"step": step})  # bias corrections of any step


@quick
@given(cases, dtypes, st.lists(shapes, min_size=1, max_size=5), st.sampled_from("CF"), seeds)
def test_the_same_bits_for_any_shapes_orders_and_forms(case, dtype, list_of_shapes, order, seed):
    flat = [random(int(np.prod(shape)), dtype, seed + k) for k, shape in enumerate(list_of_shapes)]
    params = [np.array(a.reshape(shape), order=order) for a, shape in zip(flat, list_of_shapes, strict=True)]
    twins = [p.copy("K") for p in params]
    together = make(case, params)
    alone = [make(case, a) for a in flat]
    states = [first_states(together, p) for p in params]
    for step in (1, 2):
        grads = [random(a.size, dtype, seed + 10 * step + k) for k, a in enumerate(flat)]
        shaped = [np.array(g.reshape(s), order=order) for g, s in zip(grads, list_of_shapes, strict=True)]
        together.step(shaped)
        for k, g in enumerate(grads):
            alone[k].step(g)
            call(case, twins[k], shaped[k], states[k], step)
    assert_same_bits(params, [a.reshape(shape) for a, shape in zip(flat, list_of_shapes, strict=True)])
    assert_same_bits(params, twins)
    for k, opt in enumerate(alone):
        assert_same_bits([together.state[name][k].ravel() for name in opt.state], opt.state.values())


@quick
@given(any_numbers(), same_shape(2))
def test_a_learning_rate_of_zero_leaves_the_parameter(case, given_arrays):
    name, kwargs = case
    p, g = given_arrays
    before = p.copy()
    make((name, kwargs | {"lr": 0.0}), p).step(g)
    np.testing.assert_array_equal(p, before)  # -0 may become 0


@quick
@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=60))
def test_chunks_cover_every_element_once(sizes):
    from fastopt._engine.chunks import CHUNK, chunks_of

    items, chunks = chunks_of(sizes)
    assert items[0] == 0
    assert items[-1] == len(chunks)
    assert (np.diff(items) > 0).all()
    covered = [np.zeros(size, int) for size in sizes]
    for tensor, start, length in chunks:
        assert 0 < length <= CHUNK
        covered[tensor][start : start + length] += 1
        assert start + length <= sizes[tensor]
    assert all((c == 1).all() for c in covered)
    work = [chunks[a:b, 2].sum() for a, b in pairwise(items)]
    assert max(work, default=0) <= 2 * CHUNK


@quick
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), min_size=1, max_size=8))
def test_overlap_is_found_exactly_when_there_is_one(spans):
    from fastopt._arrays.checks import check_disjoint

    block = np.zeros(200)
    used = np.zeros(200, int)
    for start, size in spans:
        used[start : start + size] += 1
    named = [(f"a{k}", block[start : start + size]) for k, (start, size) in enumerate(spans)]
    try:
        check_disjoint(named)
    except ValueError:
        assert used.max() > 1
    else:
        assert used.max() <= 1
