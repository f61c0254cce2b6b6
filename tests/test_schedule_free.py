"""Schedule-free optimizers: the paper's three sequences, of which two are kept."""

import ml_dtypes
import numpy as np
import pytest

import fastopt

from .cases import random

SGD, ADAMW = fastopt.ScheduleFreeSGD, fastopt.ScheduleFreeAdamW


@pytest.mark.parametrize("lr", [0.05, lambda step: 0.1 / step], ids=["constant", "decreasing"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_the_sequences_of_the_paper(lr, decoupled):
    p, beta, decay = random(50, np.float64, 1), 0.8, 0.3
    opt = SGD(p, lr=lr, beta=beta, weight_decay=decay, decoupled=decoupled)
    x = z = y = p.copy()
    for t in range(1, 30):
        g = random(50, np.float64, 1 + t)
        opt.step(g)
        z = z - (lr(t) if callable(lr) else lr) * (g + decay * y)
        x = (1 - 1 / t) * x + z / t
        y = (1 - beta) * z + beta * x
        np.testing.assert_allclose(p, y, rtol=0, atol=1e-14)
        np.testing.assert_allclose(p + opt.state["d"], z, rtol=0, atol=1e-14)
        np.testing.assert_allclose(opt.averaged(), x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("cls", [SGD, ADAMW])
def test_the_average_is_a_copy_arranged_as_the_parameters(cls):
    params = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, ml_dtypes.bfloat16)}
    opt = cls(params, lr=0.5)
    first = opt.averaged()
    assert {name: (a.shape, a.dtype) for name, a in first.items()} == {"w": ((2, 3), "f4"), "b": ((3,), "f4")}
    assert all((a == 1).all() for a in first.values())
    for _ in range(3):
        opt.step({"w": np.ones((2, 3), np.float32), "b": np.ones(3, ml_dtypes.bfloat16)})
    assert all((a == 1).all() for a in first.values())
    for name, a in opt.averaged().items():
        assert (a > params[name].astype(np.float32)).all()  # it lags behind


def test_each_group_has_its_own_average():
    first, second = np.ones(3), np.ones(3)
    opt = SGD([{"params": first, "beta": 0.5}, {"params": second}], lr=0.5)
    alone = [SGD(np.ones(3), lr=0.5, beta=beta) for beta in (0.5, 0.9)]
    for _ in range(3):
        opt.step([np.ones(3), np.ones(3)])
        for other in alone:
            other.step(np.ones(3))
    np.testing.assert_array_equal(opt.averaged(), [other.averaged() for other in alone])


@pytest.mark.parametrize(("cls", "kwargs"), [(SGD, {"beta": 0.0}), (ADAMW, {"betas": (0.0, 0.9)})])
def test_without_beta_there_is_no_average(cls, kwargs):
    opt = cls(np.ones(3), **kwargs)
    opt.step(np.ones(3))
    with pytest.raises(ValueError, match="beta"):
        opt.averaged()


def test_a_weight_decay_that_leaves_nothing_of_a_parameter():
    """1 - lr * weight_decay is 0: what it took cannot be told from what is left."""
    p = np.ones(3)
    opt = SGD(p, lr=1.0, weight_decay=1.0, decoupled=True)
    for _ in range(3):
        opt.step(np.ones(3))
    assert np.isfinite([p, opt.state["d"]]).all()
