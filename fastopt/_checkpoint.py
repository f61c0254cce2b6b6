"""Checkpoints: an optimizer as a flat dict of numbers and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import DTYPES, Array, check_array, check_like
from ._cuda import arrays as gpu
from ._formats import raw

if TYPE_CHECKING:
    from ._optimizer import Optimizer


def save(optimizer: Optimizer) -> dict[str, Any]:
    """Return what :meth:`fastopt.Optimizer.state_dict` promises."""
    saved: dict[str, Any] = {"optimizer": type(optimizer).__name__, "step": optimizer.step_count}
    plain = (item for item in optimizer.describe() if item[1] is not None and not callable(item[1]))
    saved.update(plain)
    saved.update({key: gpu.copy(a) for key, a in _states(optimizer)})
    return saved


def _states(optimizer: Optimizer) -> list[tuple[str, Array]]:
    structure = optimizer._structure
    single = structure.kind == "array"
    return [
        (name if single else f"{name}/{structure.keys[t]}", a)
        for name, row in optimizer._states.items()
        for t, a in enumerate(row)
    ]


def load(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Do what :meth:`fastopt.Optimizer.load_state_dict` promises."""
    own = type(optimizer).__name__
    if not isinstance(saved, Mapping):
        raise TypeError(f"the checkpoint must be a mapping, got {type(saved).__name__}")
    of = str(saved.get("optimizer"))
    if of != own:
        raise ValueError(f"the checkpoint must be of {own}, got one of {of}")
    states = dict(_states(optimizer))
    hyper = {n: np.asarray(saved[n]).tolist() for n in optimizer._fields if n in saved}
    optional = {name for name, value in optimizer.hyperparameters.items() if value is None} | {"lr"}
    required = ({"step", *states, *optimizer._fields} - optional) | {"optimizer"}
    missing = sorted(required - set(saved))
    extra = sorted(set(saved) - required - optional)
    if missing or extra:
        raise ValueError(f"the checkpoint lacks the entries {missing} and has the extra ones {extra}")
    step = np.asarray(saved["step"]).tolist()
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ValueError(f"step must be an integer >= 0, got {step!r}")
    loaded = {key: raw(np.asarray(saved[key])) for key in states}
    for key, array in loaded.items():
        state = states[key]
        if state.dtype in DTYPES:
            check_array(key, array, written=False)
        if array.dtype != state.dtype or array.shape != state.shape:
            check_like(key, array, "the state", state)
    if callable(optimizer.lr):
        hyper.pop("lr", None)
    optimizer._set_hyperparameters(dict.fromkeys(optional - {"lr"}) | hyper)
    for key, array in loaded.items():
        gpu.fill(states[key], array)
    optimizer.step_count = step
