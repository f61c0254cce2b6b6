"""Checkpoints: an optimizer as a flat dict of numbers and arrays, and back; copies and pickles."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays import gpu
from .._arrays.checks import MOST_STEPS, Array, check_disjoint, check_integer, check_layout, check_like
from .._arrays.tensors import as_array
from .._arrays.view import view_of
from .._engine.extents import COPY, named_arrays
from .._storage.codecs import ELEMENTS
from .._storage.evaluator import Builder, value
from .._storage.formats import compute_dtype, raw, rows_of
from .._storage.int8 import Scaled8
from .._storage.layout import CODECS
from . import saved_groups
from .arguments import AROUND

if TYPE_CHECKING:
    from .optimizer import Optimizer


def dump(optimizer: Optimizer) -> dict[str, Any]:
    """Return what a copy or a pickle of an optimizer needs."""
    if any(gpu.device_of(a) is not None for a in optimizer._arrays):
        raise TypeError(f"{type(optimizer).__name__} of arrays on a GPU cannot be copied or pickled: use state_dict()")
    made = {"_constants", "_groups", "_launches", "_methods", "_plain", "_plan"}
    made |= {"_rule", "_norms", "_specs", "_kernel_key"}
    made |= {"_arrays", "_param_groups", "_shared"}  # what is seen of what was given, and what refers to all of this
    kept = {name: value for name, value in optimizer.__dict__.items() if name not in made}
    return kept | {"groups": [(group._own, group._start) for group in optimizer._param_groups]}


def revive(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Make an optimizer of what :func:`dump` returned."""
    older = {"_group_of": [0] * len(state["_structure"].keys), **optimizer.hyperparameters}  # which it may lack
    groups = state.pop("groups", [({}, 0)])
    optimizer.__dict__.update(older | state)
    saved_groups.remake(optimizer, groups)
    if "_given" not in state:  # an older one
        optimizer.__dict__["_given"] = state["_arrays"]
    optimizer.__dict__["_arrays"] = [as_array(given) for given in optimizer._given]
    written = list(named_arrays(optimizer._structure, optimizer._arrays, optimizer._states))
    for name, array in written:
        check_layout(name, array, written=True)
    check_disjoint(written)
    optimizer._changed()
    optimizer._make_plan()


def save(optimizer: Optimizer) -> dict[str, Any]:
    """Return what :meth:`fastopt.Optimizer.state_dict` promises."""
    return {**settings(optimizer), **{key: gpu.copy(a) for key, a in arrays(optimizer)}}


def settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return the part of a checkpoint that is no arrays."""
    plain = (item for item in optimizer.describe() if item[1] is not None and not callable(item[1]))
    return {
        "optimizer": type(optimizer).__name__,
        "step": optimizer.step_count,
        "seed": optimizer._seed,
        **_fixed(optimizer),
        **dict(plain),
        **saved_groups.saved(optimizer),
    }


def _entry(key: Hashable) -> str:
    """Return a key as a part of an entry's name: none ends in ".npy", which ``numpy.load`` takes for that of a file."""
    text = str(key)
    return f"{text}/" if text.rstrip("/").endswith(".npy") else text


def _fixed(optimizer: Optimizer) -> dict[str, str]:
    """Return what a resumed run depends on and a checkpoint cannot change: how parameters are rounded."""
    master = {} if optimizer._master is None else {"master": optimizer._master}
    return {"rounding": optimizer._rounding, **master}


def arrays(optimizer: Optimizer, *, params: bool = False) -> list[tuple[str, Array]]:
    """Return the states with the names of their entries, before them the parameters if asked for; bfloat16 as bits."""
    structure = optimizer._structure
    single = structure.kind == "array"
    rows = {"params": [raw(a) for a in optimizer._arrays]} if params else {}
    return [
        (name if single else f"{name}/{_entry(structure.keys[t])}", a)
        for name, row in (rows | optimizer._states).items()
        for t, a in enumerate(row)
        if a is not None and name != COPY
    ]


