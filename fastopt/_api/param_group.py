"""A group of parameters as its user sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .optimizer import Optimizer


class ParamGroup:
    """Some parameters of an optimizer, and the hyperparameters that they have for themselves.

    Every hyperparameter of the optimizer is an attribute. One that the group was not given is the optimizer's, whatever
    that is set to; setting it here gives the group its own, and ``del group.lr`` has it follow the optimizer again.

    Attributes
    ----------
    params : list or dict
        The arrays of the group; of a mapping with their names.
    """

    _owner: Optimizer
    _own: dict[str, Any]
    _index: int
    _start: int

    def __init__(self, owner: Optimizer, index: int, own: Mapping[str, Any], start: int = 0) -> None:
        self.__dict__.update(_owner=owner, _index=index, _own=dict(own), _start=start)

    @property
    def params(self) -> Any:
        """The arrays of the group, arranged as they were given."""
        owner = self._owner
        structure, members = owner._structure, [t for t, g in enumerate(owner._group_of) if g == self._index]
        if structure.kind == "groups":
            return owner._params[self._index]
        arrays = {structure.keys[t]: owner._given[t] for t in members}
        return arrays if structure.kind == "mapping" else list(arrays.values())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._owner._fields:
            raise AttributeError(f"a group of {type(self.__dict__.get('_owner')).__name__} has no {name!r}")
        return self._own[name] if name in self._own else getattr(self._owner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        owner = self._owner
        checked = owner._check_own(f"groups[{self._index}]", {name: value})
        if len(owner._param_groups) > 1:
            owner._set_in_groups({self: {"_own": self._own | checked}})
        else:
            owner._set_hyperparameters(checked)

    def __delattr__(self, name: str) -> None:
        if name not in self._own:
            raise AttributeError(f"group {self._index} has no {name!r} of its own")
        self._owner._set_in_groups({self: {"_own": {n: value for n, value in self._own.items() if n != name}}})

    def __reduce__(self) -> tuple[Any, ...]:
        return _group, (self._owner, self._index)

    def __repr__(self) -> str:
        count = self._owner._group_of.count(self._index)
        arrays = f"{count} array{'s' if count != 1 else ''}"
        return f"ParamGroup({', '.join([arrays, *(f'{name}={value!r}' for name, value in self._own.items())])})"


def _group(optimizer: Optimizer, index: int) -> ParamGroup:
    """Return a group, for copies and pickles."""
    return optimizer._param_groups[index]
