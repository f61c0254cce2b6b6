"""Many tensors in one step: count x size."""

import fastopt

from .common import arrays


class MultiTensor:
    params = ([10, 100, 1000], [1, 64, 4096])
    param_names = ("tensors", "elements each")

    def setup(self, count, size):
        self.opt = fastopt.Adam(arrays(size, "float32", count))
        self.bound = fastopt.Adam(arrays(size, "float32", count))
        self.grads = [arrays(size, "float32", count) for _ in range(2)]
        self.bound.bind(self.grads[0])
        self.bound.step()
        self.time_new_gradients(count, size)

    def time_bound(self, count, size):
        self.bound.step()

    def time_same_gradients(self, count, size):
        self.opt.step(self.grads[0])

    def time_new_gradients(self, count, size):
        self.grads.reverse()
        self.opt.step(self.grads[0])
