"""What an optimizer is declared with: hyperparameters, states, powers of decay factors, and trust ratios.

A class of your own gets every storage, every target and every feature of fastopt: "Your own optimizer" in the README.

Annotate the hyperparameters, as in ``beta: float = decay(0.9)``, and type checkers and editors know the signature of
the class. One that is not annotated works, and type checkers refuse it as an argument. `lr` and states need no
annotation. Where `scalars` has no use for the step, ``step: object`` says that the function needs none.
"""

from __future__ import annotations

from ._api.declaration import helper, state
from ._api.hyperparameters import betas, decay, epsilon, flag, nonnegative, optional_fraction, rate
from ._kernels.power import power
from ._kernels.trust import trust_ratio

__all__ = [
    "betas",
    "decay",
    "epsilon",
    "flag",
    "helper",
    "nonnegative",
    "optional_fraction",
    "power",
    "rate",
    "state",
    "trust_ratio",
]
