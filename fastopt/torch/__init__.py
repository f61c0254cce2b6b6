"""PyTorch's optimizers with fastopt's step: the same arguments, param groups, schedulers and checkpoints."""

from .adam import Adam, Adamax, AdamW, NAdam, RAdam
from .offload import Offload
from .others import SGD, Adadelta, Adagrad, RMSprop

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Offload", "RAdam", "RMSprop"]
