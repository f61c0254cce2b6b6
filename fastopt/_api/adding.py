"""Parameters that are added to an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._arrays.checks import check_disjoint, describe
from .._arrays.structure import Params, Structure, join
from .._engine.extents import named_arrays
from .groups import Grouped
from .hyperparameters import Value
from .param_group import ParamGroup


class Growing(Grouped):
    """An optimizer to which parameters can be added."""

    def add_params(self: Any, params: Params, **hyperparameters: Value) -> None:
        """Add parameters, as a group of their own.

        Their states begin as those of a new optimizer do, and their bias corrections with step 1; a schedule is asked
        for the step of the optimizer. Gradients that were bound are so no longer. The collection that the optimizer was
        made of stays as it is, and is not looked at from then on: :attr:`params` is another.

        Parameters
        ----------
        params : sequence or mapping
            Arranged as the parameters that there are: a sequence comes after them, a mapping has other names. Where
            there are groups, what the ``"params"`` of a group can be, or a whole group.
        **hyperparameters
            Those that they have for themselves; and `copy_to` where the other parameters have copies.

        Raises
        ------
        TypeError, ValueError
            As for a new optimizer, and if the optimizer is of one array or `capturable`; nothing has changed then.
        """
        structure, given = self._structure, params
        own: dict[str, Any] = hyperparameters
        if structure.kind == "array" or self._capturable:
            what = "capturable=True" if self._capturable else "one array as its params"
            raise TypeError(f"nothing can be added to an optimizer with {what}")
        if structure.kind == "groups" and isinstance(params, Mapping) and "params" in params:
            own = {n: v for n, v in params.items() if isinstance(n, str) and n != "params"} | hyperparameters
            given = params["params"]
        index = len(self._param_groups)
        settings = {n: getattr(self, n) for n in ("state_dtype", "rounding", "master", "seed", "zero_grads")}
        settings["copy_to"] = own.pop("copy_to", None)
        if (settings["copy_to"] is None) == self._copied:
            raise TypeError(f"copy_to must {'' if self._copied else 'not '}be given, as for the other parameters")
        checked = self._check_own(f"groups[{index}]", own)
        shared = {n: self.__dict__[n] for n in self._fields}
        new = type(self)(given, **settings, **(shared | checked))
        if new._structure.kind == "groups":
            raise TypeError("params must be those of one group: add one after the other")
        if structure.kind not in ("groups", new._structure.kind):
            raise TypeError(f"params must be a {structure.kind}, as those of the optimizer are; got {describe(params)}")
        if both := set(structure.keys) & set(new._structure.keys) if structure.kind == "mapping" else ():
            raise ValueError(f"params has the names {sorted(map(str, both))}, which the optimizer has already")
        if new._state_names != self._state_names:
            raise ValueError(f"params would have the states {new._state_names}, others have {self._state_names}")
        named = list(named_arrays(structure, self._arrays, self._states))
        added = named_arrays(new._structure, new._arrays, new._states)
        check_disjoint([*named, *((f"the added {name}", array) for name, array in added)])
        late = ParamGroup(self, index, checked, self.step_count)
        groups = {
            "_param_groups": (*self._param_groups, late),
            "_group_of": [*self._group_of, *(index for _ in new._arrays)],
        }
        self._set_attributes(_with(self, new) | groups)


def _joined(structure: Structure, old: Any, more: Any) -> Any:
    """Return collections that are arranged in one way, as one; None of none."""
    if old is None or structure.kind == "groups":
        return None if old is None else [*old, more]
    return {**old, **more} if structure.kind == "mapping" else [*old, *more]


def _with(optimizer: Any, new: Any) -> dict[str, Any]:
    """Return what two optimizers have together, by attribute."""
    structure = optimizer._structure
    params = _joined(structure, optimizer._params, new._params)
    if structure.kind == "groups":
        structure = join([*structure.parts, new._structure])
    elif structure.kind == "mapping":
        structure = Structure("mapping", (*structure.keys, *new._structure.keys))
    else:
        structure = Structure("sequence", tuple(range(len(params))))
    counts, rows = (len(optimizer._arrays), len(new._arrays)), (optimizer._states, new._states)
    none = [[None] * count for count in counts]
    states = {name: rows[0].get(name, none[0]) + rows[1].get(name, none[1]) for name in {**rows[0], **rows[1]}}
    return {
        "_structure": structure,
        "_params": params,
        "_given": [*optimizer._given, *new._given],
        "_copy_to": _joined(structure, optimizer._copy_to, new._copy_to),
        "_arrays": optimizer._arrays + new._arrays,
        "_codecs": optimizer._codecs + new._codecs,
        "_arithmetic": optimizer._arithmetic | new._arithmetic,
        "_states": states,
    }
