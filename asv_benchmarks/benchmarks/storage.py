"""Adam in fewer bytes: storage x size."""

import fastopt
from fastopt._bench.storages import MEASURED, params_and_grads

from .common import SIZES


class Storage:
    """A bound step, in milliseconds and in bytes kept of each element, gradient included.

    16 bits are those of bfloat16, as ``uint16``: so nothing but NumPy is needed.
    """

    params = (list(MEASURED), SIZES)
    param_names = ("storage", "size")

    def setup(self, storage, size):
        chosen = MEASURED[storage]
        (p,), (g,) = params_and_grads(chosen, [size])
        self.opt, self.kept = fastopt.Adam(p, **chosen.options), p.nbytes + g.nbytes
        self.opt.bind(g)
        self.opt.step()

    def time_step(self, storage, size):
        self.opt.step()

    def track_bytes(self, storage, size):
        return (self.kept + sum(a.nbytes for a in self.opt.state.values())) / size

    track_bytes.unit = "bytes an element"
