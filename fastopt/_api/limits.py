"""What a step does about the gradients of all parameters together: clips their norm, and judges what is not finite."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from .method import Method


class Limited(Method):
    """A method whose step has a norm."""

    _capturable = False
    _grad_norm: ClassVar[float | None] = None
    _skipped = 0

    def _changed(self) -> None:
        super()._changed()
        if self._capturable and self._of_all:
            raise TypeError(
                "clip_norm and nonfinite take the norm of the gradients from the GPU, which capturable=True does not "
                "allow: a graph would hold that of one step"
            )

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients of the last step together, unscaled and before clipping.

        It is known where `clip_norm` is given or `nonfinite` is not "propagate"; None before the first such step.
        ``clip_norm=math.inf`` measures it and clips nothing.
        """
        return self._grad_norm

    @property
    def skipped(self) -> int:
        """How many steps were skipped, by ``nonfinite="skip"``; `step_count` does not count them."""
        return self._skipped

    def _limit(self: Any, values: tuple[float, ...], stream: object) -> float | None:
        """Take the norm of the gradients of a step that is prepared, and have the step clip it.

        Returns
        -------
        float or None
            The norm; None if the step is to be skipped.
        """
        self._plan.reduction.run(stream)
        found = self._plan.reduction.read()
        scale = 1.0 / (self.grad_scale or 1.0)
        norm: float = found.norm * scale
        limit = self.clip_norm
        if self.nonfinite != "propagate" and not math.isfinite(found.norm):
            if self.nonfinite == "raise":
                raise FloatingPointError(
                    f"{self._structure.label('grads', found.worst())} has a NaN or an infinity, or a norm beyond "
                    "float64, where nonfinite='raise'; nothing has been written"
                )
            self.__dict__.update(_grad_norm=norm, _skipped=self._skipped + 1)
            return None
        if limit is not None and not norm <= limit:  # NaN among them: it is a NaN for all then, as in PyTorch
            self._plan.use_values((scale * (limit / norm), *values[1:]))
        return norm
