"""The optimizers, one file each."""

from .adam import Adam, AdamW, adam, adamw
from .gd import GD, gd
from .momentum import Momentum, momentum
from .rmsprop import RMSprop, rmsprop

__all__ = ["GD", "Adam", "AdamW", "Momentum", "RMSprop", "adam", "adamw", "gd", "momentum", "rmsprop"]
