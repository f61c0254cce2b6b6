"""Any shapes, any hyperparameters: hypothesis looks for what the chosen cases miss."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import fastopt

from .cases import random
from .oracles import ORACLES, errors

quick = settings(derandomize=True, deadline=None, max_examples=60)
dtypes = st.sampled_from([np.float32, np.float64])
shapes = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
decays = st.floats(0, 0.999)
rates = st.floats(0, 1)
flags = st.booleans()
shared = {"lr": rates, "weight_decay": st.sampled_from([0.0, 0.01, 0.3]), "decoupled": flags, "maximize": flags}
hypers = st.one_of(
    st.tuples(st.just("GD"), st.fixed_dictionaries(shared)),
    st.tuples(
        st.just("Momentum"),
        st.fixed_dictionaries(shared | {"beta": decays, "dampening": st.none() | st.floats(0, 1), "nesterov": flags}),
    ),
    st.tuples(
        st.just("RMSprop"),
        st.fixed_dictionaries(
            shared | {"beta": decays, "eps": st.floats(1e-6, 1), "eps_root": st.floats(0, 1), "momentum": decays}
        ),
    ),
    st.tuples(
        st.sampled_from(["Adam", "AdamW"]),
        st.fixed_dictionaries(
            shared
            | {
                "betas": st.tuples(decays, decays),
                "eps": st.floats(1e-6, 1),
                "eps_root": st.floats(0, 1),
                "eps_hat": st.floats(0, 1),
            }
        ),
    ),
)


@quick
@given(hypers, st.lists(shapes, min_size=1, max_size=5), dtypes, st.integers(0, 2**32 - 1))
def test_any_hyperparameters_and_shapes(hyper, list_of_shapes, dtype, seed):
    name, kwargs = hyper
    params = [random(shape, dtype, seed + k, zeros=False) for k, shape in enumerate(list_of_shapes)]
    grads = [random(p.shape, dtype, seed + 10 + k, zeros=False) for k, p in enumerate(params)]
    before = [p.copy() for p in params]
    opt = getattr(fastopt, name)(params, **kwargs)
    opt.step(grads)
    for k, (p, old, g) in enumerate(zip(params, before, grads, strict=True)):
        zeros = [np.zeros_like(p) for _ in opt.state]
        exact, exact_states = ORACLES[name](old, g, zeros, 1, **kwargs)
        # Adam's first step divides by 1 - beta, up to 1000 here, and takes the root; see test_step for the rest.
        terms = np.abs(old) + np.max(np.abs(exact - old), initial=0) + kwargs["lr"]
        assert np.max(errors(p, exact, terms), initial=0) <= 2000
        for state, wanted in zip(opt.state.values(), exact_states, strict=True):
            scale = np.max(np.abs(g), initial=0) ** 2 + np.max(np.abs(old), initial=0) ** 2 + 1 + np.abs(wanted)
            assert np.max(errors(state[k], wanted, scale), initial=0) <= 50


@quick
@given(shapes, dtypes, st.integers(0, 3), st.booleans())
def test_the_order_in_memory_does_not_matter(shape, dtype, seed, fortran):
    p, g = random(shape, dtype, seed), random(shape, dtype, seed + 1)
    plain = p.copy()
    order = "F" if fortran else "C"
    p, g_same = np.array(p, order=order), np.array(g, order=order)
    fastopt.Momentum(p).step(g_same)
    fastopt.Momentum(plain).step(g)
    np.testing.assert_array_equal(p, plain)


@quick
@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=60))
def test_chunks_cover_every_element_once(sizes):
    from fastopt._plan import CHUNK, chunks_of

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
    from fastopt._arrays import check_disjoint

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
