"""Sums of squares and largest absolute values of gradients beside NumPy's dot product; many tensors."""

import numpy as np

import fastopt
from fastopt._engine.reduce import Reduction

from .common import DTYPES, SIZES, arrays


class Reduce:
    params = (SIZES, DTYPES)
    param_names = ("elements", "dtype")

    def setup(self, size, dtype):
        self.g = arrays(size, dtype, 1)[0]
        self.reduction = gathered([self.g])
        self.reduction.run()

    def time_reduce(self, size, dtype):
        self.reduction.run()

    def time_read(self, size, dtype):
        self.reduction.read()

    def time_numpy_dot(self, size, dtype):
        np.dot(self.g, self.g)


class ReduceManyTensors:
    params = ([10, 1000], [64, 4096])
    param_names = ("tensors", "elements each")

    def setup(self, count, size):
        self.reduction = gathered(arrays(size, "float32", count))
        self.reduction.run()

    def time_reduce(self, count, size):
        self.reduction.run()


def gathered(grads):
    """Return the reduction of some gradients."""
    optimizer = fastopt.GD([np.zeros_like(g) for g in grads])
    optimizer.bind(grads)
    reduction = Reduction(optimizer._plan._groups)
    reduction.optimizer = optimizer  # whose arrays it is of
    return reduction
