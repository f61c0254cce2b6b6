"""Groups of parameters: hyperparameters that some of the parameters have for themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from .._arrays.checks import format_of
from .._engine.arrange import Plan, codecs_of, make_groups, make_states
from .._engine.extents import AVERAGE, COPY
from .._engine.gather import Gather
from .._engine.plan import Group
from .._storage import formats
from .arguments import AROUND
from .beside import begin_averages, formats_by_state
from .limits import Limited
from .method import Method
from .param_group import ParamGroup

#: What is said of the parameters of all groups together.
OF_ALL_GROUPS = (*AROUND, "reproducible")
#: What is no hyperparameter.
_DIFFERS = object()


def _same(kernels: list[Any]) -> tuple[int, ...]:
    """Return for each group the first that has the same kernel."""
    return tuple(map(kernels.index, kernels))


class Grouped(Limited):
    """An optimizer some of whose parameters have hyperparameters for themselves."""

    # Those of instances; without ClassVar they would be arguments.
    _param_groups: ClassVar[tuple[ParamGroup, ...]] = ()
    _methods: ClassVar[tuple[Method, ...]] = ()
    _group_of: ClassVar[list[int]]
    _groups: ClassVar[tuple[Group, ...]] = ()
    _plan: ClassVar[Plan]
    _launches: ClassVar[tuple[int, ...]] = ()
    _shared: ClassVar[dict[str, Any]] = {}
    _zero_grads: ClassVar[bool] = False
    _copy_to: ClassVar[Any] = None
    _capturable: ClassVar[bool] = False

    def _check_own(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyperparameters of a group, checked; `name` is what an error calls the group."""
        for key in own:
            if key in OF_ALL_GROUPS:
                raise TypeError(f"{name} has {key!r}, which is for all groups together: give it to the optimizer")
            if key not in self._fields:
                allowed = ", ".join(field for field in self._fields if field not in OF_ALL_GROUPS)
                raise TypeError(f"{name} has {key!r}; a group has params, {allowed}")
        return {key: self._fields[key].check(f"{name}.{key}", value) for key, value in own.items()}

    def _set_groups(self: Any, own: Sequence[Mapping[str, Any]], group_of: list[int], names: Sequence[str]) -> None:
        """Take the groups of a new optimizer; `names` are what errors call them."""
        if self._capturable and len(own) > 1:
            raise TypeError("capturable=True is for one group of parameters: the device works out the scalars of one")
        checked = [self._check_own(name, hyperparameters) for name, hyperparameters in zip(names, own, strict=True)]
        self.__dict__["_group_of"] = group_of
        if len(checked) == 1:
            self._set_hyperparameters(checked[0])
            checked = [{}]
        groups = tuple(ParamGroup(self, i, hyperparameters) for i, hyperparameters in enumerate(checked))
        self._set_attributes({"_param_groups": groups})

    def _set_in_groups(
        self, changes: Mapping[ParamGroup, Mapping[str, Any]], hyperparameters: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Set attributes of groups, and hyperparameters of the optimizer; nothing if something of them cannot be."""
        before = {group: dict(group.__dict__) for group in changes}
        for group, attributes in changes.items():
            group.__dict__.update(attributes)
        try:
            self._set_hyperparameters(hyperparameters)
        except BaseException:
            for group, attributes in before.items():
                group.__dict__.update(attributes)
            raise

    def _changed(self: Any) -> None:
        super()._changed()
        if self._capturable:
            self._check_capturable()
        if len(self._param_groups) > 1:
            now = self.__dict__
            shared = {name: now[name] for name in self._fields}
            pairs = itertools.zip_longest(self._param_groups, self._methods)
            now["_methods"] = tuple([self._method_of(group, method, shared) for group, method in pairs])
            now["_shared"] = shared
        if not self._groups:
            return
        self._check_methods()
        if _same(self._kernels()) != self._launches:
            bound = self._plan.arrays.bound
            self._make_plan()
            if bound is not None and len(bound.given) == len(self._arrays):
                self._plan.arrays.bind_all(bound.given)
        else:
            self._use_limits()
        self._plan.set_clocks(None, self._learning_rate)

    def _check_methods(self: Any) -> None:
        """Raise for what a group cannot be set to."""
        for i, update in enumerate(self._updates()):
            if update.active_states() != self._state_names:
                those = f"those of groups[{i}]" if i else "them"
                raise ValueError(
                    f"{type(self).__name__} has the states {self._state_names}; this would make {those} "
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
        kernels = self._kernels()
        names = [(*self._state_names, COPY) if self._copied else self._state_names] * len(kernels)
        settings = (self._seed, self._zero_grads, self._capturable)
        groups = tuple(make_groups(*arrays, self._codecs, names, *settings, kernels, self._group_of))
        plan = Plan(groups, Gather(self._params, self._given, *arrays, groups))
        skipped = self.skipped if self._groups else 0  # also of what the GPU skipped for the old plan
        self.__dict__.update(_groups=groups, _plan=plan, _launches=_same(kernels), _skipped=skipped)
        self._use_limits()

    def _kernels(self) -> list[Any]:
        """Return what the kernel of each group depends on beside codecs."""
        return [update._kernel_key for update in self._updates()]

    def _method_of(self: Any, group: ParamGroup, old: Method | None, shared: dict[str, Any]) -> Method:
        """Return the method of a group: the old one, unless a number changed."""
        before = self._shared
        same = not self._setters and all(value is before.get(name, _DIFFERS) for name, value in shared.items())
        if same and old is not None and old._own is group._own:
            return old
        first = {"_of_group": True, "_copied": self._copied, "_whole": self} if old is None else old.__dict__
        method: Method = self._alone(shared | group._own, **(first | {"_own": group._own}))
        return method

    def _updates(self: Any) -> tuple[Method, ...]:
        """Return the method of each group."""
        return self._methods if len(self._param_groups) > 1 else (self,)

    def _rows(self, step: int) -> tuple[tuple[float, ...], ...]:
        """Return the scalars of a step, for each of several groups.

        A group that was added later counts its own steps; the learning rate is that of the optimizer's. Schedules come
        first, which are the caller's code and may change the rest.
        """
        rates = [method._learning_rate(step) for method in self._methods]
        each = zip(self._param_groups, self._methods, rates, strict=True)
        return tuple([method.values_with(step - group._start, rate) for group, method, rate in each])
