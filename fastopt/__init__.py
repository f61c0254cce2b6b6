"""Fused, in-place optimizer updates for NumPy arrays, compiled with Numba."""

__version__ = "0.1.0"

from . import optimizers
from ._conventions import conventions
from ._info import info
from ._jitable import jitable
from ._minimize import MinimizeResult, minimize
from ._optimizer import Optimizer
from .optimizers import *

__all__ = ["MinimizeResult", "Optimizer", "conventions", "info", "jitable", "minimize"]
__all__ += [name for name in vars(optimizers) if not name.startswith("_")]
