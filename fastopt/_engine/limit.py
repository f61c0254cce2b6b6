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
from .chunks import chunks_there, chunks_to_reduce
from .results import Results


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
        cuts = (*chunks_to_reduce(sizes), np.array([[0, 0, len(sizes)]], np.int64))
        self._passes = [(chunks_there(cut), Results(len(cut))) for cut in cuts]
        self._settings, self._record = streams.Sent(4 * 8), driver.copy_of(np.zeros(5))
        self._wanted, self._sent = np.zeros(4), np.zeros(4)
        record = driver.address_of(self._record)
        self._place, self.chunks, self.taken = (driver.argument(record + 8 * k) for k in (0, 2, 4))
        self._asked = False

    def use(self, limits: Limits, *, at_once: bool) -> None:
        """Take what is asked from the next step on; `at_once`, where a graph may hold steps, on the device too."""
        self._wanted[:] = limits.scale, limits.bound, limits.largest, limits.skips
        if at_once and not np.array_equal(self._wanted, self._sent):
            with driver.on(self._device):
                driver.copy_to_device(self._settings.address, self._wanted)
            self._sent[:] = self._wanted

    def enqueue(self, spec: Spec, codec: str, table: Any, count: int, handle: int) -> None:
        """Have the device judge the norm of the gradients at the addresses in `table`, in the order of a stream.

        The step updates `count` chunks, unless it is skipped.
        """
        if not np.array_equal(self._wanted, self._sent):
            self._settings.send(self._wanted, handle)
            self._sent[:] = self._wanted
        for chunks, results in self._passes:
            results.reduce(codec, table, chunks, self._device, handle)
            codec, table = RESULTS, results.table
        judge, _ = device_reductions.device_limits(spec, self._device)
        launch = streams.launcher(judge, 1, 1, handle)
        launch(results.squares, results.largest, self._settings.place, count, self._place)
        self._asked = True

    def scale(self, spec: Spec, values: Any, groups: int, handle: int) -> None:
        """Have the first scalar of so many groups be the factor of the gradients."""
        _, factor = device_reductions.device_limits(spec, self._device)
        streams.launcher(factor, groups, 1, handle)(values, groups, self._place)

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
