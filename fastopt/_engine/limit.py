"""What a step does about the norm of all its gradients on a GPU, which is not waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array
from .._kernels import device_reductions
from .._kernels.compiler import Spec
from .._kernels.reduce import RESULTS
from . import streams
from .chunks import chunks_to_reduce


class Limits(NamedTuple):
    """What is asked of a step.

    Attributes
    ----------
    scale : float
        What gradients are multiplied by.
    bound : float
        Of their norm, after that; infinite where there is none.
    largest : float
        The largest number of the arithmetic.
    skips : bool
        Whether a step with what is not finite is skipped.
    scales : bool
        Whether the first scalar of a step is the factor of the gradients.
    """

    scale: float
    bound: float
    largest: float
    skips: bool
    scales: bool


class DeviceLimit:
    """The norm of the gradients of a launch, and what follows from it, on the GPU that is the current one.

    Attributes
    ----------
    chunks, taken : Any
        Where the device has how many chunks it updates, and whether it takes the step: arguments of kernels.
    """

    def __init__(self, sizes: Sequence[int], device: int) -> None:
        self._device = device
        cut, of_tensors = chunks_to_reduce(sizes)
        self._passes: list[tuple[Any, int, Any]] = []
        table: Any = None
        for rows in (cut, of_tensors, np.array([[0, 0, len(sizes)]], np.int64)):
            found = driver.copy_of(np.zeros(2 * max(len(rows), 1)))
            chunks = driver.copy_of(np.concatenate([rows.reshape(-1), np.zeros(1, np.int64)]))
            self._passes.append((table, len(rows), (chunks, found)))
            first = driver.address_of(found)
            table = driver.copy_of(np.array([first, first + 8 * len(rows)], np.int64))
        self._settings, self._record = (driver.copy_of(np.zeros(n)) for n in (4, 5))
        self._uploads, self._wanted, self._sent = streams.Uploads(4), np.zeros(4), np.zeros(4)
        self.chunks, self.taken = (driver.argument(driver.address_of(self._record) + 8 * k) for k in (2, 4))
        self._asked = False

    def use(self, limits: Limits, *, at_once: bool) -> None:
        """Take what is asked from the next step on; `at_once`, where a graph may hold steps, on the device too."""
        self._wanted[:] = limits.scale, limits.bound, limits.largest, limits.skips
        if at_once and not np.array_equal(self._wanted, self._sent):
            with driver.on(self._device):
                driver.copy_to_device(driver.address_of(self._settings), self._wanted)
            self._sent[:] = self._wanted

    def enqueue(self, spec: Spec, codec: str, table: Any, count: int, handle: int) -> None:
        """Have the device judge the norm of the gradients at the addresses in `table`, in the order of a stream.

        The step updates `count` chunks, unless it is skipped.
        """
        if not np.array_equal(self._wanted, self._sent):
            self._uploads.send(self._wanted.view(np.int64), driver.address_of(self._settings), handle)
            self._sent[:] = self._wanted
        for own_table, chunks, (places, found) in self._passes:
            kernel = device_reductions.device_sums(codec if own_table is None else RESULTS, self._device)
            squares = driver.address_of(found)
            out = (driver.argument(squares), driver.argument(squares + 8 * chunks))
            if chunks:
                given = table if own_table is None else driver.argument(driver.address_of(own_table))
                blocks = min(chunks, streams.blocks(self._device))
                launch = streams.launcher(kernel, blocks, streams.threads(), handle)
                launch(given, driver.argument(driver.address_of(places)), chunks, *out)
        judge, _ = device_reductions.device_limits(spec, self._device)
        settings, record = (driver.argument(driver.address_of(a)) for a in (self._settings, self._record))
        streams.launcher(judge, 1, 1, handle)(*out, settings, count, record)
        self._asked = True

    def scale(self, spec: Spec, values: Any, groups: int, handle: int) -> None:
        """Have the first scalar of so many groups be the factor of the gradients."""
        _, factor = device_reductions.device_limits(spec, self._device)
        record = driver.argument(driver.address_of(self._record))
        streams.launcher(factor, groups, 1, handle)(values, groups, record)

    def _read(self) -> Array:
        found = np.zeros(5, np.int64)
        with driver.on(self._device):
            driver.copy_to_host(driver.address_of(self._record), found)
        return found

    def norm(self) -> float | None:
        """Return the norm of the last step, after all work enqueued on the device; None before the first."""
        return float(self._read().view(np.float64)[0]) if self._asked else None

    def skipped(self) -> int:
        """Return how many steps were skipped, likewise."""
        return int(self._read()[3]) if self._asked else 0
