"""What is kept of a parameter beside arrays: how many steps it has taken, and what else PyTorch keeps as a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .formulas import Formula
from .watch import Objects


class Clocks:
    """The clocks of all parameters of an optimizer, in one piece of memory.

    What PyTorch has as a tensor for each parameter is a view of it, so that a step counts for all by one assignment.

    Parameters
    ----------
    formula : Formula
    params : sequence of torch.Tensor
        All of the optimizer.
    counts : bool
        Whether the number of the step is part of the state, even if it is not in PyTorch.

    Attributes
    ----------
    array : ndarray
        A row for each number, a column for each parameter.
    keys : tuple of str
        Which of them are part of the state.
    """

    def __init__(self, formula: Formula, params: Sequence[torch.Tensor], *, counts: bool) -> None:
        double = torch.get_default_dtype() is torch.float64
        self._tensor = torch.zeros(
            len(formula.clock), len(params), dtype=torch.float64 if double else torch.float32, device="cpu"
        )
        self.array = self._tensor.numpy()
        self._place = self._tensor.data_ptr()
        self._params, self._formula = Objects(list(params)), formula
        self.keys = formula.shown or (("step",) if counts else ())
        self._views = {key: self._tensor[row].unbind() for row, key in enumerate(formula.clock)}
        for row, first in enumerate(formula.clock.values()):
            self.array[row] = first

    def are_of(self, params: list[torch.Tensor]) -> bool:
        """Say whether they are those of these parameters, and where they were."""
        return self._params.are(params) and self._tensor.data_ptr() == self._place

    def bind(self, index: int, own: dict[str, Any]) -> list[str]:
        """Take the numbers that the state of a parameter has, and have it show these from now on.

        Returns
        -------
        list of str
            Those that it had not.
        """
        formula, new = self._formula, []
        for row, (key, first) in enumerate(formula.clock.items()):
            if key == "started":
                self.array[row, index] = isinstance(own.get(formula.started_by), torch.Tensor)
            elif key in self.keys:
                now, view = own.get(key), self._views[key][index]
                if now is not view:
                    self.array[row, index] = first if now is None else float(now)
                    own[key] = view
                if now is None:
                    new.append(key)
        return new
