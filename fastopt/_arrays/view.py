"""Views: where an array lies and how, which is all that checks and tables need, whatever kind of array it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class View:
    """An array's address, shape, strides and dtype. Nothing here reads or writes its memory.

    Attributes
    ----------
    address : int
        Of the first element.
    shape, strides : tuple of int
        Strides in bytes.
    dtype : numpy.dtype
    writable : bool
    owner : object
        The caller's array, which it keeps alive.
    device : int or None
        The number of its GPU, or None in the host's memory.
    stream : int or None
        The stream on which it is made, if it says so.
    """

    __slots__ = ("_alive", "address", "device", "dtype", "owner", "shape", "stream", "strides", "writable")

    def __init__(
        self,
        owner: Any,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: np.dtype[Any],
        *,
        writable: bool,
        device: int | None = None,
        stream: int | None = None,
    ) -> None:
        self.owner, self.address, self.shape, self.dtype = owner, address, shape, dtype
        self.strides = _packed(shape, dtype.itemsize) if strides is None else strides
        self.writable, self.device, self.stream = writable, device, stream
        # A PyTorch tensor can be given other memory while it lives; this keeps what it has now.
        self._alive = owner.detach() if type(owner).__module__.partition(".")[0] == "torch" else owner

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def aligned(self) -> bool:
        """Whether every element is at a multiple of its size."""
        steps = (stride for n, stride in zip(self.shape, self.strides, strict=True) if n > 1)
        return not any(place % self.itemsize for place in (self.address, *steps))

    @property
    def c_contiguous(self) -> bool:
        """Whether it is contiguous, the last dimension fastest."""
        return self._steps_are(_packed(self.shape, self.itemsize))

    @property
    def f_contiguous(self) -> bool:
        """Whether it is contiguous, the first dimension fastest."""
        return self._steps_are(_packed(self.shape[::-1], self.itemsize)[::-1])

    def _steps_are(self, packed: tuple[int, ...]) -> bool:
        """Say whether strides are these, where they matter: not in dimensions of length 1, nor if there is nothing."""
        dimensions = zip(self.shape, self.strides, packed, strict=True)
        return 0 in self.shape or all(n == 1 or stride == step for n, stride, step in dimensions)

    def empty(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Return a new array in the host's memory of this shape, order and dtype."""
        return np.empty(self.shape, self.dtype, order="C" if self.c_contiguous else "F")


def _packed(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the strides of a C-contiguous array."""
    strides = [itemsize]
    for length in shape[:0:-1]:
        strides.append(strides[-1] * length)
    return tuple(strides[: len(shape)][::-1])


def view_of(array: Any) -> View:
    """Return the view of an ndarray; of a view, itself."""
    if isinstance(array, View):
        return array
    own = array.ctypes.data
    return View(array, own, array.shape, array.strides, array.dtype, writable=array.flags.writeable)
