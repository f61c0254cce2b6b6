"""The CPU sweeps.

Every function here is a factory: the function that it returns closes over the rule, and Numba's disk
cache hashes what a function closes over, so an edited rule is compiled anew. Intrinsics are reached
through their module, because a function that closes over one is never found in the cache: an intrinsic
is pickled with a random number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange
from numba.extending import register_jitable

from .. import _storage as memory
from .._headers import data_address, element_count, same_layout, writable

# What `direct` answers.
DONE, LARGE, UNSURE = 0, 1, 2


def make_run(rule: Callable[..., Any], layout: tuple[Any, ...]) -> Callable[..., None]:
    """Return the one loop over elements: `n` elements of the arrays at `addresses`.

    The first of them is number `first` of its tensor; `key` and that number choose how formats that are rounded at
    random are rounded.

    LLVM makes it a packed loop and a scalar remainder. Both do the same arithmetic, so where a
    tensor is cut into chunks cannot be seen in the result.
    """
    rule = register_jitable(rule)

    def run(addresses, n, s, key, first):
        noise = memory.noise(key, first)
        for i in range(n):
            memory.store(addresses, i, rule(s, *memory.load(addresses, i, layout)), layout, noise)
            noise = memory.following(noise)

    return run


def make_sweep(run: Callable[..., None], layout: tuple[Any, ...], scalars: tuple[Any, ...]) -> Callable[..., None]:
    """Return the sweep over all tensors of one dtype; compiled serial and parallel.

    ``table[k, t]`` is the address of array `k` of tensor `t` (the gradient, the parameter, the
    states). ``chunks[c]`` is (tensor, start, length). A thread takes whole items: item `w` is the
    run of chunks from ``items[w]`` to ``items[w + 1]``, made to be of about equal work.
    `step` is the number of the step. No chunk has elements on both sides of a multiple of 2^32.
    """

    def sweep(table, items, chunks, values, step):
        for w in prange(items.shape[0] - 1):
            s = memory.unpack(values, scalars)
            for c in range(items[w], items[w + 1]):
                tensor, start, length = chunks[c, 0], chunks[c, 1], chunks[c, 2]
                addresses = memory.advance(memory.column(table, tensor, layout), start, layout)
                run(addresses, length, s, memory.key(step, tensor, start), start)

    return sweep


def make_direct(run: Callable[..., None], layout: tuple[Any, ...], scalars: tuple[Any, ...]) -> Callable[..., int]:
    """Return the check and the update of one small tensor in a single call.

    `ids` holds the identities of the gradient, the parameter and the states. Nothing is written
    unless all of them are arrays of one dtype, shape and memory order that do not overlap; where
    that cannot be told at a glance the answer is ``UNSURE`` and the caller looks closer.
    """
    arrays = len(layout)
    itemsize = layout[0].itemsize

    def direct(ids, table, values, limit, ndarray, type_number):
        if not same_layout(ids[1], ids[1], ndarray, type_number):
            return UNSURE
        for k in range(arrays):
            if not same_layout(ids[k], ids[1], ndarray, type_number):
                return UNSURE
            if k != 0 and not writable(ids[k]):
                return UNSURE
        n = element_count(ids[1])
        for k in range(arrays):
            table[k, 0] = data_address(ids[k])
            for j in range(k):
                if abs(data_address(ids[k]) - data_address(ids[j])) < n * itemsize:
                    return UNSURE
        if n > limit:
            return LARGE
        run(memory.column(table, 0, layout), n, memory.unpack(values, scalars), np.uint32(0), 0)
        return DONE

    return direct
