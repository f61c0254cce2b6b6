"""The reference: a rule on float64 arrays, not compiled, no loop at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiler import Spec


def apply(spec: Spec, scalars: Sequence[float], arrays: Sequence[npt.ArrayLike]) -> list[npt.NDArray[np.float64]]:
    """Return what the rule of `spec` makes of (gradient, parameter, states), in float64.

    This is the rule's own text read by NumPy, so it says what a kernel should compute, not whether the
    formula is right: the tests hold it against independent equations.
    """
    wide = [np.asarray(a, np.float64) for a in arrays]
    numbers = tuple(map(float, scalars))
    return [np.asarray(a) for a in spec.rule(numbers + norms_of(spec, numbers, wide), *wide)]


def norms_of(spec: Spec, scalars: tuple[Any, ...], arrays: Sequence[npt.NDArray[Any]]) -> tuple[Any, ...]:
    """Return the norms over these arrays that a rule takes after its scalars, summed in float64."""
    if spec.norms is None:
        return ()
    numbers = spec.norms(scalars, *arrays)
    measured = (np.broadcast_to(np.asarray(number, np.float64), arrays[1].shape) for number in numbers)
    return tuple(arrays[1].dtype.type(np.sqrt(np.sum(number * number))) for number in measured)
