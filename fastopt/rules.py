"""What an optimizer is declared with: hyperparameters, states, and powers of decay factors.

A class of your own gets every storage, every target and every feature of fastopt: "Your own optimizer" in the README.

Annotate the hyperparameters, as in ``beta: float = decay(0.9)``, and type checkers and editors know the signature of
the class. One that is not annotated works, and type checkers refuse it as an argument. `lr` and states need no
annotation. Where `scalars` has no use for the step, ``step: object`` says that the function needs none.
"""

from __future__ import annotations

from ._api.declaration import state
from ._api.hyperparameters import betas, decay, epsilon, flag, nonnegative, optional_fraction, rate
from ._kernels.power import power

__all__ = ["betas", "decay", "epsilon", "flag", "nonnegative", "optional_fraction", "power", "rate", "state"]
