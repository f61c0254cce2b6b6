"""The CUDA sweep: one launch for all tensors of a device.

Loaded only when a kernel for a GPU is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda, int32

from .._storage.int8 import BLOCK
from .access import Access


def _for_one(rule):
    return lambda s, rows: (rule(s, *rows[0]),)


def _for_two(rule):
    return lambda s, rows: (rule(s, *rows[0]), rule(s, *rows[1]))


def _for_four(rule):
    return lambda s, rows: (rule(s, *rows[0]), rule(s, *rows[1]), rule(s, *rows[2]), rule(s, *rows[3]))


_UNROLLED = {1: _for_one, 2: _for_two, 4: _for_four}


def _together(target, count):
    """Return the function that makes a tuple of `count` entries of shared memory."""
    last = count - 1
    if last == 0:
        return target.rule(lambda shared: (shared[0],))
    others = _together(target, last)
    return target.rule(lambda shared: (*others(shared), shared[last]))


def make_sweep(
    rule: Callable[..., Any], single: Access, packed: Access, in_memory: bool, counted: bool, limited: bool
) -> Callable[..., None]:
    """Return the kernel ``sweep(table, tensors, chunks, count, groups, values, seed, step)``.

    ``table[k, t]`` is the address of array `k` of tensor `t` (the gradient, the parameter, the states), of
    `tensors`; ``chunks[c]`` is (tensor, start, length), of `count`. Blocks take turns at chunks. `values` are the
    scalars of the step or, `in_memory`, where they are, with those of the group of tensor `t` in row ``groups[t]``;
    `step` is its number or, `counted`, where it is. `limited`, `count` is where that is: none, if the step is
    skipped. A thread takes as many elements at a time as `packed` does, or one, with `single`, where that cannot
    be. Where there are scales, a block of threads takes a block of numbers at a time.
    """
    target, lanes, room = packed.target, packed.lanes, len(packed.no_finite_absmaxes)
    rule = target.rule(rule)
    rule_of_one, rule_of_all = target.rule(_for_one(rule)), target.rule(_UNROLLED[lanes](rule))
    load_one, store_one = single.load, single.store
    load, store, load_some, store_some = packed.load, packed.store, packed.load_some, packed.store_some
    column, chunk, advance, aligned = packed.column, packed.chunk, packed.advance, packed.aligned
    key, bits_at, integer, load_scalars = packed.key, packed.bits_at, packed.integer, packed.load_scalars
    scales_of, store_scales, rescale = packed.scales, packed.store_scales, packed.rescale
    finite_absmaxes, no_absmaxes = packed.finite_absmaxes, packed.no_finite_absmaxes

    def sweep(table, tensors, chunks, count, groups, values, seed, step):
        number = integer(step, 0) if counted else step
        last = integer(count, 0) if limited else count
        c = cuda.blockIdx.x
        while c < last:
            tensor, start, length = chunk(chunks, c)
            s = load_scalars(values, integer(groups, tensor)) if in_memory else values
            addresses = advance(column(table, tensors, tensor), start)
            first = bits_at(key(seed, number, tensor, start), start)
            whole = length - length % lanes if aligned(addresses) else 0
            i = cuda.threadIdx.x * lanes
            while i < whole:
                store(addresses, i, rule_of_all(s, load(addresses, i, ())), bits_at(first, i), ())
                i += cuda.blockDim.x * lanes
            i = whole + cuda.threadIdx.x
            while i < length:
                store_one(addresses, i, rule_of_one(s, load_one(addresses, i, ())), bits_at(first, i), ())
                i += cuda.blockDim.x
            c += cuda.gridDim.x

    def sweep_blocks(table, tensors, chunks, count, groups, values, seed, step):
        number = integer(step, 0) if counted else step
        last = integer(count, 0) if limited else count
        shared = cuda.shared.array(room, int32)
        i = cuda.threadIdx.x * lanes
        c = cuda.blockIdx.x
        while c < last:
            tensor, start, length = chunk(chunks, c)
            s = load_scalars(values, integer(groups, tensor)) if in_memory else values
            begin = 0
            while begin < length:
                addresses = advance(column(table, tensors, tensor), start + begin)
                n = min(BLOCK, length - begin)
                rand = bits_at(key(seed, number, tensor, start), start + begin + i)
                before = scales_of(addresses)
                whole = aligned(addresses) and i + lanes <= n
                cuda.syncthreads()  # all have read what the block before left in `shared`
                if cuda.threadIdx.x < room:
                    shared[cuda.threadIdx.x] = 0
                cuda.syncthreads()
                if i < n:
                    rows = load(addresses, i, before) if whole else load_some(addresses, i, n, before)
                    new = rule_of_all(s, rows)
                    absmaxes = finite_absmaxes(no_absmaxes, new)
                    for k in range(room):
                        cuda.atomic.max(shared, k, absmaxes[k])
                cuda.syncthreads()
                if i < n:
                    after = rescale(before, together(shared))
                    if whole:
                        store(addresses, i, new, rand, after)
                    else:
                        store_some(addresses, i, n, new, rand, after)
                    if i == 0:
                        store_scales(addresses, after)
                begin += BLOCK
            c += cuda.gridDim.x

    if not room:
        return sweep
    together = _together(target, room)
    return sweep_blocks


def make_counter(values: Callable[..., Any], memory: Access, limited: bool) -> Callable[..., None]:
    """Return the kernel ``advance(clock, out, taken)``: count the step on the device and work out its scalars there.

    `limited`, only if the integer at `taken` is not 0.
    """
    count_step, store_scalars, integer = memory.count_step, memory.store_scalars, memory.integer

    def advance(clock, out, taken):
        if not limited or integer(taken, 0) != 0:
            step, lr = count_step(clock)
            store_scalars(out, values(step, lr))

    return advance
