"""The states of parameters: PyTorch's tensors, by its names, and the same memory as the engine takes it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._api.method import Method
from .._arrays.structure import Structure
from .._engine.arrange import codecs_of, make_states, rows_of_states
from .._storage import formats
from .._storage.int8 import BLOCK
from .clocks import Clocks
from .formulas import Formula
from .memory import FORMATS, Layout, array_of, layout_of
from .shards import distributed_as, is_distributed, is_whole, local_of, shard_of
from .watch import Objects, Watch

_TENSOR = torch.Tensor
State = Mapping[torch.Tensor, dict[str, Any]]


class Storage(NamedTuple):
    """How an optimizer stores numbers, as fastopt's have it."""

    state_dtype: formats.StateDtypes
    rounding: formats.Rounding
    master: formats.Master | None
    seed: int


class Member(NamedTuple):
    """A parameter that has a gradient.

    Attributes
    ----------
    group, place : int
        Which group of the optimizer it is in, and where there.
    number : int
        Which of all parameters of the optimizer it is.
    key : torch.Tensor
        The parameter itself, by which its state is found.
    p : torch.Tensor
        What is updated: the parameter, or a weight that is kept for it.
    method : int
        Which of the formulas of a step is its own.
    copy : torch.Tensor or None
        Where the step writes a copy, in the dtype that its gradients have.
    """

    group: int
    place: int
    number: int
    key: torch.Tensor
    p: torch.Tensor
    method: int
    copy: torch.Tensor | None = None


