"""What :class:`fastopt.torch.Offload` takes, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .. import optimizers
from .._api.optimizer import Optimizer
from .formulas import Formula
from .memory import check_parameter
from .shards import is_distributed
from .weights import MASTER

#: What is said of hyperparameters of all parameters together in a group.
TO_ALL = "give it to the optimizer"
#: What of it :func:`check_limits` knows better.
LIMITS = ("clip_norm", "nonfinite")
#: Arguments of fastopt's classes that are not for this one, and what is.
REFUSED = {
    "groups": "give PyTorch's param groups, [{'params': ..., 'lr': ...}, ...]",
    "copy_to": "the step writes the parameters themselves, from their weights",
    "zero_grads": "call zero_grad()",
    "capturable": "no graph can hold a step that waits for the host",
    "ema": "there is no average of the weights here",
    "grad_scale": "torch.amp.GradScaler divides gradients itself",
}


def check_kind(optimizer: Any) -> None:
    """Raise TypeError unless this is the class of an optimizer of fastopt's."""
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer) and hasattr(optimizer, "rule"):
        if hasattr(optimizer, "averaged"):
            raise TypeError(
                f"optimizer must be one whose parameters are to be evaluated, got {optimizer.__name__}, of which "
                "averaged() is"
            )
        return
    name = getattr(optimizer, "__name__", repr(optimizer))
    own = f", fastopt.{name}" if hasattr(optimizers, name) else ", such as fastopt.AdamW"
    module = f"{optimizer.__module__}." if isinstance(optimizer, type) else ""
    raise TypeError(f"optimizer must be a class of fastopt's own{own}, or one of yours; got {module}{name}")


def check_checkpoint(kind: type[Optimizer], formula: Formula, saved: Mapping[str, Any]) -> None:
    """Raise ValueError for a checkpoint of another optimizer, whose states would be left where they are."""
    names = formula.keys.values()
    known = {MASTER, "low", "compensation", *formula.clock, *names, *(f"{name}_scale" for name in names)}
    always = [name for name, declared in kind._declared.items() if declared.when is None]
    for own in saved["state"].values():
        unknown, lacking = own.keys() - known, [name for name in always if own and name not in own]
        if unknown or lacking:
            wrong = f"with {min(unknown)!r}" if unknown else f"without {lacking[0]!r}"
            raise ValueError(
                f"the checkpoint is of another optimizer: Offload of {kind.__name__} has for each parameter "
                f"{', '.join(always)}; got {', '.join(own)}, {wrong}"
            )


def check_whole(name: str, p: torch.Tensor) -> None:
    """Raise unless a parameter can be updated here."""
    if is_distributed(p):
        raise TypeError(f"{name} must be whole, got a DTensor: give fully_shard a CPUOffloadPolicy instead")
    check_parameter(name, p)
    if p.is_complex():
        raise TypeError(f"{name} must be real, got {p.dtype}: pass torch.view_as_real(p)")
