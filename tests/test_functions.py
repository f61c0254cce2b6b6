"""The function forms: the same bits as the classes, and which arrays they take."""

import inspect

import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._engine import single

from .cases import (
    CASES,
    assert_same_bits,
    call,
    core_cases_in_turns,
    elementwise_cases_in_turns,
    first_states,
    make,
    random,
)


@core_cases_in_turns
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2**15 + 3,), (2**17,)])
def test_the_same_bits_as_the_class(case, dtype, shape):
    p = random(shape, dtype, 1)
    twin = p.copy()
    opt = make(case, twin)
    states = first_states(opt, p)
    for step in (1, 2):
        g = random(shape, dtype, 1 + step)
        assert call(case, p, g, states, step) is p
        opt.step(g)
    assert_same_bits([p, *states.values()], [twin, *opt.state.values()])


@elementwise_cases_in_turns
def test_the_same_bits_slice_by_slice(case, dtype):
    p, g = random(1025, dtype, 1), random(1025, dtype, 2)
    twin = p.copy()
    opt = make(case, twin)
    opt.step(g)
    states = first_states(opt, p)
    cuts = np.random.default_rng(0).integers(0, 1025, 20)
    for part in map(slice, [None, *sorted(cuts)], [*sorted(cuts), None]):
        call(case, p[part], g[part], {name: a[part] for name, a in states.items()}, 1)
    assert_same_bits([p, *states.values()], [twin, *opt.state.values()])


def test_states_by_position_and_by_name():
    p, g, s, mu, v = (random(5, np.float32, k) ** 2 for k in range(5))
    q, s2, v2 = p.copy(), s.copy(), v.copy()
    fastopt.rmsprop(p, g, s, momentum=0.9, v=v)
    fastopt.rmsprop(q, g, s2, None, v2, momentum=0.9)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(v, v2)
    fastopt.rmsprop(p, g, s, mu, v, momentum=0.9, centered=True)
    fastopt.adam(p=p, g=g, m=s, v=v, step=np.int64(3))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda a: fastopt.adam(a[0], a[1], a[2], a[3]), ["adam", "step"]),
        (lambda a: fastopt.adam(a[0], a[1], a[2], step=1), ["adam", "needs", "v"]),
        (lambda a: fastopt.adam(a[0], a[1], step=1), ["adam", "needs", "m"]),
        (lambda a: fastopt.momentum(*a), ["momentum", "5 arrays"]),
        (lambda a: fastopt.gd(a[0], a[1], a[2]), ["gd", "3 arrays"]),
        (lambda a: fastopt.rmsprop(a[0], a[1], a[2], a[3]), ["rmsprop", "no use", "mu"]),
        (lambda a: fastopt.rmsprop(a[0], a[1], a[2], v=a[3]), ["rmsprop", "no use", "v"]),
        (lambda a: fastopt.rmsprop(a[0], a[1], a[2], centered=True), ["rmsprop", "needs", "mu"]),
        (lambda a: fastopt.rmsprop(a[0], a[1], a[2], a[3], momentum=0.5), ["rmsprop", "mu"]),
        (lambda a: fastopt.momentum(a[0], a[1], None), ["momentum", "needs", "v"]),
        (lambda a: fastopt.gd(a[0], a[1], lr=lambda step: 0.1), ["lr", "number"]),
        (lambda a: fastopt.gd(a[0], a[1], learning_rate=0.1), ["learning_rate", "lr"]),
        (lambda a: fastopt.adam(*a[:4], step=1.5), ["step", "1.5"]),
        (lambda a: fastopt.adam(a[0], a[1], a[2].tolist(), a[3], step=1), ["m", "numpy.ndarray"]),
        (lambda a: fastopt.adam(a[0], a[1], a[2], a[3].astype(float), step=1), ["v", "float32", "float64"]),
        (lambda a: fastopt.adam(*a[:3], v=a[3], m=a[4], step=1), ["adam", "multiple values", "m"]),
        (lambda a: fastopt.gd(a[0], a[1], m=a[2]), ["m"]),
    ],
)
def test_wrong_calls_are_type_errors_that_name_the_argument(given, words):
    arrays = [random(5, np.float32, k) for k in range(5)]
    before = [a.copy() for a in arrays]
    with pytest.raises(TypeError) as caught:
        given(arrays)
    for word in words:
        assert word in str(caught.value)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_of_another_shape_is_named():
    p, g, m = (random(5, np.float32, k) for k in range(3))
    with pytest.raises(ValueError, match=r"v must have the shape of p, \(5,\); got \(4,\)"):
        fastopt.adam(p, g, m, m[:4].copy(), step=1)


@pytest.mark.parametrize(("step", "error"), [(0, ValueError), (-1, ValueError), (2**63, ValueError), (True, TypeError)])
def test_steps_out_of_range(step, error):
    p, g, m, v = (random(5, np.float32, k) for k in range(4))
    with pytest.raises(error, match=r"step must be an integer >= 1"):
        fastopt.adam(p, g, m, v, step=step)


def test_subclasses_of_ndarray(tmp_path):
    class Mine(np.ndarray):
        pass

    plain = np.ones(100, np.float32)
    g = random(100, np.float32, 2)
    fastopt.gd(plain, g)
    mapped = np.memmap(tmp_path / "p", np.float32, "w+", shape=(100,))
    mapped[...] = 1
    fastopt.gd(mapped, g)
    mapped.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "p", np.float32), plain)
    mine = np.ones(100, np.float32).view(Mine)
    assert fastopt.gd(mine, g.view(Mine)) is mine
    np.testing.assert_array_equal(np.asarray(mine), plain)
    big = np.memmap(tmp_path / "q", np.float32, "w+", shape=(2**16,))
    fastopt.Adam(big).step(np.ones(2**16, np.float32))
    assert (big < 0).all()


def test_dtypes_that_went_through_pickle():
    import pickle

    p, g = (pickle.loads(pickle.dumps(random(10, np.float32, k))) for k in range(2))
    assert p.dtype is not np.dtype(np.float32)
    q = np.array(p.tolist(), np.float32)
    fastopt.gd(p, g)
    fastopt.gd(q, g)
    np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_signatures(name):
    cls, function = OPTIMIZERS[name], getattr(fastopt, name.lower())
    of_class = inspect.signature(cls).parameters
    of_function = inspect.signature(function).parameters
    for hyper, default in cls.hyperparameters.items():
        assert of_class[hyper].default == default
        if hyper in ("clip_norm", "nonfinite", "ema"):  # of all parameters, and with a state of its own
            assert hyper not in of_function
        else:
            assert of_function[hyper].default == default
    assert list(of_function)[: 2 + len(cls.states)] == ["p", "g", *cls.states]
    assert function.__name__ == name.lower()
    assert function.__module__ == cls.__module__


def test_what_is_kept_by_dtype_does_not_grow():
    """An unpickled array has a dtype of its own."""
    p = np.ones(5, np.float32)
    fastopt.gd(p, np.ones(5, np.float32))
    before = len(single._PLANS)
    assert before
    for _ in range(3):
        fastopt.gd(p, np.ones(5, np.dtype(np.float32, copy=True)))
    assert len(single._PLANS) == before
