"""Groups of parameters: hyperparameters that some of the parameters have for themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._arrays.checks import check_disjoint, describe, format_of
from .._arrays.structure import Params, Structure, join
from .._engine.arrange import Plan, codecs_of, make_groups, make_states
from .._engine.extents import named_arrays
from .._engine.gather import Gather
from .._engine.plan import Group
from .._storage import formats
from .arguments import AROUND
from .beside import AVERAGE, COPY, begin_averages, formats_by_state
from .hyperparameters import Value
from .limits import Limited
from .method import Method

if TYPE_CHECKING:
    from .optimizer import Optimizer

#: What is said of the parameters of all groups together.
OF_ALL_GROUPS = (*AROUND, "reproducible")


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
        owner._set_in_group(self, self._own | checked if len(owner._param_groups) > 1 else {}, checked)

    def __delattr__(self, name: str) -> None:
        if name not in self._own:
            raise AttributeError(f"group {self._index} has no {name!r} of its own")
        self._owner._set_in_group(self, {n: value for n, value in self._own.items() if n != name}, {})

    def __repr__(self) -> str:
        count = self._owner._group_of.count(self._index)
        arrays = f"{count} array{'s' if count != 1 else ''}"
        return f"ParamGroup({', '.join([arrays, *(f'{name}={value!r}' for name, value in self._own.items())])})"


class Grouped(Limited):
    """An optimizer some of whose parameters have hyperparameters for themselves."""

    # Those of instances; without ClassVar they would be arguments.
    _param_groups: ClassVar[tuple[ParamGroup, ...]] = ()
    _methods: ClassVar[tuple[Method, ...]] = ()
    _group_of: ClassVar[list[int]]
    _groups: ClassVar[tuple[Group, ...]] = ()
    _plan: ClassVar[Plan]
    _launches: ClassVar[tuple[int, ...]] = ()
    _capturable: ClassVar[bool] = False

    def _check_own(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a group, checked; `name` is what an error calls the group."""
        for key in own:
            if key in OF_ALL_GROUPS:
                raise TypeError(f"{name} has {key!r}, which is for all groups together: give it to the optimizer")
            if key not in self._fields:
                allowed = ", ".join(field for field in self._fields if field not in OF_ALL_GROUPS)
                raise TypeError(f"{name} has {key!r}, which no group can have: params, {allowed}")
        return {key: self._fields[key].check(f"{name}.{key}", value) for key, value in own.items()}

    def _set_groups(self: Any, own: Sequence[Mapping[str, Any]], group_of: list[int], name: str) -> None:
        """Take the groups of a new optimizer."""
        if self._capturable and len(own) > 1:
            raise TypeError("capturable=True is for one group of parameters: the device works out the scalars of one")
        checked = [self._check_own(f"{name}[{i}]", hyperparameters) for i, hyperparameters in enumerate(own)]
        self.__dict__["_group_of"] = group_of
        if len(checked) == 1:
            self._set_hyperparameters(checked[0])
            checked = [{}]
        groups = tuple(ParamGroup(self, i, hyperparameters) for i, hyperparameters in enumerate(checked))
        self.__dict__["_param_groups"] = groups
        self._set_hyperparameters({})

    def _set_in_group(self: Any, group: ParamGroup, own: dict[str, Any], of_all: Mapping[str, Any]) -> None:
        """Have a group have these hyperparameters for itself, or all one where there is but one group."""
        before = group._own
        group.__dict__["_own"] = own
        try:
            self._set_hyperparameters(of_all if len(self._param_groups) == 1 else {})
        except BaseException:
            group.__dict__["_own"] = before
            raise

    def _changed(self: Any) -> None:
        super()._changed()
        if self._capturable:
            self._check_capturable()
        if len(self._param_groups) > 1:
            pairs = itertools.zip_longest(self._param_groups, self._methods)
            self.__dict__["_methods"] = tuple([self._method_of(group, method) for group, method in pairs])
        if not self._groups:
            return
        self._check_methods()
        kernels = [update._kernel_key for update in self._updates()]
        if tuple(map(kernels.index, kernels)) != self._launches:
            bound = self._plan.arrays.bound
            self._make_plan()
            if bound is not None and len(bound.given) == len(self._arrays):
                self._plan.arrays.bind_all(bound.given)
        self._plan.set_clocks(None, self._learning_rate)

    def _check_methods(self: Any) -> None:
        """Raise for what a group cannot be set to."""
        for update in self._updates():
            if update.active_states() != self._state_names:
                raise ValueError(
                    f"{type(self).__name__} has the states {self._state_names}; this would make them "
                    f"{update.active_states()}: make a new optimizer instead"
                )
            update.check_dtypes(*self._arithmetic)

    def _make_states(self: Any, copied: tuple[list[Any], list[str]]) -> None:
        """Make all arrays beside the parameters of a new optimizer, but for those that copies go to."""
        names, arrays, copies = self._state_names, self._arrays, copied[0]
        stored = [str(format_of(a.dtype)) for a in arrays]
        formats.check_rounding(self._rounding, self._master, stored)
        by_state = formats_by_state(self._state_dtype, names, type(self).__name__)
        settings = (self._rounding, self._master, by_state, names, self.squares)
        self._codecs = [codecs_of(f, *settings) for f in stored]
        self._arithmetic = {np.dtype(formats.compute_dtype(f)) for f in stored}
        self._check_methods()
        first = [method.initial_values() for method in self._updates()]
        self._states = make_states(arrays, self._codecs, names, [first[g] for g in self._group_of])
        if AVERAGE in names:
            begin_averages(arrays, self._states[AVERAGE], [own[1 + names.index(AVERAGE)] for own in self._codecs])
        if copies:
            self._states[COPY] = copies
            self._codecs = [(*own, codec) for own, codec in zip(self._codecs, copied[1], strict=True)]

    def _make_plan(self: Any) -> None:
        """Arrange the arrays for launches."""
        arrays = (self._structure, self._arrays, self._states)
        kernels = [update._kernel_key for update in self._updates()]
        names = [(*self._state_names, COPY) if self._copied else self._state_names] * len(kernels)
        settings = (self._seed, self._zero_grads, self._capturable)
        groups = tuple(make_groups(*arrays, self._codecs, names, *settings, kernels, self._group_of))
        plan = Plan(groups, Gather(self._params, self._given, *arrays, groups))
        self.__dict__.update(_groups=groups, _plan=plan, _launches=tuple(map(kernels.index, kernels)))

    def _method_of(self: Any, group: ParamGroup, old: Method | None) -> Method:
        """Return the method of a group: the old one, unless a number changed."""
        wanted = {name: self.__dict__[name] for name in self._fields} | group._own
        if old is not None and all(old.__dict__[name] is value for name, value in wanted.items()):
            return old
        method: Method = object.__new__(type(self))
        method.__dict__.update(old.__dict__ if old is not None else {"_of_group": True, "_copied": self._copied})
        method._set_hyperparameters(wanted)
        return method

    def _updates(self: Any) -> tuple[Method, ...]:
        """Return the method of each group."""
        return self._methods if len(self._param_groups) > 1 else (self,)

    def _rows(self, step: int) -> tuple[tuple[float, ...], ...]:
        """Return the scalars of a step, for each of several groups.

        A group that was added later counts its own steps; the learning rate is that of the optimizer's.
        """
        rows = []
        for group, method in zip(self._param_groups, self._methods, strict=True):
            late = group._start
            rows.append(method.values_with(step - late, method._learning_rate(step)) if late else method.values(step))
        return tuple(rows)

    def add_params(self: Any, params: Params, **hyperparameters: Value) -> None:
        """Add parameters, as a group of their own.

        Their states begin as those of a new optimizer do, and their bias corrections with step 1. Gradients that were
        bound are so no longer.

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
        own = dict(own)
        settings = {n: getattr(self, n) for n in ("state_dtype", "rounding", "master", "seed", "zero_grads")}
        settings["copy_to"] = own.pop("copy_to", None)
        if (settings["copy_to"] is None) == self._copied:
            raise TypeError(f"copy_to must {'' if self._copied else 'not '}be given, as for the other parameters")
        checked = self._check_own(f"groups[{index}]", own)
        shared = {n: self.__dict__[n] for n in self._fields}
        new = type(self)(given, **settings, **(shared | checked))
        if structure.kind not in ("groups", new._structure.kind):
            raise TypeError(f"params must be a {structure.kind}, as those of the optimizer are; got {describe(params)}")
        if both := set(structure.keys) & set(new._structure.keys) if structure.kind == "mapping" else ():
            raise ValueError(f"params has the names {sorted(map(str, both))}, which the optimizer has already")
        if new._state_names != self._state_names:
            raise ValueError(f"params would have the states {new._state_names}, others have {self._state_names}")
        named = list(named_arrays(structure, self._arrays, self._states))
        added = named_arrays(new._structure, new._arrays, new._states)
        check_disjoint([*named, *((f"the added {name}", array) for name, array in added)])
        before = dict(self.__dict__)
        self.__dict__.update(_with(self, new))
        self.__dict__["_group_of"] = [*self._group_of, *(index for _ in new._arrays)]
        late = ParamGroup(self, index, checked, self.step_count)
        self.__dict__["_param_groups"] = (*self._param_groups, late)
        try:
            self._set_hyperparameters({})
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise


def _with(optimizer: Any, new: Any) -> dict[str, Any]:
    """Return what two optimizers have together, by attribute."""
    structure, old, more = optimizer._structure, optimizer._params, new._params
    params: Any
    if structure.kind == "groups":
        structure, params = join([*structure.parts, new._structure]), [*old, more]
    elif structure.kind == "mapping":
        structure, params = Structure("mapping", (*structure.keys, *new._structure.keys)), {**old, **more}
    else:
        params = [*old, *more]
        structure = Structure("sequence", tuple(range(len(params))))
    counts, rows = (len(optimizer._arrays), len(new._arrays)), (optimizer._states, new._states)
    none = [[None] * count for count in counts]
    states = {name: rows[0].get(name, none[0]) + rows[1].get(name, none[1]) for name in {**rows[0], **rows[1]}}
    return {
        "_structure": structure,
        "_params": params,
        "_given": [*optimizer._given, *new._given],
        "_arrays": optimizer._arrays + new._arrays,
        "_codecs": optimizer._codecs + new._codecs,
        "_arithmetic": optimizer._arithmetic | new._arithmetic,
        "_states": states,
    }
