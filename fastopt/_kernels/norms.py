"""What loops do for the norms of tensors, beside what :mod:`fastopt._kernels.access` does."""

from __future__ import annotations

import functools
from typing import Any

from .._storage.codecs import DOUBLE
from .._storage.evaluator import kind
from .._storage.random_bits import INT64
from .access import Access, operation
from .reduce import LANES
from .targets import Target, room


class Measured(Access):
    """The operations on tensors of one layout, one element at a time, and those of so many norms.

    Attributes
    ----------
    no_totals : tuple of float
        What :attr:`add_squares` begins with.
    """

    def __init__(self, target: Target, codecs: str, scalars: int, norms: int) -> None:
        super().__init__(target, codecs, lanes=1, scalars=scalars, nonfinite=True)
        self._norms, self._contents = norms, f"{self._contents} {norms=}"
        self._elements.append(DOUBLE)  # the last of all arrays has running sums
        self.shapes |= {"norms": (self._layout.compute.name,) * norms, "totals": ("float64",) * norms}
        self.no_totals = (0.0,) * norms

    def _squares(self, b: Any, new: Any) -> list[Any]:
        """Return the squares, in float64, of what is measured of an element."""
        if [number.type for number in new] != [self._compute] * self._norms:
            found = ", ".join(kind(number.type).name for number in new)
            raise TypeError(f"norms returned {found} where a rule computes with {self._layout.compute}")
        wide = new if self._compute == DOUBLE else [b.fpext(number, DOUBLE) for number in new]
        return [b.fmul(number, number) for number in wide]

    @operation("uint64")
    def sums(self, b):
        """Return the address of LANES running sums for each norm, in the caller's frame."""
        return room(b, DOUBLE, LANES * self._norms)

    @operation(None)
    def clear(self, b, sums, i):
        """Set running sum number `i` to 0."""
        self._store(b, [DOUBLE(0.0)], sums, len(self._elements) - 1, i)

    @operation(None)
    def add_to_sums(self, b, sums, i, new):
        """Add the square of each norm's number to its running sum number `i`."""
        last = len(self._elements) - 1
        for k, square in enumerate(self._squares(b, new)):
            place = b.add(i, INT64(k * LANES))
            (total,) = self._load(b, sums, last, place)
            self._store(b, [b.fadd(total, square)], sums, last, place)

    @operation("totals")
    def add_squares(self, b, totals, new):
        """Return the totals with the square of each norm's number added."""
        return [b.fadd(total, square) for total, square in zip(totals, self._squares(b, new), strict=True)]

    @operation("norms")
    def norms(self, b, address):
        """Return the float64 from an address on, one for each norm, in the dtype of the arithmetic."""
        numbers = [self.target.read(b, address, DOUBLE, INT64(k))[0] for k in range(self._norms)]
        return [self._rounded(b, number) for number in numbers]

    @operation(None)
    def store_scalar(self, b, address, i, value):
        """Write scalar number `i` from an address on, rounded to the dtype of the arithmetic."""
        self.target.write(b, [self._rounded(b, value)], address, i)

    @operation("float64")
    def scalar(self, b, address, i):
        """Return scalar number `i` from an address on, as float64."""
        (number,) = self.target.read(b, address, self._compute, i)
        return number if self._compute == DOUBLE else b.fpext(number, DOUBLE)


@functools.cache
def of(target: Target, codecs: str, scalars: int, norms: int) -> Measured:
    """Return the operations; each time the same, as Numba keeps them for good."""
    return Measured(target, codecs, scalars, norms)
