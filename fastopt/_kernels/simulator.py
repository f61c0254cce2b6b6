"""What :mod:`fastopt._kernels.cuda_access` gives a kernel, for the simulator: plain Python on host memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays.driver import view
from .._storage.codecs import ELEMENTS
from .._storage.evaluator import Builder, value
from .._storage.layout import Layout
from .._storage.random_bits import bits_at, key, next_bits

_B = Builder()


def _int64(address: int, count: int) -> list[int]:
    numbers: list[int] = view(address, np.dtype(np.int64), count).tolist()
    return numbers


class Storage:
    """The same functions as :class:`fastopt._kernels.cuda_access.Storage`; there each is documented."""

    def __init__(self, layout: Layout, lanes: int, scalars: int) -> None:
        self.layout, self.lanes, self.count = layout, lanes, scalars
        self.scaled = list(layout.scales)
        self.compute = ELEMENTS[layout.compute.name]

    def rule(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):  # as on a device
                return rule(*arguments)

        return quiet

    def column(self, table: int, tensors: int, t: int) -> tuple[int, ...]:
        return tuple(_int64(table + 8 * (k * tensors + t), 1)[0] for k in range(len(self.layout.dtypes)))

    def chunk(self, chunks: int, c: int) -> tuple[int, ...]:
        return tuple(_int64(chunks + 24 * c, 3))

    def advance(self, addresses: Sequence[int], i: int) -> tuple[int, ...]:
        element = value(np.uint64(i))
        return tuple(a + int(self.layout.offset(_B, k, element).array) for k, a in enumerate(addresses))

    def aligned(self, addresses: Sequence[int]) -> bool:
        return all(addresses[k] % (self.lanes * self.layout.dtypes[k].itemsize) == 0 for k in self.layout.fields)

    def _at(self, addresses: Sequence[int], i: int, lanes: int) -> tuple[int, ...]:
        moved = self.advance(addresses, i)
        if lanes > 1 and not self.aligned(moved):
            raise RuntimeError("misaligned address: a device stops there")
        return moved

    def _load(self, addresses: Sequence[int], i: int, lanes: int, scales: Sequence[Any]) -> tuple[Any, ...]:
        moved = self._at(addresses, i, lanes)
        columns = []  # all lanes at once: that is what takes the time here
        for k, codec in enumerate(self.layout.codecs):
            parts = [value(view(moved[r], self.layout.dtypes[r], lanes)) for r in self.layout.rows[k]]
            scale = self.layout.scale(_B, scales, k)
            numbers = codec.read(_B, parts, self.compute, scale, nonfinite=codec.scaled)
            columns.append(tuple(np.array(numbers.array)))
        return tuple(zip(*columns, strict=True))

    def _store(
        self, addresses: Sequence[int], i: int, values: Sequence[Any], rand: Any, scales: Sequence[Any], lanes: int
    ) -> None:
        moved = self._at(addresses, i, lanes)
        rands = [rand]
        while len(rands) < lanes:
            rands.append(next_bits(_B, rands[-1]))
        rand = value(np.array([w.array for w in rands]))
        for k, codec in enumerate(self.layout.codecs[1:], 1):
            new = [row[k - 1] for row in values]
            if any(number.dtype != self.layout.compute for number in new):
                raise TypeError(f"a rule returned {new[0].dtype} where it computes with {self.layout.compute}")
            scale = self.layout.scale(_B, scales, k)
            parts = codec.write(_B, value(np.array(new)), rand, scale, nonfinite=codec.scaled)
            for r, part in zip(self.layout.rows[k], parts, strict=True):
                dtype = self.layout.dtypes[r]
                view(moved[r], dtype, lanes)[:] = part.array.view(dtype)

    def load_one(self, addresses: Sequence[int], i: int, scales: Any) -> tuple[Any, ...]:
        return self._load(addresses, i, 1, scales)

    def load_packed(self, addresses: Sequence[int], i: int, scales: Any) -> tuple[Any, ...]:
        return self._load(addresses, i, self.lanes, scales)

    def load_some(self, addresses: Sequence[int], i: int, n: int, scales: Any) -> tuple[Any, ...]:
        return tuple(self._load(addresses, min(i + lane, n - 1), 1, scales)[0] for lane in range(self.lanes))

    def store_one(self, addresses: Sequence[int], i: int, values: Any, rand: Any, scales: Any) -> None:
        self._store(addresses, i, values, rand, scales, 1)

    def store_packed(self, addresses: Sequence[int], i: int, values: Any, rand: Any, scales: Any) -> None:
        self._store(addresses, i, values, rand, scales, self.lanes)

    def store_some(self, addresses: Sequence[int], i: int, n: int, values: Any, rand: Any, scales: Any) -> None:
        for lane in range(self.lanes):
            if i + lane < n:
                self._store(addresses, i + lane, values[lane : lane + 1], rand, scales, 1)
            rand = next_bits(_B, rand)

    def scales(self, addresses: Sequence[int]) -> tuple[Any, ...]:
        stored = (view(addresses[k], self.layout.dtypes[k], 1)[0] for k in self.layout.scales.values())
        return tuple(value(np.uint32(scale)) for scale in stored)

    def store_scales(self, addresses: Sequence[int], scales: Sequence[Any]) -> None:
        for k, scale in zip(self.layout.scales.values(), scales, strict=True):
            view(addresses[k], self.layout.dtypes[k], 1)[0] = int(scale.array)

    def absmaxes(self, values: Sequence[Any]) -> tuple[int, ...]:
        found: list[int] = []
        for k in self.scaled:
            nothing = value(np.uint32(0))
            numbers = value(np.array([row[k - 1] for row in values]))
            found += [
                int(part.array.max()) for part in self.layout.scaled[k].finite_absmax(_B, numbers, nothing, nothing)
            ]
        return tuple(found)

    def rescale(self, scales: Sequence[Any], absmaxes: Sequence[int]) -> tuple[Any, ...]:
        found = []
        for at, (k, scale) in enumerate(zip(self.scaled, scales, strict=True)):
            absmax = (value(np.uint32(int(absmaxes[2 * at + n]))) for n in (0, 1))
            found.append(self.layout.scaled[k].rescale(_B, scale, *absmax))
        return tuple(found)

    def key(self, seed: int, step: int, tensor: int, first: int) -> Any:
        return key(_B, *(value(np.int64(n)) for n in (seed, step, tensor, first)))

    def bits_at(self, key: Any, i: int) -> Any:
        return bits_at(_B, key, value(np.int64(i)))

    def load_scalars(self, address: int) -> tuple[Any, ...]:
        return tuple(view(address, self.layout.compute, self.count))

    def store_scalars(self, address: int, values: Sequence[Any]) -> None:
        view(address, self.layout.compute, self.count)[:] = values

    def count_step(self, clock: int) -> tuple[float, float]:
        step = view(clock, np.dtype(np.int64), 1)
        step[0] += 1
        return float(step[0]), float(view(clock + 8, np.dtype(np.float64), 1)[0])

    def read_step(self, clock: int) -> int:
        return _int64(clock, 1)[0]