def decode(optimizer: Optimizer, name: str) -> list[Array]:
    """Return what :meth:`fastopt.Optimizer.decoded` promises."""
    names = optimizer._state_names
    if name != "params" and name not in names:
        raise ValueError(f"name must be one of {', '.join(('params', *names))}; got {name!r}")
    found = []
    for t, array in enumerate(optimizer._arrays):
        param, *states = optimizer._codecs[t]
        if name == "params":
            codec, stored = CODECS[param], [array, *(optimizer._states[row][t] for row in rows_of(param))]
        else:
            codec, stored = CODECS[states[names.index(name)]], [optimizer._states[name][t]]
        flat = [value(raw(gpu.copy(a)).ravel(order="A")) for a in stored if a is not None]
        scale = None
        if isinstance(codec, Scaled8) and (scales := optimizer._states[f"{name}_scale"][t]) is not None:
            scale = value(codec.spread(gpu.copy(scales), array.size))
        number = ELEMENTS[compute_dtype(param)]
        numbers = codec.read(Builder(), flat, number, scale, nonfinite=True).array
        found.append(numbers.reshape(array.shape, order="C" if view_of(array).c_contiguous else "F"))
    return found


def restore(optimizer: Optimizer, saved: Mapping[str, Any], *, params: bool = False) -> None:
    """Do what :meth:`fastopt.Optimizer.load_state_dict` promises; with `params`, parameters are part of it too."""
    own = type(optimizer).__name__
    if not isinstance(saved, Mapping):
        raise TypeError(f"the checkpoint must be a mapping, got {type(saved).__name__}")
    of = str(saved.get("optimizer"))
    if of != own:
        raise ValueError(f"the checkpoint must be of {own}, got one of {of}")
    own_arrays = dict(arrays(optimizer, params=params))
    hyper = {n: np.asarray(saved[n]).tolist() for n in optimizer._fields if n in saved}
    for name, own_setting in _fixed(optimizer).items():
        if name in saved and str(saved[name]) != own_setting:
            raise ValueError(
                f"the checkpoint must be of {name}={own_setting!r}, as the optimizer is; got {str(saved[name])!r}"
            )
    optional = {name for name, value in optimizer.hyperparameters.items() if value is None}
    optional |= {"lr", "seed", *AROUND, *optimizer._flags}  # flags that came with a later version
    required = ({"step", *own_arrays, *optimizer._fields, *_fixed(optimizer)} - optional) | {"optimizer"}
    own_groups = saved_groups.read(optimizer, saved)
    missing = sorted(required - set(saved))
    extra = sorted(set(saved) - required - optional - set(saved_groups.entries(saved)))
    if missing or extra:
        raise ValueError(f"the checkpoint lacks the entries {missing} and has the extra ones {extra}")
    step = check_integer("step", np.asarray(saved["step"]).tolist(), 0, MOST_STEPS)
    names = {key: "the parameter" if key.partition("/")[0] == "params" else "the state" for key in own_arrays}
    for key, own_array in own_arrays.items():
        check_layout(f"{names[key]} {key!r}", own_array, written=True)
    loaded = {key: raw(np.asarray(saved[key])) for key in own_arrays}
    for key, array in loaded.items():
        own_array = own_arrays[key]
        if array.dtype != own_array.dtype:
            raise TypeError(f"{key} must have the dtype of {names[key]}, {own_array.dtype}; got {array.dtype}")
        if array.shape != own_array.shape:
            check_like(key, array, names[key], own_array)
    seed = check_integer("seed", np.asarray(saved["seed"]).tolist(), 0) if "seed" in saved else optimizer._seed
    if callable(optimizer.lr):
        hyper.pop("lr", None)
    absent = {name: optimizer.hyperparameters[name] for name in optional - {"lr", "seed", "reproducible"}}
    optimizer._set_in_groups(own_groups, absent | hyper)
    for key, array in loaded.items():
        gpu.fill(own_arrays[key], array)
    optimizer._seed = seed
    for group in optimizer._groups:
        group.seed = seed
    optimizer.step_count = step
