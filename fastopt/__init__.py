"""Fused, in-place optimizer updates for NumPy arrays, compiled with Numba."""

__version__ = "0.1.0"

from . import optimizers
from ._api.conventions import conventions
from ._api.functional import as_function
from ._api.info import info
from ._api.jitable import jitable
from ._api.optimizer import Optimizer
from ._minimize import MinimizeResult, minimize
from .optimizers import *

__all__ = ["MinimizeResult", "Optimizer", "as_function", "conventions", "info", "jitable", "minimize"]
__all__ += [name for name in vars(optimizers) if not name.startswith("_")]
