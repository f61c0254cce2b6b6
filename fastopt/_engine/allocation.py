"""Where the states of parameters lie in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .._arrays.checks import Array
from .._kernels.ahead import LINE

#: Bytes of a page of memory, and of one for large arrays.
PAGE, LARGE_PAGE = 1 << 12, 1 << 21
#: From how many bytes on the states of a parameter are moved apart by many pages.
_LARGE = 32 * LARGE_PAGE
#: From how many bytes on an array has memory for itself, and how many a piece of memory for several has at most.
_ALONE, _PIECE = 8 * LARGE_PAGE, 16 * LARGE_PAGE


class Place(NamedTuple):
    """Where memory had better begin.

    Large arrays start at the same place of a page, nearly always, and those of 2^k elements at a distance of nearly
    2^k bytes. Streams at equal places compete for the same few lines of the first-level cache, and on some processors
    evict each other before a line is used up: 2^25 float32 elements on an AMD Zen 4 took 24 ms a step with NumPy's
    placement and 9 ms with the states moved apart by a fraction of a page. Streams a power of two apart compete in
    other tables, too: from 64 MiB on, of which that is little, states are moved apart by many pages as well.

    Attributes
    ----------
    address : int
        One such place.
    span : int
        Others are this many bytes further.
    """

    address: int
    span: int

    @classmethod
    def beside(cls, address: int, nbytes: int, index: int, count: int) -> Place:
        """Return that for array number `index` of `count` that go with a parameter of some bytes at an address."""
        span = LARGE_PAGE if nbytes >= _LARGE else PAGE
        pages = (index + 1) * (span // PAGE) // (count + 1)
        return cls((address + pages * PAGE + (index + 1) * PAGE // (count + 1)) // LINE * LINE, span)

    def room(self, nbytes: int) -> int:
        """Return what an array of some bytes takes, to begin there: those of less than a page have no place."""
        return _lines(nbytes) + (0 if nbytes < PAGE else self.span)

    def start(self, buffer: Array, nbytes: int) -> int:
        """Return where in a buffer it begins."""
        return 0 if nbytes < PAGE else (self.address - buffer.ctypes.data) % self.span


class Pool:
    """Memory for arrays that are used together: pieces for several of those that are not large.

    Only pieces of megabytes are in large pages, where a system has them, and a processor knows where more of such pages
    are: AdamW of 128 tensors of 2^15 elements, in a virtual machine, 3.6 ms a step with a piece of memory for each
    state and 3.2 ms with one for all. And a page for each, to be moved in, would be 70 times what the states of 50,000
    tensors of 16 elements take. A piece is kept while one of its arrays is.

    Parameters
    ----------
    arrays : iterable of (int, Place)
        The bytes and the places of all arrays that will be taken from the pool, in that order.
    """

    def __init__(self, arrays: Iterable[tuple[int, Place]]) -> None:
        self._sizes = deque[int]()
        for room in (place.room(nbytes) for nbytes, place in arrays if not _alone(nbytes, place)):
            if not self._sizes or self._sizes[-1] + room > _PIECE:
                self._sizes.append(0)
            self._sizes[-1] += room
        self._rest = np.empty(0, np.uint8)

    def take(self, nbytes: int, place: Place) -> Array:
        """Return an array of bytes, all 0, that begins at such a place."""
        room = place.room(nbytes)
        if _alone(nbytes, place):
            buffer = np.zeros(room, np.uint8)
        else:
            if not self._rest.size:
                self._rest = _zeros(self._sizes.popleft())
            buffer, self._rest = self._rest[:room], self._rest[room:]
        start = place.start(buffer, nbytes)
        return buffer[start : start + nbytes]


def _alone(nbytes: int, place: Place) -> bool:
    return nbytes >= (PAGE if place.span == LARGE_PAGE else _ALONE)


def _zeros(nbytes: int) -> Array:
    """Return bytes, all 0, that begin with a line."""
    buffer = np.zeros(nbytes + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + nbytes]


def _lines(nbytes: int) -> int:
    """Return a number of bytes as whole lines: at least one, as torch.save refuses arrays that begin at one place."""
    return -(-max(nbytes, 1) // LINE) * LINE
