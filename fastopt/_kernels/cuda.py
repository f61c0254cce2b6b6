"""The CUDA sweep: one launch for all tensors of a device.

Loaded only when a kernel for a GPU is compiled. `memory` is :class:`fastopt._kernels.cuda_access.Storage`, or its
counterpart for the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda, int32

from .._storage.int8 import BLOCK


def _for_one(rule):
    return lambda s, rows: (rule(s, *rows[0]),)


def _for_two(rule):
    return lambda s, rows: (rule(s, *rows[0]), rule(s, *rows[1]))


def _for_four(rule):
    return lambda s, rows: (rule(s, *rows[0]), rule(s, *rows[1]), rule(s, *rows[2]), rule(s, *rows[3]))


_UNROLLED = {1: _for_one, 2: _for_two, 4: _for_four}


def _together(memory, count):
    """Return the function that makes a tuple of `count` entries of shared memory."""
    last = count - 1
    if last == 0:
        return memory.rule(lambda shared: (shared[0],))
    others = _together(memory, last)
    return memory.rule(lambda shared: (*others(shared), shared[last]))


def make_sweep(rule: Callable[..., Any], memory: Any, lanes: int, scales: int, on_device: bool) -> Callable[..., None]:
    """Return the kernel ``sweep(table, tensors, chunks, count, values, seed, step)``.

    ``table[k, t]`` is the address of array `k` of tensor `t` (the gradient, the parameter, the states), of `tensors`;
    ``chunks[c]`` is (tensor, start, length), of `count`. Blocks take turns at chunks. `values` are the scalars of the
    step and `step` its number, or, `on_device`, where they are. With `scales` scales for each block of numbers, a
    block of threads takes a block of numbers at a time, `lanes` a thread; otherwise as many as it has threads, then
    what is left.
    """
    rule = memory.rule(rule)
    one, packed = memory.rule(_for_one(rule)), memory.rule(_UNROLLED[lanes](rule))
    column, chunk, advance, aligned, load_scalars = (
        memory.column,
        memory.chunk,
        memory.advance,
        memory.aligned,
        memory.load_scalars,
    )
    load_one, load_packed, load_some = memory.load_one, memory.load_packed, memory.load_some
    store_one, store_packed, store_some = memory.store_one, memory.store_packed, memory.store_some
    key, bits_at, read_step = memory.key, memory.bits_at, memory.read_step
    room = 2 * scales
    read_scales, store_scales, rescale, absmaxes_of = (
        memory.scales,
        memory.store_scales,
        memory.rescale,
        memory.absmaxes,
    )

    def sweep(table, tensors, chunks, count, values, seed, step):
        s = load_scalars(values) if on_device else values
        number = read_step(step) if on_device else step
        c = cuda.blockIdx.x
        while c < count:
            tensor, start, length = chunk(chunks, c)
            addresses = advance(column(table, tensors, tensor), start)
            first = bits_at(key(seed, number, tensor, start), start)
            whole = length - length % lanes if aligned(addresses) else 0
            i = cuda.threadIdx.x * lanes
            while i < whole:
                store_packed(addresses, i, packed(s, load_packed(addresses, i, ())), bits_at(first, i), ())
                i += cuda.blockDim.x * lanes
            i = whole + cuda.threadIdx.x
            while i < length:
                store_one(addresses, i, one(s, load_one(addresses, i, ())), bits_at(first, i), ())
                i += cuda.blockDim.x
            c += cuda.gridDim.x

    def sweep_blocks(table, tensors, chunks, count, values, seed, step):
        s = load_scalars(values) if on_device else values
        number = read_step(step) if on_device else step
        shared = cuda.shared.array(room, int32)
        i = cuda.threadIdx.x * lanes
        c = cuda.blockIdx.x
        while c < count:
            tensor, start, length = chunk(chunks, c)
            begin = 0
            while begin < length:
                addresses = advance(column(table, tensors, tensor), start + begin)
                n = min(BLOCK, length - begin)
                rand = bits_at(key(seed, number, tensor, start), start + begin + i)
                before = read_scales(addresses)
                whole = aligned(addresses) and i + lanes <= n
                cuda.syncthreads()  # all have read what the block before left in `shared`
                if cuda.threadIdx.x < room:
                    shared[cuda.threadIdx.x] = 0
                cuda.syncthreads()
                if i < n:
                    rows = load_packed(addresses, i, before) if whole else load_some(addresses, i, n, before)
                    new = packed(s, rows)
                    absmaxes = absmaxes_of(new)
                    for k in range(room):
                        cuda.atomic.max(shared, k, absmaxes[k])
                cuda.syncthreads()
                if i < n:
                    after = rescale(before, together(shared))
                    if whole:
                        store_packed(addresses, i, new, rand, after)
                    else:
                        store_some(addresses, i, n, new, rand, after)
                    if i == 0:
                        store_scales(addresses, after)
                begin += BLOCK
            c += cuda.gridDim.x

    if not scales:
        return sweep
    together = _together(memory, room)
    return sweep_blocks


def make_counter(values: Callable[..., Any], memory: Any) -> Callable[..., None]:
    """Return the kernel ``advance(clock, out)``: count the step on the device and work out its scalars there."""
    count_step, store_scalars = memory.count_step, memory.store_scalars

    def advance(clock, out):
        step, lr = count_step(clock)
        store_scalars(out, values(step, lr))

    return advance
