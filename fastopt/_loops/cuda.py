"""The CUDA sweep: one launch for all tensors of a device.

Loaded only when a kernel for a GPU is compiled. `memory` is :class:`fastopt._cuda.storage.Storage`, or its counterpart
for the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda


def _for_one(rule):
    return lambda s, rows: (rule(s, *rows[0]),)


def _for_two(rule):
    return lambda s, rows: (rule(s, *rows[0]), rule(s, *rows[1]))


def _for_four(rule):
    return lambda s, rows: (rule(s, *rows[0]), rule(s, *rows[1]), rule(s, *rows[2]), rule(s, *rows[3]))


_UNROLLED = {1: _for_one, 2: _for_two, 4: _for_four}


def make_sweep(rule: Callable[..., Any], memory: Any, lanes: int, on_device: bool) -> Callable[..., None]:
    """Return the kernel ``sweep(table, tensors, chunks, count, values)``.

    ``table[k, t]`` is the address of array `k` of tensor `t` (the gradient, the parameter, the states), of `tensors`;
    ``chunks[c]`` is (tensor, start, length), of `count`. Blocks take turns at chunks, the threads of a block at `lanes`
    elements, then at what is left over. `values` are the scalars of the step, or, `on_device`, where they are.
    """
    rule = memory.rule(rule)
    one, packed = memory.rule(_for_one(rule)), memory.rule(_UNROLLED[lanes](rule))
    column, chunk, advance, aligned, fetch = memory.column, memory.chunk, memory.advance, memory.aligned, memory.fetch
    load_one, load_packed = memory.load_one, memory.load_packed
    store_one, store_packed = memory.store_one, memory.store_packed

    def sweep(table, tensors, chunks, count, values):
        s = fetch(values) if on_device else values
        c = cuda.blockIdx.x
        while c < count:
            tensor, start, length = chunk(chunks, c)
            addresses = advance(column(table, tensors, tensor), start)
            whole = length - length % lanes if aligned(addresses) else 0
            i = cuda.threadIdx.x * lanes
            while i < whole:
                store_packed(addresses, i, packed(s, load_packed(addresses, i)))
                i += cuda.blockDim.x * lanes
            i = whole + cuda.threadIdx.x
            while i < length:
                store_one(addresses, i, one(s, load_one(addresses, i)))
                i += cuda.blockDim.x
            c += cuda.gridDim.x

    return sweep


def make_advance(values: Callable[..., Any], memory: Any) -> Callable[..., None]:
    """Return the kernel ``advance(clock, out)``: count the step on the device and work out its scalars there."""
    tick, put = memory.tick, memory.put

    def advance(clock, out):
        step, lr = tick(clock)
        put(out, values(step, lr))

    return advance
