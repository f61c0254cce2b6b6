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
from .chunks import chunks_to_reduce, fold_arguments


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

    def prepare(self) -> None:
        """Compile what :meth:`run` runs."""
        self._kernels.prepare()
        self._folds[0].prepare()

    def run(self, table: Array, values: Array) -> Array:
        """Return the scalars of each tensor, of those of its group; `table` has the addresses of all arrays."""
        squares = np.uint64(self._squares.ctypes.data)
        threads.launch([(self._kernels, (table, self._chunks, self._groups, values, squares)), self._folds])
        rows = np.empty((len(self.tensors), self._spec.columns), values.dtype)
        rows[:, : self._spec.scalars] = values[self._groups]
        with np.errstate(over="ignore"):  # beyond float32 they are infinite, as they are on a GPU
            rows[:, self._spec.scalars :] = np.sqrt(self._found[0]).reshape(self._spec.measured, -1).T
        return rows


class DeviceNorms:
    """The norms of tensors on the GPU that is the current one.

    Attributes
    ----------
    tensors, rows : arrays on the GPU
        As :attr:`HostNorms.tensors`, and what :meth:`enqueue` has the device write.
    """

    def __init__(self, spec: Spec, sizes: Sequence[int], device: int) -> None:
        self._spec, self._device, self._norms, count = spec, device, spec.measured, len(sizes)
        self._kernel, self._rows_kernel = device_reductions.device_norms(spec, device)
        self._sums = device_reductions.device_sums(RESULTS, device)
        chunks, of_tensors = chunks_to_reduce(sizes)
        self._counts = len(chunks), count
        results = results_of_norms(of_tensors, self._norms, len(chunks))
        self.tensors, self._of_tensors = (driver.copy_of(a.reshape(-1)) for a in (np.arange(count), results))
        self._squares, self._found = (driver.copy_of(np.zeros(2 * max(n, 1) * self._norms)) for n in self._counts)
        size = spec.columns * count * spec.compute.itemsize
        self.rows = driver.copy_of(np.zeros(-(-size // 8)))
        first = driver.address_of(self._squares)
        self._table = driver.copy_of(np.array([first, first], np.int64))

    def enqueue(self, table: Any, chunks: Any, groups: Any, values: Any, handle: int) -> None:
        """Have the device write the scalars of each tensor, of those of its group, in the order of a stream.

        `table` and the others are those of a sweep, as arguments of a kernel.
        """
        chunk_count, count = self._counts
        squares, found, rows, own_table, of_tensors = (
            driver.argument(driver.address_of(a))
            for a in (self._squares, self._found, self.rows, self._table, self._of_tensors)
        )
        most = driver.argument(driver.address_of(self._found) + 8 * count * self._norms)
        blocks, threads_ = streams.blocks(self._device), streams.threads()

        def launch(kernel: Any, items: int, *arguments: Any) -> None:
            streams.launcher(kernel, max(1, min(items, blocks)), threads_, handle)(*arguments)

        launch(self._kernel, chunk_count, table, count, chunks, chunk_count, groups, values, squares)
        launch(self._sums, count * self._norms, own_table, of_tensors, count * self._norms, found, most)
        launch(self._rows_kernel, count, values, groups, found, count, rows)
