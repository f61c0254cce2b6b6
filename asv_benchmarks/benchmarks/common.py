"""What the benchmarks share: profiles, optimizers, arrays."""

import os

import numpy as np

from fastopt._bench import catalog

_SIZES = {
    "quick": [2**6, 2**16, 2**20],
    "regular": [2**6, 2**12, 2**16, 2**20, 2**24],
    "large": [2**6, 2**12, 2**16, 2**20, 2**24, 2**26],
}
PROFILE = os.environ.get("FASTOPT_BENCH", "quick")
if PROFILE not in _SIZES:
    raise ValueError(f"FASTOPT_BENCH must be one of {sorted(_SIZES)}, got {PROFILE!r}")
SIZES = _SIZES[PROFILE]
DTYPES = ["float32", "float64"]
OPTIMIZERS = list(catalog.OPTIMIZERS)


def arrays(size, dtype, count):
    """Return random arrays, none of whose elements is or becomes subnormal."""
    rng = np.random.default_rng(0)
    return [rng.random(size, dtype=dtype) + np.dtype(dtype).type(0.5) for _ in range(count)]


def optimizer(name, size, dtype, **hyper):
    """Return an optimizer of one array, bound to its gradient and compiled."""
    p, g = arrays(size, dtype, 2)
    opt = catalog.OPTIMIZERS[name](p, **hyper)
    opt.bind(g)
    opt.step()
    return opt, g
