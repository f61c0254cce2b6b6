"""One large step with 1 to N threads."""

import numba

from .common import SIZES, optimizer


class Threads:
    params = list(range(1, numba.config.NUMBA_NUM_THREADS + 1))
    param_names = ("threads",)

    def setup(self, threads):
        self.before = numba.get_num_threads()
        numba.set_num_threads(threads)
        self.opt, _ = optimizer("Adam", SIZES[-1], "float32")

    def teardown(self, threads):
        numba.set_num_threads(self.before)

    def time_step(self, threads):
        self.opt.step()
