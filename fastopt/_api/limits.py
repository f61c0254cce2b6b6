"""What a step does about the gradients of all parameters together: clips their norm, and judges what is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .._arrays.checks import format_of
from .._engine.limit import DeviceLimit, Limits
from .._engine.reduce import Reduced
from .._storage.formats import compute_dtype
from .method import Method

#: The largest number of the narrowest arithmetic.
LEAST_MAX = float(np.finfo(np.float32).max)


def _most(dtype: np.dtype[Any]) -> float:
    """Return the largest number of the arithmetic on parameters of a dtype."""
    return float(np.finfo(compute_dtype(str(format_of(dtype)))).max)


class Limited(Method):
    """A method whose step has a norm."""

    _grad_norm: ClassVar[float | DeviceLimit | None] = None  # or what knows it, on a GPU
    _skipped = 0

    def _check_capturable(self: Any) -> None:
        """Raise TypeError for what a graph cannot hold."""
        if callable(self.lr):
            raise TypeError(
                "lr must be a number with capturable=True: a graph calls no Python; set opt.lr between its replays"
            )
        if self.nonfinite == "raise":
            raise TypeError("nonfinite='raise' waits for the GPU, which capturable=True does not allow: use 'skip'")
        if self.nonfinite == "skip" and self._zero_grads:
            raise TypeError(
                "zero_grads=True with nonfinite='skip' is not there with capturable=True: a step that the GPU skips "
                "writes nothing"
            )

    def _use_limits(self: Any) -> None:
        """Have a GPU limit gradients by itself where that can be, as a step does not wait for it then."""
        group = self._plan.alone
        if self._capturable and self._of_all and group is None:
            raise TypeError(
                "clip_norm and nonfinite with capturable=True are for parameters of one dtype on one GPU: of several "
                "launches a graph holds no norm"
            )
        if group is None:
            return
        limits = None
        if self._of_all and (self._capturable or self.nonfinite == "propagate"):
            bound = math.inf if self.clip_norm is None else self.clip_norm
            limits = Limits(self._factor(), bound, _most(group.dtype), self.nonfinite == "skip", self._scaled)
        group.use_limits(limits)

    def _found(self: Any) -> DeviceLimit | None:
        """Return what a GPU found that limited gradients by itself."""
        plan = self.__dict__.get("_plan")  # an adapter has one in a step alone
        return None if plan is None or plan.alone is None else plan.alone.limit

    @property
    def grad_norm(self: Any) -> float | None:
        """The norm of all gradients together, unscaled and before clipping, of the last step that took it.

        Those steps do where `clip_norm` is given or `nonfinite` is not "propagate", unless they raise; before, it is
        None. ``clip_norm=math.inf`` measures it and clips nothing.
        """
        norm: float | DeviceLimit | None = self._grad_norm
        return norm.norm() if isinstance(norm, DeviceLimit) else norm

    @property
    def skipped(self) -> int:
        """How many steps were skipped, by ``nonfinite="skip"``; `step_count` does not count them."""
        found = self._found()
        return self._skipped if found is None else self._skipped + found.skipped()

    def _limit(self: Any, rows: Sequence[tuple[float, ...]], stream: object) -> float | None:
        """Take the norm of the gradients of a step that is prepared, and have the step clip it.

        Returns
        -------
        float or None
            The norm; None if the step is to be skipped.
        """
        self._plan.reduction.run(stream)
        found = self._plan.reduction.read()
        scale = self._factor()
        norm: float = found.norm * scale
        limit = self.clip_norm
        if self.nonfinite != "propagate" and (what := self._overflow(found, scale)):
            if self.nonfinite == "raise":
                raise FloatingPointError(f"{what}, where nonfinite='raise'; nothing has been written")
            self.__dict__.update(_grad_norm=norm, _skipped=self._skipped + 1)
            return None
        # Of a norm that is NaN, NaN for all, as in PyTorch.
        if limit is not None and limit != math.inf and not norm <= limit:
            factor = scale * (limit / norm)
            self._plan.use_scalars([(factor, *row[1:]) for row in rows])
        return norm

    def _overflow(self: Any, found: Reduced, scale: float) -> str:
        """Return which gradient is not finite, before or after it is divided by `grad_scale`; "" if none is."""
        if math.isfinite(found.norm) and found.most * scale <= LEAST_MAX:
            return ""
        wrong = ~(found.largest * scale <= np.array([_most(a.dtype) for a in self._arrays]))
        if wrong.any():
            name = self._structure.label("grads", int(np.argmax(wrong)))
            return f"{name} has a NaN or an infinity" + ("" if scale == 1 else " when it is divided by grad_scale")
        return "" if math.isfinite(found.norm) else "the norm of grads is beyond float64"
