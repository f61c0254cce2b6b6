"""Stand-ins for arrays on a GPU: the memory is the host's, where the simulator looks for it."""

import numpy as np


class Device:
    """An array that shows itself by ``__cuda_array_interface__`` alone, as CuPy's and PyTorch's do."""

    def __init__(self, array, **changes):
        self.array, self.changes = array, changes

    @property
    def __cuda_array_interface__(self):
        return self.array.__array_interface__ | {"version": 3} | self.changes


class Packed:
    """An array that shows itself by DLPack alone."""

    def __init__(self, array, device=0):
        self.array, self.device = array, device

    def __dlpack_device__(self):
        return (2, self.device)

    def __dlpack__(self, *, stream):
        assert stream == -1  # nobody is to wait
        return self.array.__dlpack__()


def host(array):
    """Return the memory behind a stand-in, or behind the simulator's own array."""
    if isinstance(array, np.ndarray):
        return array
    return array.array if isinstance(array, Device | Packed) else array._ary
