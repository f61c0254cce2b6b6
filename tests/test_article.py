"""The article's four runs, all 100 iterates, against its listings written out here."""

import math

import numpy as np
import pytest

import fastopt

ALPHA = 0.1


def gd():
    theta = 0.0
    for _ in range(100):
        g = 2 * (theta - 3)
        theta -= ALPHA * g
        yield theta


def momentum():
    theta, v = 0.0, 0.0
    for _ in range(100):
        g = 2 * (theta - 3)
        v = 0.9 * v + 0.1 * g
        theta -= ALPHA * v
        yield theta


def rmsprop():
    theta, s = 0.0, 0.0
    for _ in range(100):
        g = 2 * (theta - 3)
        s = 0.9 * s + 0.1 * g**2
        theta -= ALPHA * g / math.sqrt(s + 1e-8)
        yield theta


def adam():
    theta, m, v = 0.0, 0.0, 0.0
    for t in range(1, 101):
        g = 2 * (theta - 3)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        theta -= ALPHA * (m / (1 - 0.9**t)) / math.sqrt(v / (1 - 0.999**t) + 1e-8)
        yield theta


RUNS = [("GD", gd), ("Momentum", momentum), ("RMSprop", rmsprop), ("Adam", adam)]
every_run = pytest.mark.parametrize(("name", "listing"), RUNS)


@every_run
@pytest.mark.parametrize("shape", [(), (1,), (40,)])
def test_class(name, listing, shape):
    theta = np.zeros(shape)
    opt = getattr(fastopt, name)(theta, **fastopt.conventions["article"][name])
    for expected in listing():
        opt.step(2 * (theta - 3))
        assert np.max(np.abs(theta - expected)) <= 1e-12


@every_run
def test_function(name, listing):
    theta = np.zeros(1)
    states = [np.zeros(1) for _ in getattr(fastopt, name)(theta).state]
    kwargs = fastopt.conventions["article"][name]
    for t, expected in enumerate(listing(), start=1):
        timed = {"step": t} if name == "Adam" else {}
        getattr(fastopt, name.lower())(theta, 2 * (theta - 3), *states, **timed, **kwargs)
        assert abs(theta[0] - expected) <= 1e-12


@every_run
def test_compiled_loop(name, listing):
    theta = np.zeros(1)
    kwargs = dict(fastopt.conventions["article"][name])
    lr = kwargs.pop("lr")
    update = fastopt.jitable(getattr(fastopt, name), **kwargs)
    states = [np.zeros(1) for _ in getattr(fastopt, name)(theta).state]
    for t, expected in enumerate(listing(), start=1):
        update(theta, 2 * (theta - 3), *states, t, lr)
        assert abs(theta[0] - expected) <= 1e-12


def test_the_demonstration_has_the_same_listings():
    from fastopt._bench import article

    for name, listing in RUNS:
        np.testing.assert_allclose(article.listed(name), list(listing()), rtol=0, atol=1e-15)
        np.testing.assert_allclose(article.computed(name), list(listing()), rtol=0, atol=1e-12)
