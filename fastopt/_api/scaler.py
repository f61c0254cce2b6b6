"""Dynamic loss scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays.checks import check_integer
from .._arrays.structure import Grads
from .hyperparameters import in_range
from .optimizer import Optimizer

#: The largest power of two whose reciprocal is a normal float32.
_LARGEST = 2.0**126


class LossScaler:
    r"""Multiplies a loss so that gradients in few bits neither vanish nor overflow.

    The loss is multiplied by :attr:`scale` before gradients are taken, and the step divides them by it. Where they
    overflow, the step is skipped and the scale made smaller; after many steps without, it is made larger.

    Parameters
    ----------
    scale : float, default 65536.0
        The first scale, > 0.
    growth_factor : float, default 2.0
        What the scale is multiplied by after `growth_interval` steps, > 1.
    backoff_factor : float, default 0.5
        What the scale is multiplied by after a step that was skipped, in (0, 1).
    growth_interval : int, default 2000
        After how many steps in a row that were taken the scale grows, >= 1.

    Attributes
    ----------
    scale : float
        What to multiply the next loss by. It grows to 2\ :sup:`126` at most, whose reciprocal is normal in float32.
    growth_factor, backoff_factor, growth_interval
        As they were given.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or out of range.

    Notes
    -----
    With the defaults these are the scales of PyTorch's ``GradScaler``. A scaler is for one optimizer: each step may
    change the scale, and another optimizer would divide by one that its loss was not multiplied by. With factors that
    are powers of two, scaling changes no bits of a gradient that neither overflows nor becomes subnormal.

    References
    ----------
    P. Micikevicius et al., "Mixed precision training", arXiv:1710.03740, section 3.2.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> p = np.zeros(2, np.float32)
    >>> opt = fastopt.GD(p, lr=0.5, nonfinite="skip")
    >>> scaler = fastopt.LossScaler(scale=2.0**17)
    >>> for _ in range(3):
    ...     with np.errstate(over="ignore"):
    ...         grad = np.float16(scaler.scale) * (p - 1).astype(np.float16)    # of scale * (p - 1)**2 / 2
    ...     taken = scaler.step(opt, grad)
    ...     print(taken, scaler.scale, p)
    False 65536.0 [0. 0.]
    False 32768.0 [0. 0.]
    True 32768.0 [0.5 0.5]
    """

    def __init__(
        self,
        scale: float = 2.0**16,
        *,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        self.scale = in_range("scale", scale, 0, _LARGEST, low_in=False)
        self.growth_factor = in_range("growth_factor", growth_factor, 1, math.inf, low_in=False, high_in=False)
        self.backoff_factor = in_range("backoff_factor", backoff_factor, 0, 1, low_in=False, high_in=False)
        self.growth_interval = check_integer("growth_interval", growth_interval, 1)
        self._taken = 0

    def step(self, optimizer: Optimizer, grads: Grads | None = None, *, stream: object = None) -> bool:
        """Take a step with gradients of the scaled loss, or skip it, and choose the next scale.

        Parameters
        ----------
        optimizer : Optimizer
            With ``nonfinite="skip"``. Its `grad_scale` is set to :attr:`scale`.
        grads, stream
            As for :meth:`fastopt.Optimizer.step`.

        Returns
        -------
        bool
            Whether the step was taken.

        Raises
        ------
        ValueError
            If the optimizer does not skip steps.
        FloatingPointError
            If the scale cannot be made smaller: then it is not what makes gradients infinite or NaN.
        TypeError, ValueError, RuntimeError
            As :meth:`fastopt.Optimizer.step`; the scale stays then.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an optimizer of fastopt, got {type(optimizer).__name__} {optimizer!r}")
        if optimizer.nonfinite != "skip":
            raise ValueError(f"optimizer must have nonfinite='skip', got {optimizer.nonfinite!r}")
        optimizer.grad_scale = self.scale
        before = optimizer.skipped
        optimizer.step(grads, stream=stream)
        if optimizer.skipped != before:
            smaller = self.scale * self.backoff_factor
            if smaller < np.finfo(np.float32).tiny:
                raise FloatingPointError(
                    f"gradients are not finite with the scale {self.scale:.2g}: it is not what makes them so"
                )
            self.scale, self._taken = smaller, 0
            return False
        self._taken += 1
        if self._taken == self.growth_interval:
            larger = self.scale * self.growth_factor
            self.scale, self._taken = larger if larger <= _LARGEST else self.scale, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint: the scale, and how many steps were taken since it changed.

        Returns
        -------
        dict
            ``scale``, a float, and ``taken``, an int.
        """
        return {"scale": self.scale, "taken": self._taken}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Parameters
        ----------
        saved : mapping
            What :meth:`state_dict` returned, or arrays of its numbers, as ``numpy.load`` has them.

        Raises
        ------
        TypeError, ValueError
            If an entry is missing or not acceptable; nothing has been changed then.
        """
        if not isinstance(saved, Mapping):
            raise TypeError(f"the checkpoint must be a mapping, got {type(saved).__name__}")
        missing = sorted({"scale", "taken"} - set(saved))
        if missing:
            raise ValueError(f"the checkpoint lacks the entries {missing}")
        scale = in_range("scale", np.asarray(saved["scale"]).tolist(), 0, _LARGEST, low_in=False)
        taken = check_integer("taken", np.asarray(saved["taken"]).tolist(), 0, self.growth_interval - 1)
        self.scale, self._taken = scale, taken

    def __repr__(self) -> str:
        return (
            f"LossScaler(scale={self.scale!r}, growth_factor={self.growth_factor!r}, "
            f"backoff_factor={self.backoff_factor!r}, growth_interval={self.growth_interval!r})"
        )
