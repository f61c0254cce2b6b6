"""The resident memory of a process that takes steps."""

from .common import OPTIMIZERS, optimizer


class Memory:
    params = (OPTIMIZERS, [2**10, 2**24])
    param_names = ("optimizer", "size")

    def peakmem_steps(self, name, size):
        opt, _ = optimizer(name, size, "float32")
        for _ in range(3):
            opt.step()