class States:
    """The states of some parameters; what an optimizer lacks of them is made.

    Parameters
    ----------
    owner : str
        The name of the optimizer, for errors.
    formula : Formula
    storage : Storage
    label : Structure
        How an error names parameters.
    members : sequence of Member
    likes : sequence of torch.Tensor
        What is updated in the place of each.
    arrays : sequence
        The same as the engine takes it.
    state : mapping of tensor to dict
        That of the optimizer.
    clocks : Clocks
    methods : sequence of Method
        The formulas of a step.

    Attributes
    ----------
    codecs : list of tuple of str
        Of each parameter and its states.
    names : list of list of str
        Which states the parameters of each formula have.
    arrays : dict of str to list
        All arrays of a state, for each parameter or None, as the engine takes them.
    """

    def __init__(
        self,
        owner: str,
        formula: Formula,
        storage: Storage,
        label: Structure,
        members: Sequence[Member],
        likes: Sequence[torch.Tensor],
        arrays: Sequence[Any],
        state: State,
        clocks: Clocks,
        methods: Sequence[Method],
    ) -> None:
        keys = formula.keys
        self._storage, self._label = storage, label
        self.names = [[keys[name] for name in method.active_states()] for method in methods]
        wanted = formats.by_state(storage.state_dtype, [*keys.values()], owner)
        squares = [keys[name] for method in methods for name in method.squares]
        self.codecs = [
            codecs_of(FORMATS[m.p.dtype], storage.rounding, storage.master, wanted, self.names[m.method], squares)
            for m in members
        ]
        #: What was not there: it goes if the first step is not taken.
        self._made: list[tuple[dict[str, Any], str]] = []
        layouts = [
            self._layouts(t, m.p, self.names[m.method], like, a.size)
            for t, (m, like, a) in enumerate(zip(members, likes, arrays, strict=True))
        ]
        try:
            self._make(keys, members, arrays, state, clocks, methods, layouts)
        except BaseException:
            self.undo()
            raise
        every = dict.fromkeys(key for own in layouts for key in own)
        self.arrays = {
            key: [
                array_of(self._named(key, t), local_of(state[m.key][key])) if key in layouts[t] else None
                for t, m in enumerate(members)
            ]
            for key in every
        }
        self._all = Objects(list(state.values()))
        self._held = [(key, [state[m.key] for t, m in enumerate(members) if key in layouts[t]]) for key in every]
        self._held += [(key, [state[m.key] for m in members]) for key in clocks.keys]
        tensors = [[own[key] for own in dicts] for key, dicts in self._held]
        self._tensors = list(map(Objects, tensors))
        self._owned = [tensor for own in tensors[: len(every)] for tensor in own]
        self._distributed = any(map(is_distributed, self._owned))
        self._arrays_held = [local_of(tensor) for tensor in self._owned]
        self._locals = Objects(self._arrays_held)
        self._watch = Watch(self._arrays_held, set(map(type, self._arrays_held)))

    def _make(
        self,
        keys: Mapping[str, str],
        members: Sequence[Member],
        arrays: Sequence[Any],
        state: State,
        clocks: Clocks,
        methods: Sequence[Method],
        layouts: Sequence[Mapping[str, Layout]],
    ) -> None:
        """Make what is missing, and what is there and does not lie as it must."""
        lacking: dict[int, list[int]] = {}
        for t, m in enumerate(members):
            own = state[m.key] if layouts[t] or clocks.keys else {}
            self._made += [(own, key) for key in clocks.bind(m.number, own)]
            if not all(_fits(own.get(key), layout, m.p) for key, layout in layouts[t].items()):
                lacking.setdefault(m.method, []).append(t)
        for method, few in lacking.items():
            first = {keys[name]: value for name, value in methods[method].initial_values().items()}
            codecs = [self.codecs[t] for t in few]
            made = make_states([arrays[t] for t in few], codecs, self.names[method], [first] * len(few))
            for k, t in enumerate(few):
                m = members[t]
                self._take(t, m.p, state[m.key], {key: row[k] for key, row in made.items()}, layouts[t])

    def _named(self, key: str, t: int) -> str:
        return f"the state {key!r} of {self._label.label('params', t)}"

    def _layouts(
        self, t: int, p: torch.Tensor, names: Sequence[str], like: torch.Tensor, size: int
    ) -> dict[str, Layout]:
        """Return how the states of a parameter lie in memory, by name."""
        codecs = self.codecs[t]
        codec_of = dict(zip(names, codecs[1:], strict=True))
        found = {}
        for key, dtype, per_block in rows_of_states(codecs, names):
            layout = layout_of(like, dtype, codec_of.get(key, ""), -(-size // BLOCK) if per_block else None)
            # By its kind, which is the same in all processes, and not by its shape: a shard may be empty.
            if (per_block or layout.dtype.is_complex is not like.is_complex()) and not is_whole(p):
                raise TypeError(
                    f"{self._named(key, t)} is in one dimension, with state_dtype={self._storage.state_dtype!r}, and "
                    f"cannot be sharded as its parameter is, {p.placements}: "  # type: ignore[attr-defined]
                    "give a state_dtype other than int8, and to complex parameters none"
                )
            found[key] = layout
        return found

    def _take(
        self, t: int, p: torch.Tensor, own: dict[str, Any], made: Mapping[str, Any], layouts: Mapping[str, Layout]
    ) -> None:
        """Have new arrays be the states of a parameter, with the numbers of those that there are."""
        new = {key: layout.of(made[key]) for key, layout in layouts.items()}
        tensors = {key: own[key] for key in new if isinstance(own.get(key), _TENSOR)}
        there = {key: shard_of(self._named(key, t), tensor, p) for key, tensor in tensors.items()}
        for key, old in there.items():
            numbers = [x.dtype.is_floating_point or x.dtype.is_complex for x in (old, new[key])]
            if numbers[0] != numbers[1] or old.shape != new[key].shape:
                raise ValueError(
                    f"{self._named(key, t)} must have {new[key].dtype} and the shape {tuple(new[key].shape)}, with "
                    f"state_dtype={self._storage.state_dtype!r}, rounding={self._storage.rounding!r} and master="
                    f"{self._storage.master!r}; got {old.dtype} and {tuple(old.shape)}"
                )
        for key, tensor in new.items():
            if key in there:
                tensor.copy_(there[key].detach())
            else:
                self._made.append((own, key))
            own[key] = distributed_as(p, tensor)

    def made(self, own: dict[str, Any], key: str) -> None:
        """Have what was made of the state of a parameter go, too, if the first step is not taken."""
        self._made.append((own, key))

    def keep(self) -> None:
        """Keep the states that were made."""
        self._made.clear()

    def undo(self) -> None:
        """Let go of the states that were made for a step that was not taken."""
        for own, key in self._made:
            own.pop(key, None)

    def fit(self, state: State) -> bool:
        """Say whether these are still the states, and where they were."""
        if not self._all.are(list(state.values())):
            return False
        try:
            now = [list(map(operator.itemgetter(key), dicts)) for key, dicts in self._held]
        except KeyError:
            return False
        if not all(map(Objects.are, self._tensors, now)):
            return False
        if self._distributed and not self._locals.are(list(map(local_of, self._owned))):
            return False
        places = self._watch.where(self._arrays_held)
        return places is not None and places.tobytes() == self._watch.places


def _fits(tensor: Any, layout: Layout, p: torch.Tensor) -> bool:
    """Say whether a tensor can be a state of a parameter as it is."""
    if not isinstance(tensor, _TENSOR) or is_distributed(tensor) is not is_distributed(p):
        return False
    return getattr(tensor, "placements", None) == getattr(p, "placements", None) and layout.fits(
        local_of(tensor), local_of(p).device
    )
