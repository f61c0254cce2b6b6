"""What PyTorch does around a step of an optimizer: hooks, and a range for profilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import profiler
from torch.optim import optimizer


def is_watched(opt: torch.optim.Optimizer) -> bool:
    """Say whether there are hooks of a step, or a profiler."""
    try:
        return bool(
            profiler._is_profiler_enabled
            or opt._optimizer_step_pre_hooks
            or opt._optimizer_step_post_hooks
            or optimizer._global_optimizer_pre_hooks
            or optimizer._global_optimizer_post_hooks
        )
    except AttributeError:  # a PyTorch that keeps them elsewhere, and looks itself
        return True


def _step(opt: Any, closure: Callable[[], Any] | None = None) -> Any:
    return opt._take_step(closure)


#: Takes a step of an optimizer with all that.
watched_step = torch.optim.Optimizer.profile_hook_step(_step)
_WRAPPER = watched_step.__code__


def is_wrapped(opt: torch.optim.Optimizer) -> bool:
    """Say whether the class of an optimizer has a step of its own, which PyTorch wrapped so when one was made."""
    return getattr(type(opt).step, "__code__", None) is _WRAPPER
