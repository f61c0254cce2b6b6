"""What a step does about the gradients of all parameters together: clips their norm, and judges what is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .._arrays.checks import format_of
from .._engine.reduce import Reduced
from .._storage.formats import compute_dtype
from .method import Method

#: The largest number of the narrowest arithmetic.
LEAST_MAX = float(np.finfo(np.float32).max)


class Limited(Method):
    """A method whose step has a norm."""

    _grad_norm: ClassVar[float | None] = None
    _skipped = 0

    def _check_capturable(self) -> None:
        """Raise TypeError for what a graph cannot hold."""
        if callable(self.lr):
            raise TypeError(
                "lr must be a number with capturable=True: a graph calls no Python; set opt.lr between its replays"
            )
        if self._of_all:
            raise TypeError(
                "clip_norm and nonfinite take the norm of the gradients from the GPU, which capturable=True does not "
                "allow: a graph would hold that of one step"
            )

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients together, unscaled and before clipping, of the last step that took it.

        Those steps do where `clip_norm` is given or `nonfinite` is not "propagate", unless they raise; before, it is
        None. ``clip_norm=math.inf`` measures it and clips nothing.
        """
        return self._grad_norm

    @property
    def skipped(self) -> int:
        """How many steps were skipped, by ``nonfinite="skip"``; `step_count` does not count them."""
        return self._skipped

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
        most = [float(np.finfo(compute_dtype(str(format_of(a.dtype)))).max) for a in self._arrays]
        wrong = ~(found.largest * scale <= np.array(most))
        if wrong.any():
            name = self._structure.label("grads", int(np.argmax(wrong)))
            return f"{name} has a NaN or an infinity" + ("" if scale == 1 else " when it is divided by grad_scale")
        return "" if math.isfinite(found.norm) else "the norm of grads is beyond float64"
