"""The CPU sweeps.

Every function here is a factory: the function that it returns closes over the rule, and has a name that says what is in
it (:mod:`fastopt._kernels.symbols`), by which it is found on disk; so an edited rule is compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import prange

from .._arrays.headers import data_address, element_count, same_layout, writable
from .._storage.int8 import BLOCK
from .._storage.layout import layout as layout_of
from . import access, ahead
from .array_tuples import addresses as addresses_of
from .parts import named_part
from .targets import CPU

# What `direct` answers.
DONE, LARGE, UNSURE = 0, 1, 2


def make_run(rule: Callable[..., Any], codecs: str) -> Callable[..., None]:
    """Return ``run(addresses, n, s, key, first)``: `n` elements of the arrays at `addresses`.

    The first of them is number `first` of its tensor; `key` and that number choose how formats that are rounded at
    random are rounded.

    LLVM makes of the loop over elements a packed loop and a scalar remainder. Both do the same arithmetic, so where a
    tensor is cut into chunks cannot be seen in the result.
    """
    rule = CPU.rule(rule)
    layout = layout_of(codecs)
    memory, marked = access.of(CPU, codecs, nonfinite=False), access.of(CPU, codecs)
    advance, bits_at, next_bits = memory.advance, memory.bits_at, memory.next_bits
    store, absmaxes_of, no_absmaxes = memory.store_kept, memory.absmaxes, memory.no_absmaxes
    look, span = ahead.looking(codecs), ahead.span(codecs)

    def make_elements(load):
        def elements(addresses, scratch, n, s, rand, scales):
            absmaxes = no_absmaxes
            for start in range(0, n, span):
                look(addresses, start)
                for i in range(start, min(start + span, n)):
                    new = (rule(s, *load(addresses, i, scales)[0]),)
                    store(addresses, scratch, i, new, rand, scales)
                    absmaxes = absmaxes_of(absmaxes, new)
                    rand = next_bits(rand)
            return absmaxes

        return named_part(elements)

    elements = make_elements(memory.load)

    def run(addresses, n, s, key, first):
        elements(addresses, (), n, s, bits_at(key, first), ())

    if layout.narrow:
        # The upper half of 32 bits is a bfloat16 as it stands, the lower half after one shift: so two registers of
        # numbers come from one of pairs. Widening 16 bits to 32, and back, goes through the same two ports of the
        # processor as shifts, quotients and roots; in pairs, Adam with all in bfloat16 takes 0.41 ns an element
        # instead of 0.52.
        two = access.of(CPU, codecs, lanes=2, nonfinite=False)
        load_two, store_two = two.load, two.store

        @named_part
        def pairs(addresses, n, s, rand):
            for start in range(0, n, span // 2):
                look(addresses, 2 * start)
                for k in range(start, min(start + span // 2, n)):
                    first, second = load_two(addresses, 2 * k, ())
                    store_two(addresses, 2 * k, (rule(s, *first), rule(s, *second)), rand, ())
                    rand = next_bits(next_bits(rand))

        def run_pairs(addresses, n, s, key, first):
            even = n - n % 2
            pairs(addresses, even // 2, s, bits_at(key, first))
            elements(advance(addresses, even), (), n % 2, s, bits_at(key, first + even), ())

        return run_pairs
    if not layout.scales:
        return run

    nonfinite_elements = make_elements(marked.load)
    scratch_of, kept, requantize = memory.scratch, memory.kept, marked.requantize
    scales_of, store_scales, rescale = memory.scales, memory.store_scales, memory.rescale
    needs_rescale, has_nonfinite = memory.needs_rescale, memory.has_nonfinite
    finite_absmaxes, no_finite_absmaxes = memory.finite_absmaxes, memory.no_finite_absmaxes

    @named_part
    def requantize_block(addresses, scratch, n, rand, scales):
        absmaxes = no_finite_absmaxes
        for i in range(n):
            absmaxes = finite_absmaxes(absmaxes, kept(scratch, i))
        scales = rescale(scales, absmaxes)
        store_scales(addresses, scales)
        for i in range(n):
            requantize(addresses, i, kept(scratch, i), rand, scales)
            rand = next_bits(rand)

    def run_blocks(addresses, n, s, key, first):
        scratch = scratch_of()
        for start in range(0, n, BLOCK):
            here, count = advance(addresses, start), min(BLOCK, n - start)
            rand, scales = bits_at(key, first + start), scales_of(here)
            if has_nonfinite(scales):
                absmaxes = nonfinite_elements(here, scratch, count, s, rand, scales)
            else:
                absmaxes = elements(here, scratch, count, s, rand, scales)
            if needs_rescale(scales, absmaxes):
                requantize_block(here, scratch, count, rand, scales)

    return run_blocks


def make_sweep(run: Callable[..., None], codecs: str, scalars: int) -> Callable[..., None]:
    """Return the sweep over all tensors of one layout; compiled serial and parallel.

    ``table[k, t]`` is the address of array `k` of tensor `t` (the gradient, the parameter, the
    states). ``chunks[c]`` is (tensor, start, length). A thread takes whole items: item `w` is the
    run of chunks from ``items[w]`` to ``items[w + 1]``, made to be of about equal work. ``values[groups[t]]`` are the
    scalars of tensor `t`.
    `seed` and `step`, the number of the step, are what stochastic rounding depends on. No chunk has
    elements on both sides of a multiple of 2^32, and each begins a block.
    """
    memory = access.of(CPU, codecs, scalars=scalars)
    column, chunk, advance = memory.column, memory.chunk, memory.advance
    key, load_scalars = memory.key, memory.load_scalars

    def sweep(table, items, chunks, groups, values, seed, step):
        table_at, chunks_at, values_at = addresses_of((table, chunks, values))
        for w in prange(items.shape[0] - 1):
            for c in range(items[w], items[w + 1]):
                tensor, start, length = chunk(chunks_at, c)
                s = load_scalars(values_at, groups[tensor])
                addresses = advance(column(table_at, table.shape[1], tensor), start)
                run(addresses, length, s, key(seed, step, tensor, start), start)

    return sweep


def make_direct(run: Callable[..., None], codecs: str, scalars: int) -> Callable[..., int]:
    """Return the check and the update of one small tensor in a single call.

    `ids` holds the identities of the gradient, the parameter and the states, `kinds` NumPy's numbers of their dtypes
    and the sizes of their elements. Nothing is written unless all of them are arrays of one shape and memory order, of
    these dtypes, that do not overlap; where their headers alone do not show that, the answer is ``UNSURE`` and the
    caller checks them in Python.
    """
    arrays = len(layout_of(codecs).dtypes)
    memory = access.of(CPU, codecs, scalars=scalars)
    column, key, load_scalars = memory.column, memory.key, memory.load_scalars

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
        table_at, values_at = addresses_of((table, values))
        run(column(table_at, table.shape[1], 0), n, load_scalars(values_at, 0), key(seed, step, 0, 0), 0)
        return DONE

    return direct
