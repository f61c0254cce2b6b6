"""How tensors are cut into chunks: those of an update, and those of a reduction with their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array
from .._kernels import reduce

# A chunk is the most that is done between two looks at the chunk list, an item the least that a thread
# takes. 2^13 elements: from 2^12 to 2^18 the time of float32 Adam is the same within the noise, and
# small chunks spread mid-sized tensors over more threads.
CHUNK = 1 << 13
# What a chunk costs besides its elements, in elements: an empty chunk takes about 10 ns.
_CHUNK_COST = 64


def chunks_of(sizes: Sequence[int], longest: int = CHUNK) -> tuple[Array, Array]:
    """Return the items and the chunks for tensors of these sizes.

    No chunk has more than `longest` elements. The cut depends on the sizes alone, never on the number of threads.
    """
    pieces = []
    for tensor, size in enumerate(sizes):
        starts = np.arange(0, size, longest, dtype=np.int64)
        piece = np.empty((len(starts), 3), np.int64)
        piece[:, 0] = tensor
        piece[:, 1] = starts
        piece[:, 2] = np.minimum(size - starts, longest)
        pieces.append(piece)
    chunks = np.concatenate(pieces) if pieces else np.empty((0, 3), np.int64)
    cost = np.cumsum(chunks[:, 2] + _CHUNK_COST)
    goals = np.arange(CHUNK, cost[-1], CHUNK) if len(cost) else np.empty(0, np.int64)
    ends = np.concatenate([[0], np.searchsorted(cost, goals) + 1, [len(chunks)]]).astype(np.int64)
    return ends[np.diff(ends, prepend=-1) > 0], chunks  # np.unique would do, but loads numpy.ma: 20 ms, and a lock


def chunks_to_reduce(sizes: Sequence[int]) -> tuple[Array, Array]:
    """Return the chunks of tensors of these sizes, and those of their results: for each tensor those of its chunks."""
    _, chunks = chunks_of(sizes, reduce.CHUNK)
    bounds = np.searchsorted(chunks[:, 0], np.arange(len(sizes) + 1))
    return chunks, np.stack([np.zeros(len(sizes), np.int64), bounds[:-1], np.diff(bounds)], axis=1)


def row_addresses(found: Array) -> Array:
    """Return the addresses of the rows of an array of results."""
    return np.array([found.ctypes.data, found.ctypes.data + found.strides[0]], np.uint64)


def fold_arguments(found: Array, chunks: Array, results: Array) -> tuple[Any, ...]:
    """Return the arguments of the kernel that reduces results to others."""
    return row_addresses(found)[:, None], chunks, *row_addresses(results)


def chunks_there(chunks: Array) -> Any:
    """Return chunks on the current device, and one number more: of none at all nothing could be allocated."""
    return driver.copy_of(np.concatenate([chunks.reshape(-1), np.zeros(1, np.int64)]))
