"""Fused, in-place optimizer updates for NumPy arrays, compiled with Numba."""

from .optimizers import *  # noqa: F403
from ._jitable import jitable
