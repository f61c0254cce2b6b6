"""The updates inside compiled code: the same bits as the classes; what is refused, and when."""

import shutil
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

import fastopt

from .cases import assert_same_bits, core_cases_in_turns, every_dtype, first_states, make, random, without_lr


@core_cases_in_turns
def test_the_same_bits_as_the_class(case, dtype):
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

    p, grads = random((5, 7), dtype, 1), random((4, 5, 7), dtype, 2)
    twin = p.copy()
    opt = make(case, twin)
    states = tuple(first_states(opt, p).values())
    rates = np.array([lr(step) for step in range(1, 5)])
    if states:
        loop(p, grads, states, rates)
    else:
        loop_without_states(p, grads, rates)
    for g in grads:
        opt.step(g)
    assert_same_bits([p, *states], [twin, *opt.state.values()])


@pytest.mark.internals
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


@pytest.mark.internals
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


MODULE = """
import numba
import fastopt
update = fastopt.jitable({arguments})

@numba.njit(cache=True)
def train(p, g, {states}):
    for step in range(1, 11):
        update(p, g, {states}, step, 0.1)

def result():
    import numpy as np
    p = np.zeros(3)
    train(p, np.array([1.0, 2.0, -3.0]), *np.zeros(({count}, 3)))
    return p.tolist(), sum(train.stats.cache_hits.values())
"""
PAIRS = {
    "Adam": (("fastopt.AdamW", "m, v"), ("fastopt.Adam, weight_decay=0.5", "m, v")),
    "Momentum": (("fastopt.Momentum", "v"), ("fastopt.Momentum, nesterov=True", "v")),
}


@pytest.mark.ci
@pytest.mark.internals
@pytest.mark.parametrize("pair", PAIRS)
def test_two_cached_functions_keep_their_own_updates(run_script, tmp_path, pair):
    """Each compiled in a process of its own, the inner loops had one name; a third process ran one loop for both."""
    for name, (arguments, states) in zip(("one", "other"), PAIRS[pair], strict=True):
        text = MODULE.format(arguments=arguments, states=states, count=states.count(",") + 1)
        (tmp_path / f"{name}.py").write_text(text)
    alone = {
        name: run_script(f"import {name}; print({name}.result()[0])", cache=tmp_path / "cache", PYTHONPATH=tmp_path)
        for name in ("one", "other")
    }
    assert alone["one"] != alone["other"]
    for order in (("one", "other"), ("other", "one")):
        script = "import {0}, {1}\nfor module in ({0}, {1}): print(*module.result())".format(*order)
        together = run_script(script, cache=tmp_path / "cache", PYTHONPATH=tmp_path).splitlines()
        assert together == [f"{alone[name]} 1" for name in order]


CACHED = """
import numba
from settings import update

@numba.njit(cache=True)
def train(p, g, v):
    update(p, g, v, 1, 1.0)

def result():
    import numpy as np
    p = np.zeros(1)
    train(p, np.ones(1), np.zeros(1))
    return p[0], sum(train.stats.cache_hits.values())
"""
OWN = """
from typing import NamedTuple
import fastopt
from fastopt.rules import decay, state
class Scalars(NamedTuple):
    lr: float
    beta: float
class Own(fastopt.Optimizer):
    beta = decay(0.5)
    v = state()
    @staticmethod
    def scalars(step, lr, beta) -> Scalars:
        return Scalars(lr=lr, beta=beta)
    @staticmethod
    def rule(s, g, p, v):
        v = s.beta * v + g
        return p - s.lr * v, v
update = fastopt.jitable(Own, beta=0.5)
"""


@pytest.mark.ci
@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("settings.py", "beta=0.5)\n", "beta=0.25)\n", "-1.0"),
        ("settings.py", "p - s.lr * v", "p - s.lr * v - s.lr * v", "-2.0"),
        ("fastopt/_storage/random_bits.py", '"""Random bits', '"""Some bits', "-1.0"),
    ],
    ids=["hyperparameters", "rule", "fastopt"],
)
def test_a_cached_function_is_compiled_anew_after_a_change_elsewhere(run_script, tmp_path, file, old, new, expected):
    package = tmp_path / "fastopt"
    shutil.copytree(Path(fastopt.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "cached.py").write_text(CACHED)
    (tmp_path / "settings.py").write_text(OWN)

    def run():
        script = "import cached; print(*cached.result())"
        return run_script(script, cache=tmp_path / "cache", PYTHONPATH=tmp_path, PYTHONDONTWRITEBYTECODE=1).split()

    assert run() == ["-1.0", "0"]
    assert run() == ["-1.0", "1"]
    text = (tmp_path / file).read_text()
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new))
    assert run() == [expected, "0"]
    assert run() == [expected, "1"]
