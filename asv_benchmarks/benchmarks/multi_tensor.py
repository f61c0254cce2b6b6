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


class InThePass:
    """What can be done in the pass of a step, beside the step alone: 16 tensors."""

    params = (["alone", "two groups", "clip_norm", "ema", "copy_to", "zero_grads"], [64, 4096, 2**20])
    param_names = ("with", "elements each")

    def setup(self, what, size):
        params, grads = (arrays(size, "float32", 16) for _ in range(2))
        more = {
            "clip_norm": {"clip_norm": 1.0},
            "ema": {"ema": 0.999},
            "copy_to": {"copy_to": arrays(size, "float32", 16)},
            "zero_grads": {"zero_grads": True},
        }.get(what, {})
        if what == "two groups":
            params = [{"params": params[:8]}, {"params": params[8:], "weight_decay": 0.0}]
            grads = [grads[:8], grads[8:]]
        self.opt = fastopt.AdamW(params, **more)
        self.opt.bind(grads)
        self.opt.step()

    def time_step(self, what, size):
        self.opt.step()
