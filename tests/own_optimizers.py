"""Two optimizers as somebody outside the package writes them."""

from typing import NamedTuple

import numpy as np

import fastopt
from fastopt.rules import betas, decay, epsilon, flag, nonnegative, rate, state


class LionScalars(NamedTuple):
    lr: float
    b1: float
    gain1: float
    b2: float
    gain2: float


class Lion(fastopt.Optimizer):
    lr = rate(1e-4)
    betas = betas(0.9, 0.99)
    m = state()

    @staticmethod
    def scalars(step, lr, betas) -> LionScalars:
        b1, b2 = betas
        return LionScalars(lr=lr, b1=b1, gain1=1.0 - b1, b2=b2, gain2=1.0 - b2)

    @staticmethod
    def rule(s, g, p, m):
        u = np.sign(s.b1 * m + s.gain1 * g)
        return p - s.lr * u, s.b2 * m + s.gain2 * g


class AdaScalars(NamedTuple):
    lr: float
    beta: float
    eps: float


class Ada(fastopt.Optimizer):
    lr = rate(1e-2)
    beta = decay(0.9)
    eps = epsilon(1e-8)
    start = nonnegative(0.1)
    heavy = flag(False)
    total = state(nonnegative=True, init="start")
    v = state(when="heavy")

    @staticmethod
    def scalars(step, lr, beta, eps) -> AdaScalars:
        return AdaScalars(lr=lr, beta=beta, eps=eps)

    @staticmethod
    def rule(s, g, p, total, v):
        total = total + g * g
        d = g / (np.sqrt(total) + s.eps)
        if s.heavy:
            d = v = s.beta * v + d
        return p - s.lr * d, total, v
