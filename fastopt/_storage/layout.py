"""All codecs by name, and what arrays a tensor consists of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .codecs import BFloat16, Codec, Compensated, Copied, Float, Split, StochasticFloat16, Zeroed
from .int8 import BLOCK, Scaled8
from .random_bits import INT64

_BASES = {"float16": Float("float16"), "bfloat16": BFloat16(stochastic=False)}
#: Every codec by its name.
CODECS: dict[str, Codec] = {
    "float64": Float("float64"),
    "float32": Float("float32"),
    "float16": _BASES["float16"],
    "float16-stochastic": StochasticFloat16("float16"),
    "float16-kahan": Compensated(_BASES["float16"]),
    "bfloat16": _BASES["bfloat16"],
    "bfloat16-stochastic": BFloat16(stochastic=True),
    "bfloat16-kahan": Compensated(_BASES["bfloat16"]),
    "bfloat16-split8": Split(8),
    "bfloat16-split16": Split(16),
    "int8": Scaled8(signed=True),
    "uint8": Scaled8(signed=False),
}
#: Those of gradients that a step leaves at 0, and of copies that it makes of parameters, by the format.
ZEROED, COPIES = (
    {name: f"{name}-{ending}" for name in ("float64", "float32", "float16", "bfloat16")}
    for ending in ("zeroed", "copy")
)
CODECS |= {zeroed: Zeroed(CODECS[name]) for name, zeroed in ZEROED.items()}
CODECS |= {copy: Copied(CODECS[name]) for name, copy in COPIES.items()}


class Layout:
    """What the arrays of a tensor are: the gradient, the parameter and the states, each in a codec.

    Attributes
    ----------
    codecs : tuple of Codec
    rows : tuple of tuple of int
        For each codec, which arrays are its fields.
    dtypes : tuple of numpy.dtype
        Of each array.
    fields : tuple of int
        Which arrays have an entry for each element; the others are scales.
    scales : dict of int to int
        For each codec that has one, by its number, which array is its scale.
    scaled : dict of int to Scaled8
        Those codecs.
    written : range
        Which codecs a step writes: all but the first, unless gradients are zeroed.
    compute : numpy.dtype
        The dtype of the arithmetic.
    narrow : bool
        Whether the arrays are bfloat16, and bits beside it, without scales: neighbours are then moved two at a time.
        (For float16 the processor has instructions that convert and widen at once.)
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.codecs = tuple(CODECS[name] for name in names)
        self.compute = np.dtype(np.float64 if names[1] == "float64" else np.float32)
        rows: list[tuple[int, ...]] = []
        dtypes: list[np.dtype[Any]] = []
        self.scales: dict[int, int] = {}
        self.scaled: dict[int, Scaled8] = {}
        for k, codec in enumerate(self.codecs):
            rows.append(tuple(range(len(dtypes), len(dtypes) + len(codec.fields))))
            dtypes += codec.rows
            if isinstance(codec, Scaled8):
                self.scales[k], self.scaled[k] = len(dtypes) - 1, codec
        self.rows, self.dtypes = tuple(rows), tuple(dtypes)
        self.written = range(0 if self.codecs[0].zeroed else 1, len(names))
        self.fields = tuple(row for own in rows for row in own)
        self.narrow = not self.scales and all(dtype.itemsize <= 2 and dtype.kind != "f" for dtype in dtypes)

    def offset(self, b: Any, row: int, i: Any) -> Any:
        """Return how many bytes from the beginning of array `row` element `i` is, or the scale of its block."""
        place = i if row in self.fields else b.udiv(i, INT64(BLOCK))
        return b.mul(place, INT64(self.dtypes[row].itemsize))

    def scale(self, scales: Sequence[Any], k: int) -> Any:
        """Return the scale of codec number `k` among all scales, or None if it has none."""
        return scales[list(self.scales).index(k)] if k in self.scales else None


@functools.cache
def layout(text: str) -> Layout:
    """Return the layout with these names of codecs, separated by spaces."""
    return Layout(text.split())
