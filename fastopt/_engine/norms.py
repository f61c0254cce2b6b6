"""Norms over tensors, of which a rule takes some in the same step.

A pass of its own reads the arrays before the update does. The scalars of the update are then a row for each tensor:
those of its group of parameters, and its norms.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array
from .._kernels import compiler, device_reductions
from .._kernels.compiler import Spec
from .._kernels.reduce import RESULTS
from . import streams, threads
from .chunks import chunks_there, chunks_to_reduce, fold_arguments
from .results import Results


def results_of_norms(of_tensors: Array, norms: int, chunks: int) -> Array:
    """Return the chunks of the results of all norms, of those of one; there are so many `chunks` of the tensors."""
    starts = np.repeat(np.arange(norms, dtype=np.int64) * chunks, len(of_tensors))
    found: Array = np.tile(of_tensors, (norms, 1))
    found[:, 1] += starts
    return found


class HostNorms:
    """The norms of tensors in the host's memory.

    Parameters
    ----------
    spec : Spec
        With norms.
    sizes : sequence of int
        Those of the tensors.
    groups : ndarray of int64
        For each tensor, the row of its scalars.

    Attributes
    ----------
    tensors : ndarray of int64
        For each tensor, the row of what :meth:`run` returns.
    """

    def __init__(self, spec: Spec, sizes: Sequence[int], groups: Array) -> None:
        self._spec, self._groups, self.tensors = spec, groups, np.arange(len(sizes), dtype=np.int64)
        self._chunks, of_tensors = chunks_to_reduce(sizes)
        count, norms = len(self._chunks), spec.measured
        self._squares, self._found = np.zeros((2, norms * count)), np.zeros((2, norms * len(sizes)))
        results = fold_arguments(self._squares, results_of_norms(of_tensors, norms, count), self._found)
        self._kernels = threads.Kernels(functools.partial(compiler.norms, spec), sum(sizes))
        self._folds = threads.Kernels(functools.partial(compiler.sums, RESULTS), norms * count), results
        self._rows = np.empty((len(sizes), spec.columns), spec.compute)

    def prepare(self) -> None:
        """Compile what :meth:`run` runs."""
        self._kernels.prepare()
        self._folds[0].prepare()

    def run(self, table: Array, values: Array) -> Array:
        """Return the scalars of each tensor, of those of its group; `table` has the addresses of all arrays."""
        squares = np.uint64(self._squares.ctypes.data)
        threads.launch([(self._kernels, (table, self._chunks, self._groups, values, squares)), self._folds])
        rows = self._rows
        rows[:, : self._spec.scalars] = values[self._groups]
        with np.errstate(over="ignore"):  # beyond float32 they are infinite, as they are on a GPU
            rows[:, self._spec.scalars :] = np.sqrt(self._found[0]).reshape(self._spec.measured, -1).T
        return rows


class DeviceNorms:
    """The norms of tensors on the GPU that is the current one.

    Attributes
    ----------
    tensors, rows : Any
        Where :attr:`HostNorms.tensors` is, and what :meth:`enqueue` has the device write, as arguments of a kernel.
    """

    def __init__(self, spec: Spec, sizes: Sequence[int], device: int) -> None:
        self._device, self._count, norms = device, len(sizes), spec.measured
        self._kernel, self._rows_kernel = device_reductions.device_norms(spec, device)
        chunks, of_tensors = chunks_to_reduce(sizes)
        self._chunk_count = len(chunks)
        self._of_tensors = chunks_there(results_of_norms(of_tensors, norms, len(chunks)))
        # No kernel writes the largest values of the first; they stay 0.
        self._squares, self._found = Results(norms * len(chunks)), Results(norms * len(sizes))
        self._tensors = driver.copy_of(np.arange(len(sizes)))
        self._rows = driver.copy_of(np.zeros(-(-spec.columns * len(sizes) * spec.compute.itemsize // 8)))
        self.tensors, self.rows = (driver.argument(driver.address_of(a)) for a in (self._tensors, self._rows))

    def enqueue(self, table: Any, chunks: Any, groups: Any, values: Any, handle: int) -> None:
        """Have the device write the scalars of each tensor, of those of its group, in the order of a stream.

        `table` and the others are those of a sweep, as arguments of a kernel.
        """
        device, count, squares = self._device, self._count, self._squares.squares
        of_chunks = (table, count, chunks, self._chunk_count, groups, values, squares)
        streams.launch(self._kernel, self._chunk_count, device, handle, *of_chunks)
        self._found.reduce(RESULTS, self._squares.table, self._of_tensors, device, handle)
        streams.launch(self._rows_kernel, count, device, handle, values, groups, self._found.squares, count, self.rows)
