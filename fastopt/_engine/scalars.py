"""The scalars of a step, and what they are asked of."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .._kernels.compiler import Spec


class Update(Protocol):
    """An optimizer's formula with its hyperparameters, without any arrays."""

    @property
    def _kernel_key(self) -> tuple[Any, ...]:
        """The rule, and whether it is reproducible: what a kernel depends on beside codecs."""

    @property
    def _specs(self) -> dict[tuple[str, ...], Spec]:
        """What :meth:`spec` returned, by codecs."""

    def values(self, step: int) -> tuple[float, ...]:
        """Return all scalars of step number `step`, in float64."""

    def spec(self, codecs: tuple[str, ...], scalars: int | None = None) -> Spec:
        """Return what the kernel for a gradient, a parameter and states in these codecs is compiled from."""

    def compiled_from(self) -> tuple[Any, ...]:
        """Return the numbers that :meth:`compiled_values` depends on."""

    def compiled_values(self) -> Any:
        """Return :meth:`values` for use inside compiled code, as a function of the step and `lr`."""


@functools.cache
def _format(count: int, code: str) -> struct.Struct:
    return struct.Struct(f"={count}{code}")  # "=": without it, numbers that are too large become infinite


class ScalarTable:
    """The scalars of a step: a row for each group of parameters, as kernels take them.

    Attributes
    ----------
    array : ndarray
        [groups, scalars], in the dtype of the arithmetic.
    """

    __slots__ = ("_bytes", "_view", "_write", "array")

    def __init__(self, groups: int, count: int, dtype: np.dtype[Any]) -> None:
        self.array = np.empty((groups, count), dtype)
        self._view, self._bytes = self.array.reshape(-1).data, count * dtype.itemsize
        self._write = _format(count, dtype.char).pack_into

    def pack(self, values: tuple[float, ...], group: int = 0) -> None:
        """Write the scalars of a group, rounded to the dtype.

        Raises
        ------
        TypeError
            If one is no number.
        ValueError
            If one is too large for the dtype.
        """
        try:
            self._write(self._view, group * self._bytes, *values)
            # The sum is quick to look at, and finite unless one of them is not, or they are very large.
            too_large = not math.isfinite(sum(values)) and (math.inf in values or -math.inf in values)
        except OverflowError:
            too_large = True
        except struct.error:
            wanted = self.array.shape[1]
            raise TypeError(f"scalars returned {values}, where a step takes {wanted} numbers, as before") from None
        if too_large:
            raise ValueError(
                f"the hyperparameters give the scalars {values}, of which one is too large for {self.array.dtype}"
            )

    def pack_rows(self, rows: Sequence[tuple[float, ...]]) -> None:
        """Write the scalars of all groups."""
        if len(rows) != len(self.array):
            raise ValueError(f"there must be scalars for {len(self.array)} groups, got {len(rows)}")
        for group, values in enumerate(rows):
            self.pack(values, group)
