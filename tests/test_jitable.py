"""The updates inside compiled code: the same bits as the classes; what is refused, and when."""

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

import fastopt

from .cases import DTYPES, assert_same_bits, every_case, every_dtype, make, random, without_lr


@every_case
def test_the_same_bits_as_the_class(case):
    name, kwargs, lr = without_lr(case)
    update = fastopt.jitable(getattr(fastopt, name), **kwargs)

    @numba.njit(fastmath=True)  # the caller's flags must not reach the update
    def loop(p, grads, states, rates):
        for step in range(1, len(grads) + 1):
            update(p, grads[step - 1], *states, step, rates[step - 1])

    @numba.njit(fastmath=True)
    def loop_without_states(p, grads, rates):
        for step in range(1, len(grads) + 1):
            update(p, grads[step - 1], step, rates[step - 1])

    for dtype in DTYPES:
        p, grads = random((5, 7), dtype, 1), random((4, 5, 7), dtype, 2)
        twin = p.copy()
        opt = make(case, twin)
        states = tuple(np.zeros_like(p) for _ in opt.state)
        rates = np.array([lr(step) for step in range(1, 5)])
        if states:
            loop(p, grads, states, rates)
        else:
            loop_without_states(p, grads, rates)
        for g in grads:
            opt.step(g)
        assert_same_bits([p, *states], [twin, *opt.state.values()])


@every_dtype
def test_a_whole_training_loop(dtype):
    adam = fastopt.jitable(fastopt.Adam)

    @numba.njit
    def train(x, y, steps):
        share = y.dtype.type(1 / len(y))
        w = np.zeros_like(x[0])
        m, v, g = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
        for step in range(1, steps + 1):
            g[...] = 0
            for row in range(len(y)):
                error = -y[row]
                for k in range(len(w)):
                    error += x[row, k] * w[k]
                for k in range(len(w)):
                    g[k] += share * error * x[row, k]
            adam(w, g, m, v, step, 1 / step)
        return w

    x, w = random((200, 5), dtype, 1), random(5, dtype, 2, zeros=False)
    np.testing.assert_allclose(train(x, x @ w, 1000), w, atol=1e-3)
    assert_same_bits([train(x, x @ w, 10)], [train.py_func(x, x @ w, 10)])  # and so it is as plain Python


momentum = fastopt.jitable(fastopt.Momentum)


@numba.njit
def call(p, g, v, step, lr):
    momentum(p, g, v, step, lr)


def test_two_updates_in_one_function_do_not_mix():
    heavy = fastopt.jitable(fastopt.Momentum, beta=0.5)

    @numba.njit
    def both(p, q, g, v, w):
        momentum(p, g, v, 1, 0.1)
        heavy(q, g, w, 1, 0.1)
        momentum(q, p, w, 2, 0.1)  # what was a parameter is a gradient now

    p, q, g = random(100, np.float32, 1), random(100, np.float32, 2), random(100, np.float32, 3)
    v, w = np.zeros((2, 100), np.float32)
    expected = [a.copy() for a in (p, q, g, v, w)]
    both(p, q, g, v, w)
    a, b, h, x, y = expected
    fastopt.momentum(a, h, x, lr=0.1)
    fastopt.momentum(b, h, y, lr=0.1, beta=0.5)
    fastopt.momentum(b, a, y, lr=0.1)
    for got, want in zip((p, q, v, w), (a, b, x, y), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_and_orders(order):
    for shape in [(), (0,), (3,), (4, 5), (2, 3, 4)]:
        p, g, v = (np.array(random(shape, np.float64, k), order=order) for k in range(3))
        q, w = p.copy(order="K"), v.copy(order="K")
        call(p, g, v, 1, 0.1)
        fastopt.momentum(q, g, w, lr=0.1)
        np.testing.assert_array_equal(p, q)


def arrays(**changed):
    p, g, v = (np.ones(6) for _ in range(3))
    return [*({"p": p, "g": g, "v": v, "step": 1, "lr": 0.1} | changed).values()]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"g": np.ones(6, np.float32)}, "like p"),
        ({"p": np.ones(6, int)}, "float32 or float64"),
        ({"v": np.ones(12)[::2]}, "contiguous"),
        ({"v": 1.0}, "v must be an array"),
        ({"step": 1.0}, "step must be an integer"),
        ({"lr": "a"}, "lr must be a number"),
        ({"g": np.ones((6, 1))}, "like p"),
    ],
)
def test_what_typing_refuses(bad, words):
    with pytest.raises(TypingError, match=words):
        call(*arrays(**bad))


def test_a_read_only_parameter_is_refused_by_typing():
    p = np.ones(6)
    p.setflags(write=False)
    with pytest.raises(TypingError, match="p is updated in place"):
        call(*arrays(p=p))


shared = np.ones(12)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"g": np.ones(5)}, "shape"),
        ({"p": shared[:6], "g": shared[3:9]}, "share memory"),
        ({"p": shared[3:9], "v": shared[:6]}, "share memory"),
        ({"step": 0}, "step must be"),
        ({"lr": -0.1}, "lr must be"),
        ({"lr": np.nan}, "lr must be"),
        ({"lr": np.inf}, "lr must be"),
    ],
)
def test_what_running_refuses(bad, words):
    given = arrays(**bad)
    before = [np.copy(a) for a in given]
    with pytest.raises(ValueError, match=words):
        call(*given)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_scalar_too_large_for_float32_is_refused():
    p, g, v = np.ones((3, 6), np.float32)
    with pytest.raises(ValueError, match="too large"):
        momentum(p, g, v, 1, 1e39)
    with pytest.raises(ValueError, match="too large"):
        call(p, g, v, 1, 1e39)
    assert (p == 1).all()


def test_outside_of_compiled_code():
    p, g, v = (random(6, np.float64, k) for k in range(3))
    q, w = p.copy(), v.copy()
    momentum(p, g, v, 1, 0.1)
    fastopt.momentum(q, g, w, lr=0.1)
    np.testing.assert_array_equal(p, q)
    with pytest.raises(ValueError, match="share memory"):
        momentum(p, p, v, 1, 0.1)
    with pytest.raises(TypeError, match="p, g, v, step, lr"):
        momentum(p, g, v)


def test_hyperparameters_are_checked_at_once():
    with pytest.raises(ValueError, match=r"beta must be .* \[0, 1\), got 2"):
        fastopt.jitable(fastopt.Momentum, beta=2)
    with pytest.raises(TypeError, match="lr"):
        fastopt.jitable(fastopt.Momentum, lr=2)
