"""The optimizers of this package, by name."""

from __future__ import annotations

from .. import optimizers
from .._api.optimizer import Optimizer

#: Every class that :mod:`fastopt.optimizers` exports, in the order in which it does.
OPTIMIZERS: dict[str, type[Optimizer]] = {name: cls for name, cls in vars(optimizers).items() if isinstance(cls, type)}
