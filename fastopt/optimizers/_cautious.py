"""Cautious updates, which some optimizers have as a flag: only elements whose gradient has the sign of their change.

K. Liang et al., "Cautious optimizers: improving training with one line of code", arXiv:2411.16085.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..rules import helper


class Norms(NamedTuple):
    """What the rule has the norms of: their squares are how many elements are changed, and how many there are."""

    kept: float
    every: float


@helper
def kept(change, g, one):
    """Return 1 where a change has the sign of the gradient, else 0."""
    return np.maximum(np.sign(change) * np.sign(g), one - one)


@helper
def factor(kept, every, one):
    """Return by how much more those elements are changed, from the norms."""
    return every * every / (kept * kept + one)
