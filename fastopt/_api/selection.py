"""How groups of parameters are given: as a sequence of mappings, or as patterns that select by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from .._arrays.structure import Structure, flatten, join

Arranged = tuple[Structure, list[Any], Any, list[dict[str, Any]], list[int], list[str]]


def arrange(params: Any, groups: Any) -> Arranged:
    """Return how parameters are arranged, and which groups there are.

    Parameters
    ----------
    params : object
        The argument of an optimizer.
    groups : mapping or None
        Likewise.

    Returns
    -------
    structure : Structure
    arrays : list
        The parameters.
    collection : object
        In which they are now; of groups the list of those of each.
    own : list of dict
        For each group, its own hyperparameters.
    group_of : list of int
        For each parameter, the group that it is in.
    names : list of str
        What errors call the groups.

    Raises
    ------
    TypeError, ValueError
        Naming what is wrong with either.
    """
    if isinstance(params, Iterator):
        params = list(params)
    if (
        isinstance(params, Sequence)
        and not isinstance(params, str | bytes)
        and any(isinstance(g, Mapping) for g in params)
    ):
        if groups is not None:
            raise TypeError("groups selects from a mapping of parameters, and params is a list of groups already")
        parts, collections, every = [], [], []
        own, group_of = list[dict[str, Any]](), list[int]()
        for i, group in enumerate(params):
            if not isinstance(group, Mapping) or "params" not in group:
                raise TypeError(
                    f"params[{i}] must be a group, {{'params': ..., 'lr': ...}}, as others of params are; got "
                    f"{type(group).__name__}{f' with {sorted(map(str, group))}' if isinstance(group, Mapping) else ''}"
                )
            structure, arrays = flatten(f"params[{i}]['params']", group["params"])
            parts.append(structure)
            collections.append(_lasting(structure, group["params"], arrays))
            own.append({name: value for name, value in group.items() if name != "params"})
            every += arrays
            group_of += [i] * len(arrays)
        return join(parts), every, collections, own, group_of, [f"params[{i}]" for i in range(len(own))]
    structure, arrays = flatten("params", params)
    collection = _lasting(structure, params, arrays)
    if groups is None:
        return structure, arrays, collection, [{}], [0] * len(arrays), ["params"]
    if structure.kind != "mapping":
        raise TypeError(
            "groups selects by name, from params that are a mapping; for others write params=[{'params': ..., 'lr': "
            "...}, ...]"
        )
    own, group_of = _selected(structure, groups)
    names = [*(f"groups[{patterns!r}]" for patterns in groups), "groups"][: len(own)]
    return structure, arrays, collection, own, group_of, names


def _lasting(structure: Structure, given: Any, arrays: list[Any]) -> Any:
    """Return the collection that was given, or the list of what came of it, if that comes but once."""
    return given if structure.kind == "array" or isinstance(given, Mapping | Sequence) else arrays


def _selected(structure: Structure, groups: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the groups that patterns select, and last that of all names that none does."""
    if not isinstance(groups, Mapping):
        raise TypeError(f"groups must be a mapping of patterns to hyperparameters, got {type(groups).__name__}")
    own: list[dict[str, Any]] = []
    found: dict[Any, int] = {}
    for patterns, hyperparameters in groups.items():
        every = (patterns,) if isinstance(patterns, str) else patterns
        if not (isinstance(every, tuple) and every and all(isinstance(pattern, str) for pattern in every)):
            raise TypeError(f"a key of groups must be a pattern such as '*.bias', or a tuple of them; got {patterns!r}")
        if not isinstance(hyperparameters, Mapping):
            raise TypeError(
                f"groups[{patterns!r}] must be a mapping of hyperparameters, got {type(hyperparameters).__name__}"
            )
        for pattern in every:
            selected = [key for key in structure.keys if fnmatchcase(str(key), pattern)]
            if not selected:
                raise ValueError(f"groups has the pattern {pattern!r}, which no name of params matches")
            for key in selected:
                found.setdefault(key, len(own))
        if len(own) not in found.values():
            raise ValueError(f"groups[{patterns!r}] is left with no parameter: patterns before it have them all")
        own.append(dict(hyperparameters))
    group_of = [found.get(key, len(own)) for key in structure.keys]
    return [*own, {}] if len(own) in group_of else own, group_of
