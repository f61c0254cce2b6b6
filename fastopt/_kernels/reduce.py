"""Reductions: sums of squares and largest absolute values, with the same bits for any number of threads and on a GPU.

A chunk is summed in LANES running sums, of every LANES-th element each, in float64. Then the upper half of the lanes is
added to the lower half until one is left. The sums of the chunks of a tensor are added up likewise, and those of
tensors. Nothing in this order depends on how many threads there are, or on what a processor can do at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._storage.codecs import DOUBLE, ELEMENTS, FLOAT, INT32
from .._storage.layout import CODECS
from .._storage.random_bits import INT64
from .targets import Target, room

#: Running sums of a chunk: as many as a block of a GPU has threads.
LANES = 256
#: The most elements of a chunk.
CHUNK = 1 << 12
#: The codec of results: what is summed is then no square.
RESULTS = "results"

_PLACES: dict[str, str | None] = {"address": "uint64", "largest": "uint64", "i": "int64"}


class Elements:
    """What loops do with the elements of an array in a codec, or with results of an earlier reduction.

    Attributes
    ----------
    itemsize : int
        Bytes of an element.
    term : callable
        ``term(address, i)``: what element `i` adds to the sum, as a float64.
    larger : callable
        ``larger(address, largest, i, bits)``: the larger of `bits` and those of the absolute value of element `i`, of
        which NaN has the largest. The results of an earlier reduction have them at `largest`.
    no_bits : numpy.unsignedinteger
        Those of 0.
    read, write : callable
        ``read(address, i)`` and ``write(address, i, value)``: a float64.
    write_bits : callable
        ``write_bits(address, i, bits)``: `bits` as those of a float64.
    lanes : callable
        ``lanes()``: the address of LANES float64 in the caller's frame.
    """

    def __init__(self, target: Target, codec: str) -> None:
        self._target = target
        name = "float64" if codec == RESULTS else codec
        (dtype,), self._codec = CODECS[name].fields, CODECS[name]
        self._element, self.itemsize, self._results = ELEMENTS[dtype.name], dtype.itemsize, codec == RESULTS
        self._wide = DOUBLE if name == "float64" else FLOAT
        self._integer = INT64 if self._wide == DOUBLE else INT32
        bits = f"uint{self._integer.width}"
        self.no_bits = np.dtype(bits).type(0)

        def made(body: Any, operands: dict[str, str | None], result: str | None) -> Any:
            return target.function(body, f"{target.name} {codec} {body.__name__}", operands, result)

        self.term = made(self._term, {"address": "uint64", "i": "int64"}, "float64")
        self.larger = made(self._larger, _PLACES | {"bits": bits}, bits)
        self.read = made(self._read, {"address": "uint64", "i": "int64"}, "float64")
        self.write = made(self._write, {"address": "uint64", "i": "int64", "value": "float64"}, None)
        self.write_bits = made(self._write_bits, {"address": "uint64", "i": "int64", "bits": bits}, None)
        self.lanes = made(self._lanes, {}, "uint64")

    def _number(self, b: Any, address: Any, i: Any, wide: Any) -> Any:
        return self._codec.read(b, self._target.read(b, address, self._element, i, 1, (0, 2)), wide)

    def _term(self, b: Any, address: Any, i: Any) -> Any:
        number = self._number(b, address, i, DOUBLE)
        return number if self._results else b.fmul(number, number)

    def _larger(self, b: Any, address: Any, largest: Any, i: Any, bits: Any) -> Any:
        if self._results:
            (own,) = self._target.read(b, largest, INT64, i, 1, (0, 2))
        else:
            magnitude = self._integer((1 << (self._integer.width - 1)) - 1)
            own = b.and_(b.bitcast(self._number(b, address, i, self._wide), self._integer), magnitude)
        return b.select(b.icmp_unsigned(">", own, bits), own, bits)

    def _read(self, b: Any, address: Any, i: Any) -> Any:
        return self._target.read(b, address, DOUBLE, i, 1, (1, 2))[0]

    def _write(self, b: Any, address: Any, i: Any, value: Any) -> None:
        self._target.write(b, [value], address, i, (1, 2))

    def _write_bits(self, b: Any, address: Any, i: Any, bits: Any) -> None:
        if self._wide != DOUBLE:
            bits = b.bitcast(b.fpext(b.bitcast(bits, FLOAT), DOUBLE), INT64)
        self._target.write(b, [bits], address, i)

    @staticmethod
    def _lanes(b: Any) -> Any:
        return room(b, DOUBLE, LANES)
