"""Where tensors are at each step: from compiled code where that can be, in Python else."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .._arrays import exchange, headers
from .._arrays.checks import Array
from .._kernels import compiler

_TENSOR = torch.Tensor
#: Up to how many objects Python compares sooner, when its caches have other things.
_FEW = 300


@functools.cache
def describer() -> int:
    """Return the address of PyTorch's function that describes a tensor, or 0 if there is none to be used."""
    return exchange.function_of(_TENSOR) if compiler.where() is not None else 0


class Watch:
    """How tensors lie, so that others in their place can be held against it.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
    kinds : set of type
        The types that those can have that come later.

    Attributes
    ----------
    places : bytes
        Where the tensors are, as the array that :meth:`where` returns.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], kinds: set[Any]) -> None:
        self._kinds, self._known = kinds, _seen(tensors)[1:]
        self._arguments: tuple[Any, ...] | None = None
        found = [exchange.description(describer(), tensor) for tensor in tensors] if describer() else [None]
        known = [one for one in found if one is not None]
        if len(known) == len(tensors):
            starts = np.cumsum([0, *(len(dims) for *_, dims in known)])[:-1]
            rows = [[one[0] for one in known], [one[1] for one in known], starts]
            expected = np.array(rows, np.int64).reshape(3, len(tensors))
            dims = np.array([n for *_, own in known for n in own], np.int64)
            self._out = np.zeros(exchange.SIZE // 8, np.int64)
            self._found = np.zeros(len(tensors), np.int64)
            types = np.array([id(kind) for kind in kinds], np.int64)
            self._arguments = (types, expected, dims, self._out.ctypes.data, self._found)
        found_now = self.where(list(tensors))
        self.places = b"" if found_now is None else found_now.tobytes()

    def where(self, tensors: list[torch.Tensor]) -> Array | None:
        """Return the addresses of as many tensors, or None if one has another type, or may lie in another way."""
        if self._arguments is not None:
            lie = compiler.where()(describer(), id(tensors), *self._arguments)
            return self._found if lie else None
        if not set(map(type, tensors)) <= self._kinds:
            return None
        try:
            places, *rest = _seen(tensors)
        except RuntimeError:  # sparse ones have no strides
            return None
        return np.array(places, np.int64) if (*rest,) == self._known else None


class Objects:
    """Certain objects in a certain order, which others can be held against.

    Parameters
    ----------
    objects : list
    """

    def __init__(self, objects: list[Any]) -> None:
        self._objects, self._identities = objects, headers.identities(objects)

    def are(self, others: list[Any]) -> bool:
        """Say whether a list has these objects: one of 1000 in 1 µs, and in Python in 14."""
        if self._identities is not None and len(others) > _FEW:
            return headers.identities(others) == self._identities
        return len(others) == len(self._objects) and all(map(operator.is_, others, self._objects))


def _seen(tensors: Sequence[torch.Tensor]) -> tuple[list[Any], ...]:
    """Return where tensors are, and all that says how they lie there."""
    return (
        list(map(_TENSOR.data_ptr, tensors)),
        list(map(_TENSOR.stride, tensors)),
        [tensor.shape for tensor in tensors],
        [(tensor.dtype, tensor.device) for tensor in tensors],
    )
