"""What an optimizer is declared with: hyperparameters, states, and powers of decay factors.

A class of your own gets every storage, every target and every feature of fastopt: "Your own optimizer" in the README.
"""

from __future__ import annotations

from ._api.declaration import state
from ._api.hyperparameters import betas, decay, epsilon, flag, nonnegative, optional_fraction, rate
from ._kernels.power import power

__all__ = ["betas", "decay", "epsilon", "flag", "nonnegative", "optional_fraction", "power", "rate", "state"]
