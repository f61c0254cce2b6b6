"""The reductions on the CPU: those of arrays, and norms of what a rule computes. Factories, as in the CPU sweeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from .._storage.int8 import BLOCK
from .._storage.layout import layout as layout_of
from . import norms as norms_access
from .array_tuples import addresses as addresses_of
from .parts import named_part
from .reduce import CHUNK, LANES, RESULTS, WIDTH, Elements
from .targets import CPU


def make_norms(norms: Callable[..., Any], codecs: str, scalars: int, count: int) -> Callable[..., None]:
    """Return the sweep ``norms(table, chunks, groups, values, squares)``; compiled serial and parallel.

    `norms` returns `count` numbers of an element. At ``squares[k, c]`` comes the sum of the squares of number `k` over
    chunk `c`. The other arguments are those of :func:`make_sweep`; chunks are of a reduction.
    """
    memory = norms_access.of(CPU, codecs, scalars, count)
    column, chunk, advance, load_scalars = memory.column, memory.chunk, memory.advance, memory.load_scalars
    of_chunk = _norms_of_chunk(norms, codecs, count)

    def sweep(table, chunks, groups, values, squares):
        table_at, chunks_at, values_at = addresses_of((table, chunks, values))
        for c in prange(chunks.shape[0]):
            tensor, start, length = chunk(chunks_at, c)
            s = load_scalars(values_at, groups[tensor])
            addresses = advance(column(table_at, table.shape[1], tensor), start)
            of_chunk(addresses, length, s, squares, c, chunks.shape[0])

    return sweep


def _norms_of_chunk(norms: Callable[..., Any], codecs: str, count: int) -> Any:
    """Return ``of_chunk(addresses, n, s, out, c, stride)``: the sums of squares go to out[c], out[c + stride], ..."""
    norms = CPU.rule(norms)
    memory, results = norms_access.of(CPU, codecs, 0, count), Elements(CPU, RESULTS)
    advance, scales_of, load, add_to_sums = memory.advance, memory.scales, memory.load, memory.add_to_sums
    sums_of, clear, fold, write = memory.sums, memory.clear, results.fold, results.write
    scaled = bool(layout_of(codecs).scales)

    @named_part
    def elements(addresses, sums, n, s, scales):
        whole = n - n % LANES
        for row in range(0, whole, LANES):
            for j in range(LANES):
                add_to_sums(sums, j, norms(s, *load(addresses, row + j, scales)[0]))
        for j in range(n - whole):
            add_to_sums(sums, j, norms(s, *load(addresses, whole + j, scales)[0]))

    @named_part
    def of_chunk(addresses, n, s, out, c, stride):
        sums = sums_of()
        for j in range(count * LANES):
            clear(sums, j)
        if scaled:
            for start in range(0, n, BLOCK):
                here = advance(addresses, start)
                elements(here, sums, min(BLOCK, n - start), s, scales_of(here))
        else:
            elements(addresses, sums, n, s, ())
        for k in range(count):
            write(out, k * stride + c, fold(sums + np.uint64(8 * k * LANES)))

    return of_chunk


def make_measured(norms: Callable[..., Any], run: Callable[..., None], codecs: str, count: int) -> Callable[..., None]:
    """Return ``run(addresses, n, s, key, first)`` for a whole tensor, with its norms after the scalars `s`.

    Its sums are those of :func:`make_norms` and of :func:`make_sums` after it, in the same order.
    """
    memory, results = norms_access.of(CPU, codecs, 0, count), Elements(CPU, RESULTS)
    advance, sums_of, norms_at = memory.advance, memory.sums, memory.norms
    read, write, fold = results.read, results.write, results.fold
    of_chunk = _norms_of_chunk(norms, codecs, count)

    @named_part
    def norms_of(addresses, n, s):
        sums, found = sums_of(), sums_of()
        for j in range(count * LANES):
            write(sums, j, 0.0)  # as all that is read here: `clear` says that nothing else is the same memory
        for c in range(-(-n // CHUNK)):
            of_chunk(advance(addresses, c * CHUNK), min(CHUNK, n - c * CHUNK), s, found, 0, 1)
            for k in range(count):
                place = k * LANES + c % LANES
                write(sums, place, read(sums, place) + read(found, k))
        for k in range(count):
            write(found, k, math.sqrt(fold(sums + np.uint64(8 * k * LANES))))
        return norms_at(found)

    def run_measured(addresses, n, s, key, first):
        run(addresses, n, s + norms_of(addresses, n, s), key, first)

    return run_measured


def make_sums(codec: str) -> Callable[..., None]:
    """Return ``sums(table, chunks, squares, largest)`` for the CPU, serial or parallel.

    ``table[0, t]`` is the address of tensor `t`; of results, ``table[0, 0]`` that of the sums and ``table[1, 0]`` that
    of the largest. ``chunks[c]`` is (tensor, start, length). At ``squares[c]`` comes the sum of squares of a chunk, at
    ``largest[c]`` its largest absolute value.
    """
    own = Elements(CPU, codec)
    term, larger, read, write, write_bits, lanes = own.term, own.larger, own.read, own.write, own.write_bits, own.lanes
    itemsize, no_bits, results = own.itemsize, own.no_bits, codec == RESULTS
    columns, fold = own.columns, own.fold

    @named_part
    def whole_rows(address, biggest, n, sums):
        bits = no_bits
        for first in range(0, LANES, WIDTH):
            bits = columns(address, n, first, sums, bits)
        return bits

    @named_part
    def whole_rows_of_results(address, biggest, n, sums):
        bits = no_bits
        for j in range(LANES):
            write(sums, j, 0.0)
        for row in range(n):
            for j in range(LANES):
                write(sums, j, read(sums, j) + term(address, row * LANES + j))
                bits = larger(address, biggest, row * LANES + j, bits)
        return bits

    whole = whole_rows_of_results if results else whole_rows

    @named_part
    def chunk_of(address, biggest, n, squares, largest, c):
        if results and n == 1:  # small tensors have one chunk
            write_bits(largest, c, larger(address, biggest, 0, no_bits))
            write(squares, c, term(address, 0))
            return
        sums = lanes()
        bits = whole(address, biggest, n // LANES, sums)
        done = n - n % LANES
        for j in range(n % LANES):
            write(sums, j, read(sums, j) + term(address, done + j))
            bits = larger(address, biggest, done + j, bits)
        write_bits(largest, c, bits)
        write(squares, c, fold(sums))

    def sums(table, chunks, squares, largest):
        for c in prange(chunks.shape[0]):
            before = chunks[c, 1] * itemsize
            address = table[0, chunks[c, 0]] + np.uint64(before)
            biggest = table[table.shape[0] - 1, 0] + np.uint64(before) if results else address
            chunk_of(address, biggest, chunks[c, 2], squares, largest, c)

    return sums
