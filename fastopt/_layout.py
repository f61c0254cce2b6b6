"""All codecs by name, and what arrays a tensor consists of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._codecs import BFloat16, Codec, Compensated, Float, Float16AtRandom, Split
from ._scaled import Scaled8

_BASES = {"float16": Float("float16"), "bfloat16": BFloat16(at_random=False)}
#: Every codec by its name.
CODECS: dict[str, Codec] = {
    "float64": Float("float64"),
    "float32": Float("float32"),
    "float16": _BASES["float16"],
    "float16-random": Float16AtRandom("float16"),
    "float16-kahan": Compensated(_BASES["float16"]),
    "bfloat16": _BASES["bfloat16"],
    "bfloat16-random": BFloat16(at_random=True),
    "bfloat16-kahan": Compensated(_BASES["bfloat16"]),
    "bfloat16-split8": Split(8, at_random=False),
    "bfloat16-split8-random": Split(8, at_random=True),
    "bfloat16-split16": Split(16, at_random=False),
    "int8": Scaled8(signed=True),
    "uint8": Scaled8(signed=False),
}


class Layout:
    """What the arrays of a tensor are: the gradient, the parameter and the states, each in a codec.

    Attributes
    ----------
    codecs : tuple of Codec
    rows : tuple of tuple of int
        For each codec, which arrays are its fields.
    dtypes : tuple of numpy.dtype
        Of each array.
    scales : dict of int to int
        For each codec that has one, by its number, which array is its scale.
    scaled : dict of int to Scaled8
        Those codecs.
    number : numpy.dtype
        In what is computed.
    narrow : bool
        Whether the arrays are bfloat16, and bits beside it, without scales: neighbours are then moved two at a time.
        (For float16 the processor has instructions that convert and widen at once.)
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.codecs = tuple(CODECS[name] for name in names)
        self.number = np.dtype(np.float64 if names[1] == "float64" else np.float32)
        rows: list[tuple[int, ...]] = []
        dtypes: list[np.dtype[Any]] = []
        self.scales: dict[int, int] = {}
        self.scaled: dict[int, Scaled8] = {}
        for k, codec in enumerate(self.codecs):
            rows.append(tuple(range(len(dtypes), len(dtypes) + len(codec.fields))))
            dtypes += codec.fields
            if isinstance(codec, Scaled8):
                self.scales[k], self.scaled[k] = len(dtypes), codec
                dtypes.append(np.dtype(np.int16))
        self.rows, self.dtypes = tuple(rows), tuple(dtypes)
        self.narrow = not self.scales and all(dtype.itemsize <= 2 and dtype.kind != "f" for dtype in dtypes)


@functools.cache
def layout(text: str) -> Layout:
    """Return the layout with these names of codecs, separated by spaces."""
    return Layout(text.split())
