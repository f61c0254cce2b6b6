"""How params and grads are arranged: one array, a sequence, or a mapping."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from .checks import Array, advice, describe, is_on_gpu


class CUDAArray(Protocol):
    """An array on a GPU that shows itself by the CUDA array interface."""

    @property
    def __cuda_array_interface__(self) -> Any: ...


class DLPackArray(Protocol):
    """An array that shows itself by DLPack, of which those on a GPU are meant."""

    def __dlpack_device__(self) -> Any: ...


AnyArray = Array | CUDAArray | DLPackArray
Params = AnyArray | Iterable[AnyArray] | Mapping[str, AnyArray]
#: NumPy's arithmetic makes scalars of arrays without dimensions.
Gradient = AnyArray | np.generic
Grads = Gradient | Iterable[Gradient] | Mapping[str, Gradient]


class Structure(NamedTuple):
    """How the caller arranged the arrays: one array, a sequence, or a mapping."""

    kind: str
    keys: tuple[Hashable, ...]

    def label(self, name: str, index: int) -> str:
        """Return how the caller would write array number `index` of the argument `name`."""
        return name if self.kind == "array" else f"{name}[{self.keys[index]!r}]"

    def pack(self, arrays: Iterable[Array | None]) -> Any:
        """Return `arrays` in this structure."""
        if self.kind == "mapping":
            return dict(zip(self.keys, arrays, strict=True))
        return list(arrays) if self.kind == "sequence" else next(iter(arrays))

    def unpack(self, name: str, given: Any) -> list[Any]:
        """Return the arrays of `given`, which must be arranged in the same way, in a list that nobody else has.

        Raises
        ------
        TypeError
            If `given` is arranged in another way.
        ValueError
            If it has another number of arrays, or other keys.
        """
        if self.kind == "array":
            # Abstract classes last: to ask for one takes 0.3 µs of 6.
            if isinstance(given, (list, tuple)) or (not isinstance(given, np.ndarray) and isinstance(given, Mapping)):
                raise TypeError(f"{name} must be one array, as params is; got a {type(given).__name__} of {len(given)}")
            return [given]
        if self.kind == "sequence":
            arrays = self._listed(name, given)
            if len(arrays) != len(self.keys):
                raise ValueError(f"{name} must hold {len(self.keys)} arrays, got {len(arrays)}")
            return arrays
        if type(given) is dict and len(given) == len(self.keys):
            try:  # 45 µs less for 1000 arrays
                return [*map(given.__getitem__, self.keys)]
            except KeyError:
                pass
        if not isinstance(given, Mapping):
            raise TypeError(f"{name} must be a mapping with the keys of params, got {describe(given)}")
        if len(given) != len(self.keys) or any(key not in given for key in self.keys):
            missing = [key for key in self.keys if key not in given]
            extra = [key for key in given if key not in set(self.keys)]
            raise ValueError(f"{name} must have the keys of params; missing: {missing}, unexpected: {extra}")
        return [given[key] for key in self.keys]

    def _listed(self, name: str, given: Any) -> list[Any]:
        if type(given) is list or type(given) is tuple:
            return list(given)
        if isinstance(given, (Mapping, np.ndarray, str)) or not isinstance(given, Iterable) or is_on_gpu(given):
            raise TypeError(
                f"{name} must be a sequence of {len(self.keys)} arrays, as params is; got {describe(given)}"
            )
        return list(given)


def flatten(name: str, given: Any) -> tuple[Structure, list[Any]]:
    """Return the structure of `given` and its arrays in order.

    Raises
    ------
    TypeError
        If `given` is neither an array, a sequence nor a mapping with string keys.
    ValueError
        If there are no arrays.
    """
    if isinstance(given, np.ndarray) or is_on_gpu(given):
        return Structure("array", (0,)), [given]
    if isinstance(given, Mapping):
        for key in given:
            if not isinstance(key, str):
                raise TypeError(f"{name} must have strings as keys, got {key!r}")
        structure, arrays = Structure("mapping", tuple(given)), list(given.values())
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes)) and not hasattr(given, "__array__"):
        arrays = list(given)
        structure = Structure("sequence", tuple(range(len(arrays))))
    else:
        raise TypeError(
            f"{name} must be a numpy.ndarray, a sequence or a mapping of them, got {describe(given)}"
            f"{advice(name, given)}"
        )
    if not arrays:
        raise ValueError(f"{name} must hold at least one array, got none")
    check_lasting(name, structure, given, arrays)
    return structure, arrays


def check_lasting(name: str, structure: Structure, given: Any, arrays: Sequence[Any]) -> None:
    """Raise if a collection has other arrays each time that it is asked for them, as that of an ``.npz`` file.

    Raises
    ------
    TypeError
        If what is done to `arrays`, which it had at first, can be seen by nobody.
    """
    if structure.kind == "array" or not isinstance(given, (Mapping, Sequence)):
        return
    for t, (key, array) in enumerate(zip(structure.keys, arrays, strict=True)):
        if given[key] is not array:  # type: ignore[call-overload]
            raise TypeError(
                f"{structure.label(name, t)} is another object each time that it is asked for, so that what is written "
                f"to it is lost: pass a dict or a list, such as dict({name})"
            )
