"""The reference: a rule on float64 arrays, not compiled, no loop at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def apply(
    rule: Callable[..., Any], scalars: Sequence[float], arrays: Sequence[npt.ArrayLike]
) -> list[npt.NDArray[np.float64]]:
    """Return what `rule` makes of (gradient, parameter, states), in float64.

    This is the rule's own text read by NumPy, so it says what a kernel should compute, not whether the
    formula is right: the tests hold it against independent equations.
    """
    wide = [np.asarray(a, np.float64) for a in arrays]
    return [np.asarray(a) for a in rule(tuple(map(float, scalars)), *wide)]
