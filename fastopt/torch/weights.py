"""The weights that a step updates in the place of parameters, and the step that brings the parameters up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .._arrays.checks import Array
from .._engine import signals, threads
from .._engine.allocation import Place
from .._engine.plan import Group
from .link import Far, Links, laid_out
from .memory import check_apart, lies, pooled
from .session import Session, structure_of
from .states import Member

#: The name of the weight of a parameter in its state, and of what `master` and `rounding` keep beside one.
MASTER, _BESIDE = "master", ("low", "compensation")


class Weights:
    """The weights of the parameters of an optimizer.

    Each is in the state of its parameter, but where the parameter is its own weight.

    Parameters
    ----------
    state : mapping of tensor to dict
        That of the optimizer.
    links : Links
    """

    def __init__(self, state: Mapping[torch.Tensor, dict[str, Any]], links: Links) -> None:
        self._state, self._links = state, links
        self._seen: dict[torch.Tensor, tuple[int, int]] = {}  # how parameters were when they had what the weights say

    def of(self, params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the weights of parameters; the parameter itself where there is none."""
        return [self._state.get(p, {}).get(MASTER, p) for p in params]

    def find(
        self, names: Sequence[str], params: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype]
    ) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
        """Return the weights of parameters, made of them where there are none yet, and the states that have new ones.

        Raises
        ------
        ValueError
            If there is one, from a checkpoint, and it is none for its parameter; none was made then.
        """
        for name, p, dtype in zip(names, params, dtypes, strict=True):
            old = self._state[p].get(MASTER)
            if old is not None and (old.dtype is not dtype or old.shape != p.shape):
                raise ValueError(
                    f"the state {MASTER!r} of {name} must have {dtype} and the shape {tuple(p.shape)}; got {old.dtype} "
                    f"and {tuple(old.shape)}"
                )
        found, lacking = list(params), list[int]()
        for t, (p, dtype) in enumerate(zip(params, dtypes, strict=True)):
            link, own = self._links.of(p), self._state[p]
            if link.holds(p, dtype):
                own.pop(MASTER, None)
            elif MASTER in own and link.fits(p, own[MASTER]):
                found[t] = own[MASTER]
            else:
                lacking.append(t)
        made = []
        for t, new in zip(lacking, self._room([params[t] for t in lacking], [dtypes[t] for t in lacking]), strict=True):
            p = params[t]
            if MASTER not in self._state[p]:
                made.append(self._state[p])
                self._seen[p] = _looks(p)
            new.copy_(self._state[p].get(MASTER, p).detach())
            found[t] = self._state[p][MASTER] = new
        return found, made

    def _room(self, params: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype]) -> list[torch.Tensor]:
        """Return memory for the weights of parameters, together but for what is pinned."""
        pins = [self._links.of(p).pins(p, dtype) for p, dtype in zip(params, dtypes, strict=True)]
        likes = [
            laid_out(p, dtype, pin_memory=True) if pinned else laid_out(p, dtype, "meta")
            for p, dtype, pinned in zip(params, dtypes, pins, strict=True)
        ]
        rest = [like for like in likes if like.is_meta]
        made = iter(pooled(list(map(lies, rest)), [Place.beside(0, like.nbytes, 0, 1) for like in rest]))
        return [next(made) if like.is_meta else like for like in likes]

    def take_over(self, members: Sequence[Member]) -> None:
        """Take what others wrote into parameters since the last step; what they left keeps its further digits.

        Of a parameter that is its own weight it is not known what that was: all bits that are kept beside become 0.
        """
        for m in members:
            seen = self._seen.get(m.key)
            if seen == _looks(m.key):
                continue
            changed: Any = ...
            if m.p is not m.key:
                now, weight = m.key.detach().cpu(), m.p
                rounded = weight.to(now.dtype)
                if torch.equal(now, rounded):
                    continue
                changed = (now != rounded) & ~(now.isnan() & rounded.isnan())
                weight[changed] = now[changed].to(weight.dtype)
            elif seen is None:  # it may be from the checkpoint that its state is from
                continue
            for name in _BESIDE:
                if name in self._state[m.key]:
                    self._state[m.key][name][changed] = 0

    def note(self, members: Sequence[Member]) -> None:
        """Note how parameters are, which have what their weights say."""
        self._seen.update((m.key, _looks(m.key)) for m in members)


def _looks(p: torch.Tensor) -> tuple[int, int]:
    """Return what is another number when a parameter was written to."""
    return p._version, p.data_ptr()


class Apart(Session):
    """The step of weights that stand for parameters.

    Parameters
    ----------
    members : sequence of Member
    weights : Weights
    links : Links
    bucket_bytes : int
        How much goes up at a time, at least.
    others
        As for :class:`Session`.
    """

    def __init__(
        self,
        owner: str,
        formula: Any,
        storage: Any,
        members: Sequence[Member],
        state: Any,
        clocks: Any,
        methods: Any,
        *,
        weights: Weights,
        links: Links,
        bucket_bytes: int,
    ) -> None:
        far = [m for m in members if isinstance(links.of(m.key), Far)]
        if far:
            label = structure_of(far)
            names = [label.label("params", t) for t in range(len(far))]
            check_apart(names, [m.key.detach() for m in far], [True] * len(far))
        super().__init__(owner, formula, storage, members, state, clocks, methods)
        self._members, self._weights, self._bucket = list(members), weights, bucket_bytes
        self._far = {m.number: link for m in members if isinstance(link := links.of(m.key), Far)}
        groups = self._plan._on_cpu if self._far else []
        self._parts = [(group, list(self._cut(group))) for group in groups]

    def _cut(self, group: Group) -> Any:
        """Yield the parts in which a group is updated: which pieces of work it has, and which members go up then."""
        first, sent, last = 0, 0, len(group.indices) - 1
        for t, index in enumerate(group.indices):
            key = self._members[index].key
            sent += key.numel() * key.element_size()
            if sent >= self._bucket or t == last:
                ends = np.searchsorted(group.chunks[:, 0], [first, t + 1])
                yield _between(group.items, *ends.tolist()), [self._members[i] for i in group.indices[first : t + 1]]
                first, sent = t + 1, 0

    def step(self, *arguments: Any) -> bool:
        """See the class it is of."""
        taken = super().step(*arguments)
        if taken:
            self._weights.note(self._members)
        return taken

    def _begin(self) -> None:
        self._weights.take_over(self._members)
        super()._begin()

    def _run(self, step: int, *calls: tuple[Any, ...]) -> None:
        """Update part by part, each of which goes up while the next is updated."""
        if not self._far:
            super()._run(step, *calls)
            return
        with signals.deferred():
            for link in dict.fromkeys(self._far.values()):
                link.begin()
            for group, parts in self._parts:
                kernels, (table, _, *others) = group.launch(step)
                for items, members in parts:
                    threads.launch([(kernels, (table, items, *others))])
                    for m in members:
                        if m.number in self._far:
                            self._far[m.number].send(m.key)
            for link in dict.fromkeys(self._far.values()):
                link.end()
            threads.launch([], *calls)


def _between(items: Array, first: int, last: int) -> Array:
    """Return the pieces of work of the chunks from one to another."""
    inside = items[(items > first) & (items < last)]
    return np.concatenate([[first], inside, [last]]).astype(np.int64)
