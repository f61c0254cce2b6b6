"""What a call costs besides the arithmetic: arrays of one element."""

import functools

import numba
import numpy as np

import fastopt

from .common import OPTIMIZERS, arrays, optimizer


class Step:
    params = OPTIMIZERS
    param_names = ("optimizer",)

    def setup(self, name):
        self.opt, self.grad = optimizer(name, 1, "float32")
        self.opt.step(self.grad)

    def time_bound(self, name):
        self.opt.step()

    def time_unbound(self, name):
        self.opt.step(self.grad)


class Function:
    params = OPTIMIZERS
    param_names = ("optimizer",)

    def setup(self, name):
        method = getattr(fastopt, name).with_hyperparameters()
        p, g, *states = arrays(1, "float32", 2 + len(method.active_states()))
        timed = {"step": 1} if method.timed else {}
        self.call = functools.partial(getattr(fastopt, name.lower()), p, g, *states, **timed)
        self.call()

    def time_function(self, name):
        self.call()


class Jitable:
    """1000 updates of one element inside compiled code."""

    params = OPTIMIZERS
    param_names = ("optimizer",)

    def setup(self, name):
        update = fastopt.jitable(getattr(fastopt, name))
        states = len(getattr(fastopt, name).with_hyperparameters().active_states())

        @numba.njit
        def without(p, g, states):
            for step in range(1, 1001):
                update(p, g, step, 1e-3)

        @numba.njit
        def with_states(p, g, states):
            for step in range(1, 1001):
                update(p, g, *states, step, 1e-3)

        p, g, *rest = arrays(1, "float32", 2 + states)
        loop = with_states if states else without
        self.call = functools.partial(loop, p, g, tuple(rest))
        self.call()

    def time_jitable(self, name):
        self.call()


class Minimize:
    def time_100_iterations(self):
        fastopt.minimize(np.sum, np.zeros(1), grad=np.ones_like, max_iter=100)


class Info:
    def time_info(self):
        fastopt.info()
