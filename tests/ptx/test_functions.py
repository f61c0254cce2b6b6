"""NumPy's functions in the rule of an optimizer of one's own, in executed PTX: the CPU's bits, or a message."""

from typing import NamedTuple

import numpy as np
import pytest

import fastopt


class Scalars(NamedTuple):
    lr: float


def optimizer(rule):
    def scalars(step, lr) -> Scalars:
        return Scalars(lr)

    return type("Own", (fastopt.Optimizer,), {"rule": staticmethod(rule), "scalars": staticmethod(scalars)})


NUMBERS = [np.absolute, np.negative, np.reciprocal, np.sign, np.square, np.sqrt, np.trunc]
PAIRS = [np.fmax, np.fmin, np.maximum, np.minimum]
QUESTIONS = [np.isfinite, np.isinf, np.isnan, np.signbit]


@pytest.mark.parametrize("function", [*NUMBERS, *PAIRS, *QUESTIONS], ids=lambda function: function.__name__)
def test_the_bits_of_the_cpu(function, device):
    if function in QUESTIONS:
        own = optimizer(lambda s, g, p: p if function(g) else p - s.lr * g)
    elif function in PAIRS:
        own = optimizer(lambda s, g, p: p - s.lr * function(g, p))
    else:
        own = optimizer(lambda s, g, p: p - s.lr * function(g))
    rng = np.random.default_rng(0)
    p, g = ((3 * rng.normal(size=300)).astype(np.float32) for _ in range(2))
    g[:4] = np.nan, np.inf, -np.inf, -0.0
    there = device.array(p.copy(), "p")
    own(p, lr=0.5).step(g)
    own(there, lr=0.5).step(device.array(g, "g", writable=False))
    np.testing.assert_array_equal(there.array, p)


def test_what_the_compiler_lacks_is_said(device):
    own = optimizer(lambda s, g, p: p - s.lr * np.rint(g))
    opt = own(device.array(np.zeros(3, np.float32), "p"))
    with pytest.raises(TypeError, match=r"np\.rint is not among the functions that numba-cuda compiles for a GPU"):
        opt.step(device.array(np.ones(3, np.float32), "g", writable=False))
