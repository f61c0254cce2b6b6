"""Reductions of gradients: sums of squares and largest absolute values, per tensor and over all.

Each is a pass of its own over the gradients, with the same bits for any number of threads, any cut into groups, and on
a GPU (:mod:`fastopt._kernels.reduce`). On a GPU nothing is waited for until the results are read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import driver, gpu
from .._arrays.checks import Array
from .._kernels import compiler
from .._kernels.reduce import RESULTS
from . import streams, threads
from .chunks import chunks_there, chunks_to_reduce, fold_arguments, row_addresses
from .gpu import DeviceGroup, wait_for
from .plan import Group
from .results import Results


class Reduced(NamedTuple):
    """What is known of the gradients of a step.

    Attributes
    ----------
    squares : ndarray of float64
        The sum of the squares of each tensor, in the order of the parameters.
    largest : ndarray of float64
        The largest absolute value of each; NaN where there is one, 0 where there is nothing.
    total, most : float
        The same over all tensors.
    """

    squares: Array
    largest: Array
    total: float
    most: float

    @property
    def finite(self) -> bool:
        """Whether every element is finite."""
        return bool(np.isfinite(self.most))

    @property
    def norm(self) -> float:
        """The square root of the sum of all squares; infinite where that is beyond float64."""
        return math.sqrt(self.total)


class _Host:
    """The reduction of the tensors of a group in the host's memory."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._chunks, of_tensors = chunks_to_reduce(sizes)
        self._elements = sum(sizes)
        self._found = np.zeros((2, len(self._chunks)), np.float64)
        self.found = np.zeros((2, len(sizes)), np.float64)
        self._table = np.zeros((1, len(sizes)), np.uint64)
        self._addresses = self._table[0].view(np.int64)
        self._results, self._of_tensors = (
            tuple(row_addresses(self._found)),
            fold_arguments(self._found, of_tensors, self.found),
        )
        self._codec = ""

    def launches(self, addresses: Array, codec: str) -> list[threads.Launch]:
        """Return what reduces the tensors at `addresses`."""
        if codec != self._codec:
            self._kernels = threads.Kernels(functools.partial(compiler.sums, codec), self._elements)
            self._folds = threads.Kernels(functools.partial(compiler.sums, RESULTS), len(self._chunks))
            self._codec = codec  # last: an interrupt before must not leave the kernel of another
        self._kernels.prepare()
        self._folds.prepare()
        self._addresses[:] = addresses
        return [(self._kernels, (self._table, self._chunks, *self._results)), (self._folds, self._of_tensors)]


class _Device:
    """The reduction of the tensors of a group on a GPU."""

    def __init__(self, group: DeviceGroup) -> None:
        self._group, sizes = group, [p.size for p in group.params]
        chunks, of_tensors = chunks_to_reduce(sizes)
        self.found = np.zeros((2, len(sizes)), np.float64)
        with driver.on(group.device):
            self._table = driver.copy_of(np.zeros(len(sizes), np.int64))
            self._uploads = streams.Uploads(len(sizes))
            self._chunks, self._of_tensors = map(chunks_there, (chunks, of_tensors))
            self._found, self._results = (Results(len(rows)) for rows in (chunks, of_tensors))

    def enqueue(self, codec: str, stream: Any) -> None:
        """Have the device reduce the tensors, in the order of a stream."""
        group, handle = self._group, gpu.stream_handle(stream, self._group.params[0])
        with driver.on(group.device):
            wait_for(group.makers, handle)
            table = driver.address_of(self._table)
            self._uploads.send(group.found, table, handle)
            self._found.reduce(codec, driver.argument(table), self._chunks, group.device, handle)
            self._results.reduce(RESULTS, self._found.table, self._of_tensors, group.device, handle)

    def read(self) -> None:
        """Wait for the device, and take the results."""
        with driver.on(self._group.device):
            self._results.read(self.found)


class Reduction:
    """The reduction of the gradients that a plan has gathered.

    Parameters
    ----------
    groups : sequence of Group
        Those of an optimizer.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = list(groups)
        self._parts = [_Device(g) if isinstance(g, DeviceGroup) else _Host([p.size for p in g.params]) for g in groups]
        self._places = [np.array(group.indices, np.int64) for group in groups]
        count = sum(map(len, self._places))
        self._every, self._over_all = np.zeros((2, count), np.float64), np.zeros((2, 1), np.float64)
        whole = np.array([[0, 0, count]], np.int64)
        self._all = (
            threads.Kernels(functools.partial(compiler.sums, RESULTS), 0),
            fold_arguments(self._every, whole, self._over_all),
        )

    def run(self, stream: Any = None) -> None:
        """Reduce the gradients; a GPU is not waited for."""
        launches: list[threads.Launch] = []
        for group, part in zip(self._groups, self._parts, strict=True):
            if isinstance(part, _Device):
                part.enqueue(group.format, stream)
            else:
                launches += part.launches(group.found, group.format)
        if launches:
            threads.launch(launches)

    def read(self) -> Reduced:
        """Return the results, after all work enqueued on GPUs."""
        every, over_all = self._every, self._over_all
        for places, part in zip(self._places, self._parts, strict=True):
            if isinstance(part, _Device):
                part.read()
            every[:, places] = part.found
        self._all[0].prepare()
        threads.launch([self._all])
        return Reduced(*every.copy(), *over_all[:, 0].tolist())
