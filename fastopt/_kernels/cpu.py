"""The CPU sweeps.

Every function here is a factory: the function that it returns closes over the rule, and has a name that says what is in
it (:mod:`fastopt._kernels.symbols`), by which it is found on disk; so an edited rule is compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import prange
from numba.extending import register_jitable

from .._arrays.headers import data_address, element_count, same_layout, writable
from .._storage.int8 import BLOCK
from .._storage.layout import layout as layout_of
from . import access as memory
from . import blocks
from . import pairs as two
from .symbols import named_by_contents

# What `direct` answers.
DONE, LARGE, UNSURE = 0, 1, 2


def inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function callable from compiled code, by a name that says what is in it."""
    return register_jitable(named_by_contents(function))  # type: ignore[no-any-return]


def make_run(rule: Callable[..., Any], layout: str) -> Callable[..., None]:
    """Return ``run(addresses, n, s, key, first)``: `n` elements of the arrays at `addresses`.

    The first of them is number `first` of its tensor; `key` and that number choose how formats that are rounded at
    random are rounded.

    LLVM makes of the loop over elements a packed loop and a scalar remainder. Both do the same arithmetic, so where a
    tensor is cut into chunks cannot be seen in the result.
    """
    rule = register_jitable(rule)

    def make_elements(nonfinite):
        def elements(addresses, n, s, rand, scales):
            absmaxes = blocks.no_absmax(layout)
            for i in range(n):
                values = rule(s, *memory.load(addresses, i, layout, scales, nonfinite))
                memory.store(addresses, i, values, layout, rand, scales)
                absmaxes = blocks.absmaxes(absmaxes, values, layout)
                rand = memory.next_bits(rand)
            return absmaxes

        return inside(elements)

    elements, nonfinite_elements = make_elements(False), make_elements(True)

    def run(addresses, n, s, key, first):
        elements(addresses, n, s, memory.bits_at(key, first), ())

    @inside
    def pairs(addresses, n, s, rand):
        for i in range(n):
            first, second = two.load_pair(addresses, i, layout)
            two.store_pair(addresses, i, (rule(s, *first), rule(s, *second)), layout, rand)
            rand = memory.next_bits(memory.next_bits(rand))

    def run_pairs(addresses, n, s, key, first):
        even = n - n % 2
        pairs(addresses, even // 2, s, memory.bits_at(key, first))
        elements(memory.advance(addresses, even, layout), n % 2, s, memory.bits_at(key, first + even), ())

    @inside
    def requantize_block(addresses, n, rand, scales):
        absmaxes = blocks.no_finite_absmax(layout)
        for i in range(n):
            absmaxes = blocks.finite_absmaxes(addresses, i, absmaxes, layout)
        scales = blocks.rescale(addresses, scales, absmaxes, layout)
        for i in range(n):
            blocks.requantize(addresses, i, layout, rand, scales)
            rand = memory.next_bits(rand)

    def run_blocks(addresses, n, s, key, first):
        addresses = blocks.with_scratch(addresses, layout)
        for start in range(0, n, BLOCK):
            here, count = memory.advance(addresses, start, layout), min(BLOCK, n - start)
            rand, scales = memory.bits_at(key, first + start), blocks.scales(here, layout)
            if blocks.has_nonfinite(scales, layout):
                absmaxes = nonfinite_elements(here, count, s, rand, scales)
            else:
                absmaxes = elements(here, count, s, rand, scales)
            if blocks.needs_rescale(scales, absmaxes, layout):
                requantize_block(here, count, rand, scales)

    if layout_of(layout).scales:
        return run_blocks
    return run_pairs if layout_of(layout).narrow else run


def make_sweep(run: Callable[..., None], layout: str, scalars: tuple[Any, ...]) -> Callable[..., None]:
    """Return the sweep over all tensors of one layout; compiled serial and parallel.

    ``table[k, t]`` is the address of array `k` of tensor `t` (the gradient, the parameter, the
    states). ``chunks[c]`` is (tensor, start, length). A thread takes whole items: item `w` is the
    run of chunks from ``items[w]`` to ``items[w + 1]``, made to be of about equal work.
    `seed` and `step`, the number of the step, are what stochastic rounding depends on. No chunk has
    elements on both sides of a multiple of 2^32, and each begins a block.
    """

    def sweep(table, items, chunks, values, seed, step):
        for w in prange(items.shape[0] - 1):
            s = memory.unpack(values, scalars)
            for c in range(items[w], items[w + 1]):
                tensor, start, length = chunks[c, 0], chunks[c, 1], chunks[c, 2]
                addresses = memory.advance(memory.column(table, tensor, layout), start, layout)
                run(addresses, length, s, memory.key(seed, step, tensor, start), start)

    return sweep


def make_direct(run: Callable[..., None], layout: str, scalars: tuple[Any, ...]) -> Callable[..., int]:
    """Return the check and the update of one small tensor in a single call.

    `ids` holds the identities of the gradient, the parameter and the states, `kinds` NumPy's numbers of their dtypes
    and the sizes of their elements. Nothing is written unless all of them are arrays of one shape and memory order, of
    these dtypes, that do not overlap; where their headers alone do not show that, the answer is ``UNSURE`` and the
    caller checks them in Python.
    """
    arrays = len(layout_of(layout).dtypes)

    def direct(ids, kinds, table, values, limit, ndarray, seed, step):
        if not same_layout(ids[1], ids[1], ndarray, kinds[0, 1], kinds[1, 1], kinds[1, 1]):
            return UNSURE
        for k in range(arrays):
            if not same_layout(ids[k], ids[1], ndarray, kinds[0, k], kinds[1, k], kinds[1, 1]):
                return UNSURE
            if k != 0 and not writable(ids[k]):
                return UNSURE
        n = element_count(ids[1])
        for k in range(arrays):
            start = data_address(ids[k])
            table[k, 0] = start
            for j in range(k):
                other = data_address(ids[j])
                if start < other + n * kinds[1, j] and other < start + n * kinds[1, k]:
                    return UNSURE
        if n > limit:
            return LARGE
        key = memory.key(seed, step, 0, 0)
        run(memory.column(table, 0, layout), n, memory.unpack(values, scalars), key, 0)
        return DONE

    return direct
