"""What :mod:`fastopt._cuda.storage` gives a kernel, for the simulator: plain Python on host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays import Array


def view(address: int, dtype: np.dtype[Any], count: int) -> Array:
    """Return the memory at an address as an array."""
    if count == 0:
        return np.empty(0, dtype)
    memory = (ctypes.c_uint8 * (int(count) * dtype.itemsize)).from_address(int(address))
    return np.ctypeslib.as_array(memory).view(dtype)


def _int64(address: int, count: int) -> list[int]:
    numbers: list[int] = view(address, np.dtype(np.int64), count).tolist()
    return numbers


class Storage:
    """The same functions as :class:`fastopt._cuda.storage.Storage`; there each is documented."""

    def __init__(self, dtypes: Sequence[np.dtype[Any]], lanes: int, scalars: int) -> None:
        self.dtypes, self.lanes, self.count = dtypes, lanes, scalars

    def rule(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):  # as on a device
                return rule(*arguments)

        return quiet

    def column(self, table: int, tensors: int, t: int) -> tuple[int, ...]:
        return tuple(_int64(table + 8 * (k * tensors + t), 1)[0] for k in range(len(self.dtypes)))

    def chunk(self, chunks: int, c: int) -> tuple[int, ...]:
        return tuple(_int64(chunks + 24 * c, 3))

    def advance(self, addresses: Sequence[int], i: int) -> tuple[int, ...]:
        return tuple(a + i * dtype.itemsize for a, dtype in zip(addresses, self.dtypes, strict=True))

    def aligned(self, addresses: Sequence[int]) -> bool:
        return all(a % (self.lanes * d.itemsize) == 0 for a, d in zip(addresses, self.dtypes, strict=True))

    def _moved(self, addresses: Sequence[int], i: int, lanes: int) -> tuple[int, ...]:
        moved = self.advance(addresses, i)
        if lanes > 1 and not self.aligned(moved):
            raise RuntimeError("misaligned address: a device stops there")
        return moved

    def _load(self, addresses: Sequence[int], i: int, lanes: int) -> tuple[Any, ...]:
        moved = self._moved(addresses, i, lanes)
        columns = [view(a, dtype, lanes) for a, dtype in zip(moved, self.dtypes, strict=True)]
        return tuple(tuple(column[lane] for column in columns) for lane in range(lanes))

    def _store(self, addresses: Sequence[int], i: int, values: Sequence[Any], lanes: int) -> None:
        moved = self._moved(addresses, i, lanes)
        for k in range(1, len(self.dtypes)):
            out = view(moved[k], self.dtypes[k], lanes)
            for lane in range(lanes):
                if values[lane][k - 1].dtype != out.dtype:
                    raise TypeError(f"a rule returned {values[lane][k - 1].dtype} where the array holds {out.dtype}")
                out[lane] = values[lane][k - 1]

    def load_one(self, addresses: Sequence[int], i: int) -> tuple[Any, ...]:
        return self._load(addresses, i, 1)

    def load_packed(self, addresses: Sequence[int], i: int) -> tuple[Any, ...]:
        return self._load(addresses, i, self.lanes)

    def store_one(self, addresses: Sequence[int], i: int, values: Any) -> None:
        self._store(addresses, i, values, 1)

    def store_packed(self, addresses: Sequence[int], i: int, values: Any) -> None:
        self._store(addresses, i, values, self.lanes)

    def fetch(self, address: int) -> tuple[Any, ...]:
        return tuple(view(address, self.dtypes[0], self.count))

    def put(self, address: int, values: Sequence[Any]) -> None:
        view(address, self.dtypes[0], self.count)[:] = values

    def tick(self, clock: int) -> tuple[float, float]:
        step = view(clock, np.dtype(np.int64), 1)
        step[0] += 1
        return float(step[0]), float(view(clock + 8, np.dtype(np.float64), 1)[0])
