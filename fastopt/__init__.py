"""Fused, in-place optimizer updates for NumPy arrays, compiled with Numba."""

import typing as _typing

from . import optimizers
from ._api.conventions import conventions as conventions
from ._api.functional import as_function as as_function
from ._api.info import info as info
from ._api.jitable import jitable as jitable
from ._api.optimizer import Optimizer as Optimizer
from ._api.scaler import LossScaler as LossScaler
from ._minimize import MinimizeResult as MinimizeResult
from ._minimize import minimize as minimize
from ._version import __version__ as __version__
from .optimizers import *

if _typing.TYPE_CHECKING:
    from . import schedules as schedules
else:

    def __getattr__(name):
        """Import `schedules` when it is first used: 10 ms, where all others take 70."""
        if name != "schedules":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return importlib.import_module(f"{__name__}.schedules")

    def __dir__():
        return sorted({*globals(), "schedules"})


# All that is imported above and no module. Type checkers go by `as` and `*` (PEP 484); an `__all__` that they see and
# cannot work out would make the optimizers private to them.
globals()["__all__"] = [
    name for name, value in globals().items() if not (name.startswith("_") or isinstance(value, type(optimizers)))
]
