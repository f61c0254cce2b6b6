"""The reductions on a GPU: those of arrays, and norms of what a rule computes.

Loaded only when a kernel for a GPU is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import cuda, float64, uint64

from .._storage.int8 import BLOCK
from . import access
from .norms import Measured
from .reduce import LANES, RESULTS, Elements
from .targets import Target


def _fold(target: Target, count: int) -> Any:
    """Return the function that adds up so many times LANES numbers of shared memory, all threads of a block together.

    The sums come in the place of the first ones.
    """

    def fold(lanes):
        cuda.syncthreads()
        width = LANES // 2
        while width > 0:
            j = cuda.threadIdx.x
            while j < width:
                for k in range(count):
                    lanes[k * LANES + j] = lanes[k * LANES + j] + lanes[k * LANES + j + width]
                j += cuda.blockDim.x
            cuda.syncthreads()
            width //= 2

    return target.rule(fold)


def make_norms(norms: Callable[..., Any], memory: Measured, count: int) -> Callable[..., None]:
    """Return the kernel ``norms(table, tensors, chunks, number, groups, values, squares)``, all addresses but numbers.

    `norms` returns `count` numbers of an element. At ``squares[k, c]`` comes the sum of the squares of number `k` over
    chunk `c`, of `number`; the other arguments are those of :func:`make_sweep`.
    """
    target = memory.target
    norms, own = target.rule(norms), Elements(target, RESULTS)
    column, chunk, advance, integer = memory.column, memory.chunk, memory.advance, memory.integer
    load, load_scalars, scales_of = memory.load, memory.load_scalars, memory.scales
    add_squares, no_totals, write, room = memory.add_squares, memory.no_totals, own.write, count * LANES
    fold = _fold(target, count)

    def sweep(table, tensors, chunks, number, groups, values, squares):
        lanes = cuda.shared.array(room, float64)
        c = cuda.blockIdx.x
        while c < number:
            tensor, start, length = chunk(chunks, c)
            s = load_scalars(values, integer(groups, tensor))
            addresses = advance(column(table, tensors, tensor), start)
            cuda.syncthreads()  # all have read what the chunk before left
            j = cuda.threadIdx.x
            while j < LANES:
                totals = no_totals
                i = j
                while i < length:
                    begin = i - i % BLOCK
                    here = advance(addresses, begin)
                    totals = add_squares(totals, norms(s, *load(here, i - begin, scales_of(here))[0]))
                    i += LANES
                for k in range(count):
                    lanes[k * LANES + j] = totals[k]
                j += cuda.blockDim.x
            fold(lanes)
            if cuda.threadIdx.x == 0:
                for k in range(count):
                    write(squares, k * number + c, lanes[k * LANES])
            c += cuda.gridDim.x

    return sweep


def make_rows(memory: Measured, scalars: int, norms: int) -> Callable[..., None]:
    """Return the kernel ``rows(values, groups, squares, count, out)``, all addresses but `count`.

    Row `t` of `out` gets the scalars of tensor `t` of `count`: those in row ``groups[t]`` of `values`, and its norms,
    the roots of ``squares[k, t]``.
    """
    own = Elements(memory.target, RESULTS)
    integer, scalar, store_scalar, read = memory.integer, memory.scalar, memory.store_scalar, own.read
    columns = scalars + norms

    def rows(values, groups, squares, count, out):
        t = cuda.blockIdx.x
        while t < count:
            group = integer(groups, t)
            k = cuda.threadIdx.x
            while k < columns:
                if k < scalars:
                    number = scalar(values, group * scalars + k)
                else:
                    number = math.sqrt(read(squares, (k - scalars) * count + t))
                store_scalar(out, t * columns + k, number)
                k += cuda.blockDim.x
            t += cuda.gridDim.x

    return rows


def make_device_sums(target: Target, codec: str) -> Callable[..., None]:
    """Return ``sums(table, chunks, count, squares, largest)``, all addresses but `count`: as on the CPU."""
    own = Elements(target, codec)
    term, larger, write, write_bits = own.term, own.larger, own.write, own.write_bits
    itemsize, no_bits, results, fold = own.itemsize, own.no_bits, codec == RESULTS, _fold(target, 1)

    memory = access.of(target, "float64 float64")
    chunk, integer = memory.chunk, memory.integer

    def sums(table, chunks, count, squares, largest):
        lanes = cuda.shared.array(LANES, float64)
        most = cuda.shared.array(1, uint64)  # the simulator knows them apart by their lines
        c = cuda.blockIdx.x
        while c < count:
            tensor, start, length = chunk(chunks, c)
            address = integer(table, tensor) + start * itemsize
            biggest = integer(table, 1) + start * itemsize if results else address
            cuda.syncthreads()  # all have read what the chunk before left
            if cuda.threadIdx.x == 0:
                most[0] = 0
            bits = no_bits
            j = cuda.threadIdx.x
            while j < LANES:
                total = 0.0
                i = j
                while i < length:
                    total = total + term(address, i)
                    bits = larger(address, biggest, i, bits)
                    i += LANES
                lanes[j] = total
                j += cuda.blockDim.x
            cuda.syncthreads()
            cuda.atomic.max(most, 0, uint64(bits))
            fold(lanes)
            if cuda.threadIdx.x == 0:
                write(squares, c, lanes[0])
                write_bits(largest, c, type(no_bits)(most[0]))
            c += cuda.gridDim.x

    return sums


def make_limit(target: Target) -> Callable[..., None]:
    """Return the kernel ``limit(squares, largest, settings, chunks, record)`` of one thread.

    All but `chunks` are addresses. The first two are what all gradients were reduced to. `settings` has, as
    float64, what gradients are multiplied by, the bound of their norm, the largest number of the arithmetic, and
    whether a step with what is not finite is skipped. At `record` come the norm and the factor as float64, and as
    integers how many chunks are updated, how many steps were skipped until now, and whether this one is taken.
    """
    own = Elements(target, "float64")
    read, write, write_bits = own.read, own.write, own.write_bits
    integer, infinite = access.of(target, "float64 float64").integer, math.inf

    def limit(squares, largest, settings, chunks, record):
        scale, bound = read(settings, 0), read(settings, 1)
        root = math.sqrt(read(squares, 0))
        norm = root * scale
        finite = root < infinite and read(largest, 0) * scale <= read(settings, 2)
        taken = finite or read(settings, 3) == 0.0
        clipped = bound < infinite and not norm <= bound
        write(record, 0, norm)
        write(record, 1, scale * (bound / norm) if clipped else scale)
        write_bits(record, 2, uint64(chunks if taken else 0))
        write_bits(record, 3, uint64(integer(record, 3) + (0 if taken else 1)))
        write_bits(record, 4, uint64(1 if taken else 0))

    return limit


def make_factor(memory: Measured, scalars: int) -> Callable[..., None]:
    """Return the kernel ``factor(values, groups, record)``: the first scalar of so many groups is the factor there."""
    read, store_scalar = Elements(memory.target, RESULTS).read, memory.store_scalar

    def factor(values, groups, record):
        group = cuda.blockIdx.x
        while group < groups:
            if cuda.threadIdx.x == 0:
                store_scalar(values, group * scalars, read(record, 1))
            group += cuda.gridDim.x

    return factor
