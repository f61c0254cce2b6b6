"""Which memory a step touches, and what errors call the arrays that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays.checks import Array
from .._arrays.structure import Structure
from .._arrays.view import view_of

#: What is kept beside states, by the names of the arrays: an average of the parameters, and copies of them.
AVERAGE, COPY = "average", "copy"


def named_arrays(
    structure: Structure, arrays: Sequence[Any], states: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[str, Any]]:
    """Yield all arrays that a step writes, and what an error calls them."""
    for t, array in enumerate(arrays):
        yield structure.label("params", t), array
    for name, row in states.items():
        for t, state in enumerate(row):
            if state is not None:
                like = structure.label("params", t)
                yield structure.label("copy_to", t) if name == COPY else f"the state {name!r} of {like}", state


def spans(arrays: Sequence[Any]) -> Array:
    """Return the first and the past-the-end addresses of arrays that are not empty, sorted."""
    views = [view_of(a) for a in arrays if a.size]
    starts = np.array([view.address for view in views], np.int64)
    ends = starts + np.array([view.nbytes for view in views], np.int64)
    order = np.argsort(starts)
    return np.array([starts[order], ends[order]])


def spans_overlap(starts: Array, ends: Array, fixed: Array) -> bool:
    """Say whether any of these spans share memory, with each other or with the fixed ones of :func:`spans`."""
    order = np.argsort(starts)
    order = order[ends[order] > starts[order]]
    starts, ends = starts[order], ends[order]
    before = np.searchsorted(fixed[0], ends) - 1  # the last fixed one that begins before the end
    within = fixed[1][before[before >= 0]] > starts[before >= 0]
    return bool((starts[1:] < ends[:-1]).any() or within.any())
