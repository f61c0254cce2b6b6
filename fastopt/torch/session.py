"""The step of those parameters that have gradients: one launch for all groups, whatever steps they have behind them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import setitem
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import increment_version

from .._api.limits import Limited
from .._api.method import Method
from .._arrays.checks import check_disjoint
from .._arrays.structure import Structure, join
from .._engine.arrange import Plan, make_groups
from .._engine.extents import COPY, named_arrays, spans
from .._engine.gather import Gather
from .._storage.layout import COPIES
from .clocks import Clocks
from .formulas import Formula
from .memory import FORMATS, array_of, check_apart, check_parameter, fitting, is_dense
from .shards import AllShards, check_placements, is_distributed, local_of, shard_of
from .states import Member, State, States, Storage
from .watch import Objects, Watch

_TENSOR = torch.Tensor
_TYPES = {torch.Tensor, torch.nn.Parameter}


class Session:
    """What is prepared once for the steps of some parameters of an optimizer.

    Parameters
    ----------
    owner : str
        The name of the optimizer, for errors.
    formula : Formula
    storage : Storage
    members : sequence of Member
    state : mapping of tensor to dict
        That of the optimizer; what is missing is made.
    clocks : Clocks
        Those of all parameters.
    methods : sequence of Method
        The formulas of the step.

    Attributes
    ----------
    states : States
    kernels : list
        What the kernel of each formula depends on.
    """

    def __init__(
        self,
        owner: str,
        formula: Formula,
        storage: Storage,
        members: Sequence[Member],
        state: State,
        clocks: Clocks,
        methods: Sequence[Method],
    ) -> None:
        self._owner, self._formula, self._clocks = owner, formula, clocks
        self._given = [m.p for m in members]
        self._distributed = any(map(is_distributed, self._given))
        params = self._params = [local_of(p) for p in self._given]
        label = self._label = structure_of(members)
        for t, m in enumerate(members):
            check_placements(label.label("params", t), m.p)
            check_parameter(label.label("params", t), local_of(m.key))
        # What is not dense is updated in a copy, which is written back by the launch.
        plain = [p.detach() for p in params]
        self._likes = list(map(_dense, plain))
        self._staged = [(p, like) for p, like in zip(plain, self._likes, strict=True) if like is not p]
        self._copies = [m.copy for m in members if m.copy is not None]
        copied = [None if m.copy is None else m.copy.detach() for m in members]
        self._copied = [None if copy is None else _dense(copy) for copy in copied]
        self._spread = [(c, like) for c, like in zip(copied, self._copied, strict=True) if like is not c]
        names = [label.label("params", t) for t in range(len(params))]
        outside = [p if copy is None else copy for p, copy in zip(plain, copied, strict=True)]
        if self._copies:  # below, an error would name the argument `copy_to`, which nobody gave
            likes = zip(names, self._likes, self._copied, strict=True)
            check_disjoint([(name, array_of(name, own if copy is None else copy)) for name, own, copy in likes])
        check_apart(names, outside, [not is_dense(p) for p in outside])
        self._arrays = [array_of(label.label("params", t), like) for t, like in enumerate(self._likes)]
        self.states = States(owner, formula, storage, label, members, self._likes, self._arrays, state, clocks, methods)
        self.kernels = [method._kernel_key for method in methods]
        try:
            self._make_plan(members, storage.seed)
        except BaseException:
            self.states.undo()
            raise
        self._look()

    def _make_plan(self, members: Sequence[Member], seed: int) -> None:
        """Arrange parameters for launches: all that share a group and a clock have the scalars of a step in common."""
        self._numbers = np.array([m.number for m in members], np.int64)
        clock = self._clocks.array[:, self._numbers].T.tolist()
        kinds = [(m.method, *own) for m, own in zip(members, clock, strict=True)]
        number_of = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
        self._method_of = [int(kind[0]) for kind in number_of]
        self._part_of = np.array([number_of[kind] for kind in kinds], np.int64)
        self._first = np.unique(self._part_of, return_index=True)[1]
        self._group_of = [members[t].group for t in self._first]
        every = np.array_equal(self._numbers, np.arange(self._clocks.array.shape[1]))
        self._columns = ... if every else (slice(None), self._numbers)
        self._clock, self._now = b"", self._clocks.array[:, self._numbers[self._first]].T.tolist()
        states, codecs, names = self.states.arrays, self.states.codecs, self.states.names
        if self._copies:
            label = functools.partial(self._label.label, "params")
            copies = [None if c is None else array_of(f"the copy of {label(t)}", c) for t, c in enumerate(self._copied)]
            states = {**states, COPY: copies}
            own = zip(codecs, self._copied, strict=True)
            codecs = [(*codec, *(() if c is None else (COPIES[FORMATS[c.dtype]],))) for codec, c in own]
            with_copies = {m.method for m in members if m.copy is not None}
            names = [[*own, COPY] if k in with_copies else own for k, own in enumerate(names)]
        groups = make_groups(
            self._label,
            self._arrays,
            states,
            codecs,
            [names[k] for k in self._method_of],
            seed,
            False,
            False,
            [self.kernels[k] for k in self._method_of],
            self._part_of.tolist(),
        )
        written = list(named_arrays(self._label, self._arrays, states))
        check_disjoint(written)
        self._gather = Gather(tuple(self._arrays), self._arrays, self._label, self._arrays, states, groups)
        self._plan, self._written = Plan(groups, self._gather), spans([a for _, a in written])
        for group in groups:
            if COPY in states and (copy := states[COPY][group.indices[0]]) is not None:
                group.use_dtype(copy.dtype)  # in which gradients come
        self._changed = [*self._params, *filter(is_distributed, self._given), *self._copies]
        #: Whether a step writes nothing by PyTorch's operations.
        self.plain = not (self._distributed or self._copies or self._staged)

    def _look(self) -> None:
        """Note what must be the same at the next step."""
        params, both = self._params, [*self._params, *self._copies]
        self._objects = Objects(params)
        # A gradient lies as what it is for, in the dtype of its copy if there is one.
        each = zip(self._copied, self._likes, strict=True)
        likes = self._gradients = [like if copy is None else copy for copy, like in each]
        self._watch, self._watch_grads = Watch(both, set(map(type, both))), Watch(likes, _TYPES)
        self._complex = any(p.is_complex() for p in params)
        self._cpus = [not p.is_cuda for p in params]
        self._lengths = np.array([like.numel() * like.element_size() for like in likes], np.int64)
        self._order = np.array(self._gather._tensors, np.int64)
        self._last: bytes | None = None  # where gradients were at the last step

    def in_place(self, params: list[torch.Tensor], state: State) -> bool:
        """Say whether these are the parameters of the session, and everything is where it was."""
        if self._distributed:
            params = [local_of(p) for p in params]
        if not self._objects.are(params):
            return False
        places = self._watch.where([*params, *self._copies])
        return places is not None and places.tobytes() == self._watch.places and self.states.fit(state)

    def in_step(self) -> bool:
        """Say whether those of its parameters that have their scalars in common still have a clock in common."""
        if self._clocks.array.tobytes() == self._clock:  # as the last step left them
            return True
        clock = self._clocks.array[:, self._numbers]
        self._now = clock[:, self._first].T.tolist()
        return bool((clock == clock[:, self._first][:, self._part_of]).all())

    def step(
        self, grads: list[torch.Tensor], groups: Sequence[dict[str, Any]], methods: Sequence[Method], lead: Limited
    ) -> bool:
        """Take a step, and say so; or leave it out for its gradients.

        Parameters
        ----------
        grads : sequence of torch.Tensor
        groups : sequence of dict
            Those of the optimizer.
        methods : sequence of Method
            The formulas.
        lead : Limited
            What knows how gradients are limited.
        """
        formula, plan, array = self._formula, self._plan, self._clocks.array
        rows, after = [], []
        for k, g, own in zip(self._method_of, self._group_of, self._now, strict=True):
            group, clock = groups[g], tuple(own)
            rows.append(formula.row(methods[k], group, formula.rate(group), clock))
            after.append(formula.after(group, clock))
        counted = np.array(after, array.dtype)
        try:
            alive = self._read(grads)
            plan.prepare([methods[g] for g in self._method_of], rows, None)
            columns = counted.T if len(after) == 1 else counted.T[:, self._part_of]
            calls: list[tuple[Any, ...]] = [(setitem, array, self._columns, columns)]
            if lead._of_all:
                if self._distributed and not isinstance(plan.reduction, AllShards):
                    plan.__dict__["reduction"] = AllShards(plan.reduction, self._label, self._given)
                lead.__dict__.update(_plan=plan, _arrays=self._arrays, _structure=self._label)
                norm = lead._limit(rows, None)
                if norm is None:
                    return False
                calls.append((setitem, lead.__dict__, "_grad_norm", norm))
            self._begin()
            written = [*self._staged, *self._spread]
            self._run(
                int(max(clock[0] for clock in after)), *calls, *((_TENSOR.copy_, p, stage) for p, stage in written)
            )
        finally:
            plan.release()
        self.states.keep()
        self._clock, self._now = array.tobytes(), counted.tolist()
        increment_version(self._changed)  # so that autograd knows, as of every change in place
        del alive
        return True

    def _begin(self) -> None:
        """Bring what is updated up to date, when nothing can fail any more."""
        for p, stage in self._staged:
            stage.copy_(p)

    def _run(self, step: int, *calls: tuple[Any, ...]) -> None:
        """Launch the step, and make calls after it."""
        self._plan.run(step, *calls)

    def _read(self, grads: list[torch.Tensor]) -> Sequence[Any]:
        """Check gradients, and have the plan take where they are; return what must live until the launch."""
        if self._distributed:
            pairs = enumerate(zip(grads, self._given, strict=True))
            grads = [shard_of(self._label.label("grads", t), g, p) for t, (g, p) in pairs]
        if not all(self._cpus):
            arrays = [array_of(self._label.label("grads", t), g) for t, g in enumerate(self._fitted(grads))]
            self._plan.gather(arrays)
            return arrays
        alive = grads
        starts = None if self._negated(grads) else self._watch_grads.where(grads)
        if starts is not None and starts.tobytes() == self._last:
            return alive
        if starts is None or ((starts == 0) & (self._lengths > 0)).any():  # a gradient without memory
            alive = self._fitted(grads)
            starts = np.array(list(map(_TENSOR.data_ptr, alive)), np.int64)
        if starts.tobytes() != self._last:
            before = np.searchsorted(self._written[0], starts + self._lengths) - 1
            ends = self._written[1][before] if len(self._written[1]) else np.zeros(len(before), np.int64)
            shared = (before >= 0) & (ends > starts) & (self._lengths > 0)
            if shared.any():  # memory with what is written: they are read as they are now
                alive = list(alive)
                for t in np.flatnonzero(shared):
                    alive[t] = torch.empty_like(self._gradients[t]).copy_(alive[t].detach())
                    starts[t] = alive[t].data_ptr()
            self._gather._found[:] = starts[self._order]
            self._last = starts.tobytes()
        return alive

    def _negated(self, grads: Sequence[torch.Tensor]) -> bool:
        """Say whether some gradients are read as something else than what their memory has."""
        return any(map(_TENSOR.is_neg, grads)) or (self._complex and any(map(_TENSOR.is_conj, grads)))

    def _fitted(self, grads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradients, and copies of those that lie in another way."""
        each = enumerate(zip(grads, self._gradients, strict=True))
        return [fitting(self._label.label("grads", t), self._owner, g, like) for t, (g, like) in each]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, or memory for its elements side by side."""
    return tensor if is_dense(tensor) else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def structure_of(members: Sequence[Member]) -> Structure:
    """Return how an error names the arrays of a session."""
    places: list[list[int]] = [[] for _ in range(1 + max(m.group for m in members))]
    for m in members:
        places[m.group].append(m.place)
    return join([Structure("sequence", tuple(own)) for own in places])
