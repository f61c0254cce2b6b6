"""What loops do with memory, on every target: elements, scales of blocks, random bits, scalars, the number of a step.

Loops see tensors as addresses. The operations here turn an address and an index into typed loads and stores, for all
arrays of a tensor at once, so that one loop serves every number of arrays. What lies in memory,
:mod:`fastopt._storage.codecs` knows, and what differs between targets, :mod:`fastopt._kernels.targets`.

On the CPU every load and store says to LLVM that the arrays of one tensor do not overlap (alias scopes), which
:mod:`fastopt._arrays.checks` has checked. Without that, LLVM guards the packed loop with one comparison per pair of
arrays and compiles the loop twice. The promise holds within one call only: two calls in sequence may use the same
memory in different roles. The function that holds such a load is therefore never inlined.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .._arrays.lazy import lazy
from .._storage import random_bits
from .._storage.codecs import DOUBLE, ELEMENTS, FLOAT, INT16, INT32, flushed
from .._storage.evaluator import kind
from .._storage.int8 import BLOCK
from .._storage.layout import layout as layout_of
from .._storage.random_bits import INT64
from .targets import Shape, Target, room

# The types of operands, by name; all others are int64. What a rule returned stays as it is.
_ADDRESSES = ("addresses", "scratch", "table", "chunks", "address", "clock", "sums")
_OPERANDS = {"values": "float64", "value": "float64", "totals": "float64", "new": None} | dict.fromkeys(
    _ADDRESSES, "uint64"
)
_OPERANDS |= dict.fromkeys(("key", "rand", "scales", "absmaxes"), "uint32")


def operation(result: Shape) -> Any:
    """Make of a body an attribute of :class:`Access`: what loops call, made when it is first asked for.

    `result` is its type, or the name of one in ``Access.shapes``.
    """
    return lambda body: lazy(lambda access: access.made(body.__get__(access), result))


class Access:
    """The operations on tensors of one layout, on one target; loops call them without `b`.

    Parameters
    ----------
    target : Target
    codecs : str
        Of the gradient, the parameter and the states.
    lanes : int
        How many elements of each array are moved at a time. Of each there is a row of numbers.
    scalars : int
        How many scalars the rule takes.
    nonfinite : bool
        Whether blocks may hold what is not finite.
    """

    def __init__(self, target: Target, codecs: str, lanes: int, scalars: int, nonfinite: bool) -> None:
        layout = layout_of(codecs)
        self.target, self._layout, self._nonfinite = target, layout, nonfinite
        self.lanes, self._scalars = lanes, scalars
        self._contents = f"{target.name} {codecs!r} {lanes=} {scalars=} {nonfinite=}"
        self._compute, self._written = ELEMENTS[layout.compute.name], layout.written
        self._returned = range(1, len(layout.codecs))  # by a rule
        # A block's new numbers are kept until their scales are known: in an array each, after all others.
        self._elements = [ELEMENTS[dtype.name] for dtype in layout.dtypes] + [FLOAT] * len(layout.scales)
        compute, scales = layout.compute.name, len(layout.scales)
        self.shapes: dict[Any, Shape] = {
            "addresses": ("uint64",) * len(layout.dtypes),
            "rows": ((compute,) * len(layout.codecs),) * lanes,
            "new": ((compute,) * len(self._returned),) * lanes,
            "scratch": ("uint64",) * scales,
            "scales": ("uint32",) * scales,
            "finite absmaxes": ("int32",) * (2 * scales),
            "scalars": (compute,) * scalars,
        }
        #: What :attr:`absmaxes` and :attr:`finite_absmaxes` begin with.
        self.no_absmaxes, self.no_finite_absmaxes = (np.uint32(0),) * scales, (np.int32(0),) * (2 * scales)

    def made(self, body: Any, result: Shape) -> Any:
        """Return what loops call."""
        operands = {name: _OPERANDS.get(name, "int64") for name in list(inspect.signature(body).parameters)[1:]}
        shape = self.shapes.get(result, result)
        return self.target.function(body, f"{self._contents} {body.__name__}", operands, shape)

    def _load(self, b: Any, address: Any, array: int, i: Any, lanes: int = 1) -> list[Any]:
        """Return what is stored of so many elements, from element `i` on, in array number `array`, at `address`."""
        return self.target.read(b, address, self._elements[array], i, lanes, (array, len(self._elements)))

    def _store(self, b: Any, parts: list[Any], address: Any, array: int, i: Any) -> None:
        self.target.write(b, parts, address, i, (array, len(self._elements)))

    def _rows(self, b: Any, addresses: Any, i: Any, scales: Any, lanes: int) -> list[list[Any]]:
        """Return the numbers of so many elements, a row each."""
        layout, rows = self._layout, [list[Any]() for _ in range(lanes)]
        for k, codec in enumerate(layout.codecs):
            columns = [self._load(b, addresses[array], array, i, lanes) for array in layout.rows[k]]
            for row, *stored in zip(rows, *columns, strict=True):
                row.append(codec.read(b, stored, self._compute, layout.scale(scales, k), self._nonfinite))
        return rows

    def _encoded(self, b: Any, new: Any, rand: Any, scales: Any, codecs: Iterable[int]) -> dict[int, list[Any]]:
        """Return what to store in each array of these codecs, of each element; `rand`: random bits of the first."""
        layout, columns = self._layout, dict[int, list[Any]]()
        for row in new:
            if [number.type for number in row] != [self._compute for _ in self._returned]:
                found = ", ".join(kind(number.type).name for number in row)
                raise TypeError(f"a rule returned {found} where it computes with {layout.compute}")
            for k in codecs:
                codec, number = layout.codecs[k], row[k - 1] if k else None
                if k > 1:  # a state
                    number = flushed(b, number, codec)
                parts = codec.write(b, number, rand, layout.scale(scales, k), self._nonfinite)
                for array, part in zip(layout.rows[k], parts, strict=True):
                    columns.setdefault(array, []).append(part)
            rand = random_bits.next_bits(b, rand)
        return columns

    def _write(self, b: Any, addresses: Any, i: Any, new: Any, rand: Any, scales: Any, codecs: Iterable[int]) -> None:
        # One after the other, codecs need fewer of a CPU's registers. A GPU encodes once for `store` and `store_some`.
        for group in [codecs] if self.target.vectors else [[k] for k in codecs]:
            for array, parts in self._encoded(b, new, rand, scales, group).items():
                self._store(b, parts, addresses[array], array, i)

    @operation("addresses")
    def column(self, b, table, tensors, t):
        """Return the addresses of tensor `t` of `tensors`, one per array."""
        places = [b.add(b.mul(INT64(k), tensors), t) for k in range(len(self._layout.dtypes))]
        return [self.target.read(b, table, INT64, place)[0] for place in places]

    @operation(("int64",) * 3)
    def chunk(self, b, chunks, c):
        """Return tensor, start and length of chunk `c`."""
        first = b.mul(c, INT64(3))
        return [self.target.read(b, chunks, INT64, b.add(first, INT64(k)))[0] for k in range(3)]

    @operation("addresses")
    def advance(self, b, addresses, i):
        """Return the addresses of element `i`, which begins a block where there are scales."""
        return [b.add(address, self._layout.offset(b, array, i)) for array, address in enumerate(addresses)]

    @operation("bool_")
    def aligned(self, b, addresses):
        """Say whether vectors can be moved."""
        sizes = ((array, self.lanes * self._layout.dtypes[array].itemsize) for array in self._layout.fields)
        low = functools.reduce(b.or_, [b.and_(addresses[array], INT64(size - 1)) for array, size in sizes])
        return b.icmp_unsigned("==", low, INT64(0))

    @operation("rows")
    def load(self, b, addresses, i, scales):
        """Return the numbers of each element from `i` on: the gradient, the parameter and every state."""
        return self._rows(b, addresses, i, scales, self.lanes)

    @operation("rows")
    def load_some(self, b, addresses, i, n, scales):
        """Return the same, with the last of `n` elements in the place of those beyond it."""
        last = b.sub(n, INT64(1))
        rows = []
        for lane in range(self.lanes):
            here = b.add(i, INT64(lane))
            here = b.select(b.icmp_signed("<", here, last), here, last)
            rows += self._rows(b, addresses, here, scales, 1)
        return rows

    @operation(None)
    def store(self, b, addresses, i, new, rand, scales):
        """Write the new numbers of each element from `i` on; `rand`: the random bits of the first."""
        self._write(b, addresses, i, new, rand, scales, self._written)

    @operation(None)
    def store_some(self, b, addresses, i, n, new, rand, scales):
        """Do the same, but for elements beyond `n`."""
        columns = self._encoded(b, new, rand, scales, self._written)
        for lane in range(self.lanes):
            here = b.add(i, INT64(lane))
            with b.if_then(b.icmp_signed("<", here, n)):
                for array, parts in columns.items():
                    self._store(b, [parts[lane]], addresses[array], array, here)

    @operation("scratch")
    def scratch(self, b):
        """Return the addresses of arrays for a block's new numbers, one for each scale, in the caller's frame."""
        return [room(b, FLOAT, BLOCK) for _ in self._layout.scales]

    def _kept(self, scratch: Any) -> Iterator[tuple[int, Any, int]]:
        """Yield the number of each codec with a scale, and where its new numbers are kept, in which array."""
        for at, (k, address) in enumerate(zip(self._layout.scales, scratch, strict=False)):
            yield k, address, len(self._layout.dtypes) + at

    @operation(None)
    def store_kept(self, b, addresses, scratch, i, new, rand, scales):
        """Do as :attr:`store`, and keep the new numbers that are stored with a scale."""
        kept = {k: (address, array) for k, address, array in self._kept(scratch)}
        for k in self._written:
            self._write(b, addresses, i, new, rand, scales, [k])
            if k in kept:
                self._store(b, [new[0][k - 1]], *kept[k], i)

    @operation("new")
    def kept(self, b, scratch, i):
        """Return those of element `i` again, and 0 for the others."""
        row = [self._compute(0) for _ in self._returned]
        for k, address, array in self._kept(scratch):
            (row[k - 1],) = self._load(b, address, array, i)
        return [row]

    @operation(None)
    def requantize(self, b, addresses, i, new, rand, scales):
        """Write what is stored with a scale once more, and nothing else."""
        self._write(b, addresses, i, new, rand, scales, self._layout.scales)

    @operation("scales")
    def scales(self, b, addresses):
        """Return the scales of the block that the addresses are at."""
        stored = (self._load(b, addresses[array], array, INT64(0)) for array in self._layout.scales.values())
        return [b.zext(scale, INT32) for (scale,) in stored]

    @operation(None)
    def store_scales(self, b, addresses, scales):
        """Write them."""
        for array, scale in zip(self._layout.scales.values(), scales, strict=True):
            self._store(b, [b.trunc(scale, INT16)], addresses[array], array, INT64(0))

    @operation("scales")
    def absmaxes(self, b, absmaxes, new):
        """Return the largest absolute value of each codec with a scale, as bits; ``()`` is where there is none."""
        each = zip(self._layout.scaled.items(), absmaxes, strict=True)
        return [codec.absmax(b, new[0][k - 1], so_far) for (k, codec), so_far in each]

    @operation("finite absmaxes")
    def finite_absmaxes(self, b, absmaxes, new):
        """Return the same of finite numbers, and after each whether there are others, as 0 or 1."""
        found: list[Any] = []
        for at, (k, codec) in enumerate(self._layout.scaled.items()):
            so_far = absmaxes[2 * at : 2 * at + 2]
            for row in new:
                so_far = codec.finite_absmax(b, row[k - 1], *so_far)
            found += so_far
        return found

    @operation("scales")
    def rescale(self, b, scales, absmaxes):
        """Return the scales that a block with these finite absmaxes needs."""
        each = enumerate(self._layout.scaled.values())
        return [codec.rescale(b, scales[at], *absmaxes[2 * at : 2 * at + 2]) for at, codec in each]

    @operation("bool_")
    def needs_rescale(self, b, scales, absmaxes):
        """Say whether any codes of a block with these absmaxes must be written anew."""
        each = zip(self._layout.scaled.values(), scales, absmaxes, strict=True)
        return functools.reduce(b.or_, [codec.needs_rescale(b, *own) for codec, *own in each])

    @operation("bool_")
    def has_nonfinite(self, b, scales):
        """Say whether any codes of a block are of what is not finite."""
        each = zip(self._layout.scaled.values(), scales, strict=True)
        return functools.reduce(b.or_, [codec.has_nonfinite(b, scale) for codec, scale in each])

    #: As in :mod:`fastopt._storage.random_bits`.
    key = operation("uint32")(staticmethod(random_bits.key))
    bits_at = operation("uint32")(staticmethod(random_bits.bits_at))
    next_bits = operation("uint32")(staticmethod(random_bits.next_bits))

    @operation("scalars")
    def load_scalars(self, b, address, group):
        """Return the scalars of a step and a group of parameters, in the dtype of the arithmetic."""
        places = [b.add(b.mul(group, INT64(self._scalars)), INT64(k)) for k in range(self._scalars)]
        return [self.target.read(b, address, self._compute, place)[0] for place in places]

    @operation(None)
    def store_scalars(self, b, address, values):
        """Write them, rounded to that dtype."""
        for k, value in enumerate(values):
            self.target.write(b, [self._rounded(b, value)], address, INT64(k))

    @operation(("float64", "float64"))
    def count_step(self, b, clock):
        """Add one to the step number on a device; return it, and `lr`, as float64."""
        step = b.add(self.target.read(b, clock, INT64, INT64(0))[0], INT64(1))
        self.target.write(b, [step], clock, INT64(0))
        return [b.sitofp(step, DOUBLE), *self.target.read(b, clock, DOUBLE, INT64(1))]

    def _rounded(self, b: Any, number: Any) -> Any:
        return number if self._compute == DOUBLE else b.fptrunc(number, self._compute)

    @operation("int64")
    def integer(self, b, address, i):
        """Return the integer number `i` from an address on: the step number, the group of a tensor."""
        return self.target.read(b, address, INT64, i)[0]


@functools.cache
def of(target: Target, codecs: str, lanes: int = 1, scalars: int = 0, nonfinite: bool = True) -> Access:
    """Return the operations; each time the same, as Numba keeps them for good."""
    return Access(target, codecs, lanes, scalars, nonfinite)
