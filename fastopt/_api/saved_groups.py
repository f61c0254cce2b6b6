"""Groups of parameters in checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays.checks import MOST_STEPS, check_integer
from .param_group import ParamGroup

#: What the names of entries about groups begin with; that of None, which NumPy's files cannot hold without pickle.
_ENTRY, _NONE = "group/", "none"
#: What a checkpoint knows of a group that is no hyperparameter: when it began, whether its lr is a function, and which
#: parameters it has where their names do not say so. No hyperparameter has such a name.
_START, _FUNCTION, _MEMBERS = "/start", "/function", "/members"


def saved(optimizer: Any) -> dict[str, Any]:
    """Return the entries of a checkpoint about several groups: their own hyperparameters, and when they began."""
    groups = optimizer._param_groups
    if len(groups) == 1:
        return {}
    found: dict[str, Any] = {"groups": len(groups)}
    for i, group in enumerate(groups):
        known: dict[str, Any] = {n: _NONE if v is None else v for n, v in group._own.items() if not callable(v)}
        if callable(group._own.get("lr")):
            known[_FUNCTION] = True
        if group._start:
            known[_START] = group._start
        if optimizer._structure.kind != "groups":
            known[_MEMBERS] = _members(optimizer, i)
        found |= {f"{_ENTRY}{i}/{name}": value for name, value in known.items()}
    return found


def _members(optimizer: Any, index: int) -> str:
    """Return which parameters a group has, as JSON."""
    keys = zip(optimizer._structure.keys, optimizer._group_of, strict=True)
    return json.dumps([key for key, group in keys if group == index])


def entries(saved: Mapping[str, Any]) -> list[str]:
    """Return the names of the entries of a checkpoint that are about groups."""
    return [name for name in saved if name == "groups" or name.startswith(_ENTRY)]


def read(optimizer: Any, saved: Mapping[str, Any]) -> dict[ParamGroup, dict[str, Any]]:
    """Return for each group its own hyperparameters in a checkpoint, checked, and when it began, as its attributes.

    Raises
    ------
    TypeError, ValueError
        If there are others in it than the optimizer has, or something of them is not acceptable.
    """
    groups = optimizer._param_groups
    count = np.asarray(saved["groups"]).tolist() if "groups" in saved else 1
    if count != len(groups):
        raise ValueError(
            f"the checkpoint must have {len(groups)} groups of parameters, as the optimizer has; got {count}"
        )
    found: dict[ParamGroup, dict[str, Any]] = {}
    names = {name: name.removeprefix(_ENTRY).partition("/") for name in entries(saved) if name != "groups"}
    for i, group in enumerate(groups):
        own = {part[2]: np.asarray(saved[name]).tolist() for name, part in names.items() if part[0] == str(i)}
        start = check_integer(f"{_ENTRY}{i}/{_START}", own.pop(_START, 0), 0, MOST_STEPS)
        members = own.pop(_MEMBERS, None)
        if members is not None and members != _members(optimizer, i):
            raise ValueError(f"groups[{i}] must have the parameters {_members(optimizer, i)}, got {members}")
        was_function = own.pop(_FUNCTION, False)
        own = {name: None if value == _NONE else value for name, value in own.items()}
        lr = group._own.get("lr")
        if callable(lr) or (was_function and lr is not None):
            own["lr"] = lr  # no checkpoint has a function
        found[group] = {"_own": optimizer._check_own(f"the checkpoint's groups[{i}]", own), "_start": start}
    if unknown := sorted(name for name, part in names.items() if part[0] not in map(str, range(len(groups)))):
        raise ValueError(f"the checkpoint has the extra entries {unknown}")
    return found


def remake(optimizer: Any, kept: Sequence[tuple[dict[str, Any], int]]) -> None:
    """Make the groups of an optimizer that is copied or was a pickle."""
    groups = (ParamGroup(optimizer, i, own, start) for i, (own, start) in enumerate(kept))
    optimizer.__dict__["_param_groups"] = tuple(groups)
