"""One step on one array: optimizer x size x dtype."""

import numpy as np

from fastopt._bench import catalog, measure

from .common import DTYPES, OPTIMIZERS, SIZES, optimizer


class Step:
    """A bound step, and what it makes of the machine's memory."""

    params = (OPTIMIZERS, SIZES, DTYPES)
    param_names = ("optimizer", "size", "dtype")

    def setup(self, name, size, dtype):
        self.opt, _ = optimizer(name, size, dtype)
        (group,) = self.opt._groups
        self.stream = measure.streaming(self.opt)
        self.stream()
        self.bytes = measure.bytes_of(group.codecs).moved * size

    def time_step(self, name, size, dtype):
        self.opt.step()

    def track_bandwidth(self, name, size, dtype):
        return self.bytes / self._medians()["step"] / 1e9

    track_bandwidth.unit = "GB/s"

    def track_roofline(self, name, size, dtype):
        """A kernel that only moves the same bytes, measured in turn: its time over that of a step."""
        took = self._medians()
        return took["stream"] / took["step"]

    track_roofline.unit = "fraction of streaming"

    def _medians(self):
        return measure.medians({"step": self.opt.step, "stream": self.stream}, 200, 1.0)


class Decayed:
    """A step with gradients of zero, after so many that the states have decayed: its time over that of a fresh one."""

    params = ([name for name in OPTIMIZERS if catalog.OPTIMIZERS[name].states], DTYPES)
    param_names = ("optimizer", "dtype")

    def setup(self, name, dtype):
        self.opt, _ = optimizer(name, SIZES[1], dtype)
        self.fresh, _ = optimizer(name, SIZES[1], dtype)
        smallest = np.finfo(dtype).smallest_subnormal
        for state in self.opt.state.values():
            state[...] = 400 * smallest
        self.opt.bind(np.zeros(SIZES[1], dtype))
        self.opt.step()

    def track_slowdown(self, name, dtype):
        took = measure.medians({"decayed": self.opt.step, "fresh": self.fresh.step}, 200, 1.0)
        return took["decayed"] / took["fresh"]

    track_slowdown.unit = "times a fresh step"
