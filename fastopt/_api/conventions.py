"""Whose formula is meant: keyword arguments that make an optimizer follow another framework's convention.

The conventions differ in where epsilon stands, in how a gradient enters the velocity, and in defaults:

========  ==============================  ================================  ==========================
owner     Momentum                        RMSprop                           Adam
========  ==============================  ================================  ==========================
torch     ``v = beta v + g``              ``sqrt(s) + eps``                 ``sqrt(v_hat) + eps``
optax     ``v = beta v + g``              ``sqrt(s + eps)``                 ``sqrt(v_hat) + eps``
keras     ``v = beta v + lr g``           ``sqrt(s + eps)``                 ``sqrt(v) + eps``, then the bias
article   ``v = beta v + (1 - beta) g``   ``sqrt(s + eps)``                 ``sqrt(v_hat + eps)``
========  ==============================  ================================  ==========================

``lr`` is not among the arguments, so that yours can stand beside them. Where it is left out it is fastopt's, not the
owner's:

=================  =======  =======  =======  =======
default            fastopt  torch    optax    keras
=================  =======  =======  =======  =======
GD                 1e-2     1e-3     none     1e-2
Momentum           1e-2     1e-3     none     1e-2
RMSprop            1e-2     1e-2     none     1e-3
Adam               1e-3     1e-3     none     1e-3
AdamW              1e-3     1e-3     none     1e-3
Lion               1e-4     none     none     1e-3
Adagrad            1e-2     1e-2     none     1e-3
NAdam              2e-3     2e-3     none     1e-3
Adamax             2e-3     2e-3     none     1e-3
Adadelta           1.0      1.0      none     1e-3
RAdam              1e-3     1e-3     none     none
SignSGD            1e-4     none     none     none
Yogi               1e-2     none     none     none
AdaBelief          1e-3     none     none     none
Adan               1e-3     none     none     none
ADOPT              1e-3     none     none     none
AdEMAMix           1e-3     none     none     none
ScheduleFreeSGD    1.0      none     1.0      none
ScheduleFreeAdamW  2.5e-3   none     2.5e-3   none
LARS               1.0      none     none     none
LAMB               1e-3     none     none     1e-3
=================  =======  =======  =======  =======

``none``: no default, or no such optimizer. Of the others, PyTorch's RAdam has epsilon before the bias correction
(``eps_hat``), and Optax's and Keras's Adagrad have it under the root. What is another optimizer under the same name
has no entry: NAdam of PyTorch and Keras, whose momentum grows with the step, and Adamax of Keras, with epsilon beside
``u``, and Adan of Optax, which has the complement of the paper's factor of the difference.

The article's four listings have 0.1 for all, and theirs alone is an argument: they are runs to be repeated.

Keras (SGD and RMSprop with momentum) and Optax (RMSprop with momentum) keep the learning rate inside the
velocity. With a constant learning rate that is the same as here; when it changes, it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Arguments = Mapping[str, Any]


def _frozen(by_class: dict[str, dict[str, Any]]) -> Mapping[str, Arguments]:
    return MappingProxyType({name: MappingProxyType(kwargs) for name, kwargs in by_class.items()})


_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0, "eps_hat": 0.0}
_ADEMAMIX = {"betas": (0.9, 0.999), "beta3": 0.9999, "alpha": 5.0, "eps": 1e-8, "eps_root": 0.0, "decoupled": True}
_KERAS_ADAM = _ADAM | {"eps": 0.0, "eps_hat": 1e-7}

#: ``conventions[owner][class name]`` are keyword arguments of that class; owners are torch, optax, keras and
#: article. ``lr`` is among the article's alone.
conventions: Mapping[str, Mapping[str, Arguments]] = MappingProxyType(
    {
        "torch": _frozen(
            {
                "GD": {},
                "Momentum": {"dampening": 0.0},
                "RMSprop": {"beta": 0.99, "eps": 1e-8, "eps_root": 0.0},
                "Adam": _ADAM,
                "AdamW": _ADAM | {"weight_decay": 1e-2, "decoupled": True},
                "Adagrad": {"eps": 1e-10, "eps_root": 0.0, "initial_accumulator_value": 0.0},
                "Adamax": {"betas": (0.9, 0.999), "eps": 1e-8},
                "Adadelta": {"rho": 0.9, "eps_root": 1e-6},
                "RAdam": {"betas": (0.9, 0.999), "eps": 0.0, "eps_root": 0.0, "eps_hat": 1e-8},
            }
        ),
        "optax": _frozen(
            {
                "GD": {},
                "Momentum": {"dampening": 0.0},
                "RMSprop": {"beta": 0.9, "eps": 0.0, "eps_root": 1e-8},
                "Adam": _ADAM,
                "AdamW": _ADAM | {"weight_decay": 1e-4, "decoupled": True},
                "Lion": {"betas": (0.9, 0.99), "weight_decay": 1e-3, "decoupled": True},
                "Adagrad": {"eps": 0.0, "eps_root": 1e-7, "initial_accumulator_value": 0.1},
                "NAdam": {"betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0},
                "Adamax": {"betas": (0.9, 0.999), "eps": 1e-8},
                "Adadelta": {"rho": 0.9, "eps_root": 1e-6},
                "RAdam": _ADAM,
                "SignSGD": {},
                "LARS": {"beta": 0.9, "trust": 1e-3, "eps": 0.0},
                "LAMB": {"betas": (0.9, 0.999), "eps": 1e-6, "eps_root": 0.0, "decoupled": True},
                "Yogi": {"betas": (0.9, 0.999), "eps": 1e-3, "eps_root": 0.0, "initial_accumulator_value": 1e-6},
                "AdaBelief": {"betas": (0.9, 0.999), "eps": 1e-16, "eps_root": 1e-16},
                "ADOPT": {"betas": (0.9, 0.9999), "eps": 1e-6},
                "AdEMAMix": _ADEMAMIX,
                "ScheduleFreeSGD": {"beta": 0.9},
                "ScheduleFreeAdamW": {"betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0, "decoupled": True},
            }
        ),
        "keras": _frozen(
            {
                "GD": {},
                "Momentum": {"dampening": 0.0},
                "RMSprop": {"beta": 0.9, "eps": 0.0, "eps_root": 1e-7},
                "Adam": _KERAS_ADAM,
                "AdamW": _KERAS_ADAM | {"weight_decay": 4e-3, "decoupled": True},
                "Lion": {"betas": (0.9, 0.99), "decoupled": True},
                "Adagrad": {"eps": 0.0, "eps_root": 1e-7, "initial_accumulator_value": 0.1},
                "Adadelta": {"rho": 0.95, "eps_root": 1e-7},
            }
        ),
        "article": _frozen(
            {
                "GD": {"lr": 0.1},
                "Momentum": {"lr": 0.1, "beta": 0.9, "dampening": None},
                "RMSprop": {"lr": 0.1, "beta": 0.9, "eps": 0.0, "eps_root": 1e-8},
                "Adam": _ADAM | {"lr": 0.1, "eps": 0.0, "eps_root": 1e-8},
            }
        ),
    }
)
