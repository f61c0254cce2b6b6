"""Adam in fewer bytes: storage x size."""

import numpy as np

import fastopt

from .common import SIZES, arrays


class Storage:
    """A bound step, in milliseconds and in bytes kept of each element, gradient included.

    16 bits are those of bfloat16, as ``uint16``: so nothing but NumPy is needed.
    """

    storages = {
        "float32": (False, {}),
        "bfloat16 states": (False, {"state_dtype": "bfloat16"}),
        "int8 states": (False, {"state_dtype": "int8"}),
        "bfloat16, stochastic, bfloat16 states": (True, {"rounding": "stochastic", "state_dtype": "bfloat16"}),
        "split8, int8 states": (True, {"master": "split8", "state_dtype": "int8"}),
        "split16, int8 states": (True, {"master": "split16", "state_dtype": "int8"}),
    }
    params = (list(storages), SIZES)
    param_names = ("storage", "size")

    def setup(self, storage, size):
        narrow, kwargs = self.storages[storage]
        p, g = arrays(size, "float32", 2)
        if narrow:
            p, g = ((a.view(np.uint32) >> 16).astype(np.uint16) for a in (p, g))
        self.opt, self.kept = fastopt.Adam(p, **kwargs), p.nbytes + g.nbytes
        self.opt.bind(g)
        self.opt.step()

    def time_step(self, storage, size):
        self.opt.step()

    def track_bytes(self, storage, size):
        return (self.kept + sum(a.nbytes for a in self.opt.state.values())) / size

    track_bytes.unit = "bytes an element"
