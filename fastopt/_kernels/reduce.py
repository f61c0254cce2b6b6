"""Reductions: sums of squares and largest absolute values, with the same bits for any number of threads and on a GPU.

A chunk is summed in LANES running sums, of every LANES-th element each, in float64. Then the upper half of the lanes is
added to the lower half until one is left. The sums of the chunks of a tensor are added up likewise, and those of
tensors. Nothing in this order depends on how many threads there are, or on what a processor can do at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from .._storage.codecs import DOUBLE, ELEMENTS, FLOAT, INT32
from .._storage.layout import CODECS
from .._storage.random_bits import INT64
from .ahead import fetch
from .targets import Target, room
from .wide import wide

#: Running sums of a chunk: as many as a block of a GPU has threads.
LANES = 256
#: Columns that a CPU sums at a time: 8 registers of AVX-512.
WIDTH = 64
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
    columns : callable
        ``columns(address, rows, first, sums, bits)``: of so many rows of LANES elements, WIDTH columns from column
        `first` on are summed into `sums`; returns the larger of `bits` and theirs. For the CPU: the sums are in
        registers, where LLVM's own packed loop over a row has them in memory.
    fold : callable
        ``fold(sums)``: the sum of LANES numbers, for the CPU.
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
        operands: dict[str, str | None] = {
            "address": "uint64",
            "rows": "int64",
            "first": "int64",
            "sums": "uint64",
            "bits": bits,
        }
        self.columns = made(self._columns, operands, bits)
        self.fold = made(self._fold, {"sums": "uint64"}, "float64")

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

    def _columns(self, b: Any, address: Any, rows: Any, first: Any, sums: Any, bits: Any) -> Any:
        plain, packed = wide(b, WIDTH)
        (element,) = (ELEMENTS[dtype.name] for dtype in self._codec.fields)
        own, doubles, integers = (ir.VectorType(t, WIDTH) for t in (element, DOUBLE, self._integer))
        total, most = cgutils.alloca_once(plain, doubles), cgutils.alloca_once(plain, integers)
        plain.store(ir.Constant(doubles, None), total)
        plain.store(ir.Constant(integers, None), most)
        # The next chunk is asked for from its first element to its last, whatever is read of this one.
        after = plain.mul(rows, plain.add(INT64(LANES), first))
        with cgutils.for_range(plain, rows) as loop:
            place = plain.add(plain.mul(loop.index, INT64(LANES)), first)
            pointer = plain.bitcast(plain.gep(plain.inttoptr(address, element.as_pointer()), [place]), own.as_pointer())
            stored = [plain.load(pointer, align=self.itemsize)]
            self._prefetch(plain, address, plain.add(after, plain.mul(loop.index, INT64(WIDTH))))
            number = packed.fpext(self._codec.read(packed, stored, DOUBLE), DOUBLE)
            plain.store(packed.fadd(plain.load(total), packed.fmul(number, number)), total)
            magnitude = self._integer((1 << (self._integer.width - 1)) - 1)
            narrow = self._codec.read(packed, stored, self._wide)
            size, before = packed.and_(packed.bitcast(narrow, self._integer), magnitude), plain.load(most)
            plain.store(packed.select(packed.icmp_unsigned(">", size, before), size, before), most)
        to = plain.gep(plain.inttoptr(sums, DOUBLE.as_pointer()), [first])
        plain.store(plain.load(total), plain.bitcast(to, doubles.as_pointer()), align=8)
        name = f"llvm.vector.reduce.umax.v{WIDTH}i{self._integer.width}"
        reduce = cgutils.get_or_insert_function(plain.module, ir.FunctionType(self._integer, [integers]), name)
        found = plain.call(reduce, [plain.load(most)])
        return plain.select(plain.icmp_unsigned(">", found, bits), found, bits)

    def _prefetch(self, b: Any, address: Any, place: Any) -> None:
        """Have WIDTH elements from element `place` on brought to the second cache; there may be none.

        A chunk is not read in the order in which it lies in memory, so that processors do not foresee what comes. Of
        2^25 float32, one thread of an Intel Xeon takes 0.25 ns an element with this and 0.44 without; 0.33 if they are
        brought to the first cache.
        """
        fetch(b, b.add(address, b.mul(place, INT64(self.itemsize))), WIDTH * self.itemsize, 2)

    @staticmethod
    def _fold(b: Any, sums: Any) -> Any:
        total = b.load(b.inttoptr(sums, ir.VectorType(DOUBLE, LANES).as_pointer()), align=8)
        width = LANES
        while width > 1:
            width //= 2
            halves = (range(width), range(width, 2 * width))
            masks = (ir.Constant(ir.VectorType(INT32, width), list(places)) for places in halves)
            none = ir.Constant(total.type, ir.Undefined)
            total = b.fadd(*(b.shuffle_vector(total, none, mask) for mask in masks))
        return b.extract_element(total, INT32(0))

    @staticmethod
    def _lanes(b: Any) -> Any:
        return room(b, DOUBLE, LANES)
