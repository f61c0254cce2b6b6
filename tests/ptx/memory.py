"""The memory of the stand-in for a device: arrays between guard bytes, and a check of every access.

An access must lie within one array, be aligned to its width, and not write what is only to be read. Two accesses to the
same bytes by two threads, one of them a write, are a race unless a barrier of their block is between them; by two
blocks, always. Atomic operations are no race with one another.
"""

import bisect
import itertools
import weakref

import numpy as np

GUARD = 256
PATTERN = 0xA5
READ, WRITE, ATOMIC = 1, 2, 4
#: By the kinds of access to one place: whether two threads may not have made them.
CONFLICT = np.array([bool(kinds & WRITE) or kinds == READ | ATOMIC for kinds in range(8)])


class KernelError(RuntimeError):
    """What a kernel may not do, or what the interpreter does not know."""


class Accesses:
    """Who has accessed each place of an array since a certain moment: the lowest and the highest number, and how."""

    def __init__(self, places):
        self.lowest, self.highest = np.empty(places, np.int64), np.empty(places, np.int64)
        self.kinds = np.empty(places, np.uint8)
        self.since = None

    def note(self, places, who, kind, since):
        """Add accesses since the moment `since`; return which of them are in conflict."""
        if since != self.since:
            self.since = since
            self.lowest.fill(np.iinfo(np.int64).max)
            self.highest.fill(-1)
            self.kinds.fill(0)
        np.minimum.at(self.lowest, places, who)
        np.maximum.at(self.highest, places, who)
        self.kinds[places] |= np.uint8(kind)
        return (self.lowest[places] < self.highest[places]) & CONFLICT[self.kinds[places]]


class Region:
    """Bytes at an address.

    Parameters
    ----------
    name : str
        What messages call it.
    content : ndarray of uint8
    address : int
        Of the first byte.
    granule : int
        Of how many bytes each access is noted together.
    writable : bool
    """

    def __init__(self, name, content, address, granule, writable=True):
        self.name, self.content, self.address, self.granule, self.writable = name, content, address, granule, writable
        places = -(-content.size // granule)
        self.threads, self.blocks = Accesses(places), Accesses(places)

    @property
    def end(self):
        return self.address + self.content.size

    def note(self, offsets, size, kind, at):
        """Check and note an access of `size` bytes by the threads of `at`, a :class:`Moment`."""
        if kind != READ and not self.writable:
            raise KernelError(f"{self.name} is only to be read, and is written: `{at.text}`")
        if not self.writable:
            return
        width = max(1, size // self.granule)
        places = (offsets[:, None] // self.granule + np.arange(width)).reshape(-1)
        threads = np.repeat(at.threads, width)
        for accesses, who, since, what in (
            (self.threads, threads, at.barrier, "threads"),
            (self.blocks, np.full(places.size, at.block), at.launch, "blocks"),
        ):
            bad = accesses.note(places, who, kind, since)
            if bad.any():
                place = places[bad][0]
                raise KernelError(
                    f"race: {self.name}, byte {place * self.granule}, {what} {accesses.lowest[place]} and "
                    f"{accesses.highest[place]}, no barrier between: `{at.text}`"
                )


class Moment:
    """When an access is made, and by whom.

    `launch` and `barrier` are any numbers that differ before and after, `threads` those that take part.
    """

    __slots__ = ("barrier", "block", "launch", "text", "threads")

    def __init__(self, launch, barrier, block, threads, text):
        self.launch, self.barrier, self.block, self.threads, self.text = launch, barrier, block, threads, text


class Array:
    """An array in guarded memory. It shows itself by ``__cuda_array_interface__`` alone, as CuPy's and PyTorch's do.

    Parameters
    ----------
    memory : Memory
    values : array_like
        What it holds at first.
    name : str
    shift : int
        By how many elements it is moved from an address that is a multiple of 256 bytes.
    writable : bool
        Whether kernels may write to it.
    """

    def __init__(self, memory, values, name="array", shift=0, writable=True):
        values = np.asarray(values)
        order = "C" if values.flags.c_contiguous else "F"
        self._whole = np.full(values.nbytes + 2 * GUARD + 256 + shift * values.itemsize, PATTERN, np.uint8)
        self._start = -self._whole.ctypes.data % 256 + GUARD + shift * values.itemsize
        self._stop = self._start + values.nbytes
        content = self._whole[self._start : self._stop]
        self.array = content.view(values.dtype).reshape(values.shape, order=order)
        self.array[...] = values
        self.address = self._whole.ctypes.data + self._start
        self.region = Region(name, content, self.address, min(values.itemsize, 4), writable)
        memory.add(self)

    @property
    def __cuda_array_interface__(self):
        # Nothing is at 0, as PyTorch and CuPy have it.
        data = (self.address if self.array.nbytes else 0, False)
        return self.array.__array_interface__ | {"version": 3, "data": data}

    def check_guards(self):
        for what, guard in (("before", self._whole[: self._start]), ("behind", self._whole[self._stop :])):
            if (guard != PATTERN).any():
                raise KernelError(f"bytes {what} {self.region.name} were written")


class Memory:
    """All arrays that kernels may access, as long as they live."""

    def __init__(self):
        self._bases, self._arrays = [], []

    def add(self, array):
        if not array.array.nbytes:
            return
        # Those that are gone are dropped here, where others may have taken their places.
        alive = sorted([*(a for r in self._arrays if (a := r()) is not None), array], key=lambda a: a.address)
        self._bases, self._arrays = [a.address for a in alive], [weakref.ref(a) for a in alive]

    def check_guards(self):
        for reference in self._arrays:
            if (array := reference()) is not None:
                array.check_guards()

    def find(self, low, high):
        """Return the region with the bytes from `low` to `high`, or None."""
        k = bisect.bisect(self._bases, low) - 1
        array = self._arrays[k]() if k >= 0 else None
        return array.region if array is not None and high <= array.region.end else None

    def locate(self, addresses, size, text):
        """Yield each region that accesses go to, which of them, and their offsets there."""
        region = self.find(int(addresses.min()), int(addresses.max()) + size)
        if region is not None:
            yield region, slice(None), (addresses - np.uint64(region.address)).astype(np.int64)
            return
        found = {}
        for k, address in enumerate(addresses.tolist()):
            region = self.find(address, address + size)
            if region is None:
                raise KernelError(f"out of bounds: {size} bytes at {address:#x}{self._near(address)}: `{text}`")
            found.setdefault(region, []).append(k)
        for region, which in found.items():
            yield region, np.array(which), (addresses[which] - np.uint64(region.address)).astype(np.int64)

    def _near(self, address):
        k = bisect.bisect(self._bases, address)
        nearest = [a.region for r in self._arrays[max(0, k - 1) : k + 1] if (a := r()) is not None]
        return "".join(
            f", {address - r.address:+d} from the start of {r.name} ({r.content.size} bytes)" for r in nearest
        )


def check_alignment(addresses, size, text):
    bad = (addresses & np.uint64(size - 1)) != 0
    if bad.any():
        raise KernelError(f"misaligned: {size} bytes at {int(addresses[bad][0]):#x}: `{text}`")


#: Numbers of launches and barriers: no two of a process are the same.
moments = itertools.count()
