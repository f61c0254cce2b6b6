"""A bound step on the GPU, and what the host spends on it; skipped where there is no GPU."""

import fastopt

from .common import DTYPES, OPTIMIZERS, SIZES, arrays


class Step:
    params = (OPTIMIZERS, SIZES, DTYPES)
    param_names = ("optimizer", "size", "dtype")

    def setup(self, name, size, dtype):
        reason = fastopt.info()["cuda"]
        if not reason.startswith("yes"):
            raise NotImplementedError(reason)
        from numba import cuda

        self.cuda = cuda
        p, g = (cuda.to_device(a) for a in arrays(size, dtype, 2))
        self.opt = getattr(fastopt, name)(p)
        self.opt.bind(g)
        self.time_step(name, size, dtype)

    def time_step(self, name, size, dtype):
        """Until the GPU is done."""
        self.opt.step()
        self.cuda.synchronize()

    def time_host(self, name, size, dtype):
        """Until the host may go on."""
        self.opt.step()
