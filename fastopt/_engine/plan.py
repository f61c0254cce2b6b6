"""The plan of a step: where the arrays are, how they are cut into chunks, and the launch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.checks import Array, fits, format_of
from .._arrays.structure import Structure
from .._arrays.view import view_of
from .._kernels import compiler
from .._kernels.compiler import Spec
from .._storage.layout import ZEROED
from . import threads
from .chunks import chunks_of
from .norms import HostNorms
from .scalars import ScalarTable, Update


class Members(NamedTuple):
    """What a group is made of.

    Attributes
    ----------
    structure : Structure
        How the caller arranged the parameters, for the error messages.
    indices : sequence of int
        Which of the caller's arrays belong to the group.
    params : sequence of ndarray or View
        The parameters of the group.
    states : sequence of sequence of ndarray or View
        For each array of a tensor after the parameter, one per parameter.
    own : tuple of str
        The codecs of the parameter and the states.
    seed : int
        Of stochastic rounding.
    zeroed : bool
        Whether gradients are left at 0.
    param_groups : sequence of int
        For each parameter, which of the groups of parameters it is in.
    """

    structure: Structure
    indices: Sequence[int]
    params: Sequence[Any]
    states: Sequence[Sequence[Any]]
    own: tuple[str, ...]
    seed: int
    zeroed: bool
    param_groups: Sequence[int]


class Group:
    """The tensors of one format, updated by one launch.

    Attributes
    ----------
    rows : list of int
        The groups of parameters that these are in, whose scalars the launch takes.
    found : ndarray of int64
        The addresses of the gradients of the next step; :class:`fastopt._engine.gather.Gather` owns and fills it.
    grad_dtype : numpy.dtype
        The dtype of the gradients.
    format : str
        That format.
    codecs : tuple of str
        Those of the gradient, the parameter and the states.
    """

    def __init__(self, members: Members) -> None:
        self.structure, self.indices, self.params, self.states, self.own, self.seed, self.zeroed, self.param_groups = (
            members
        )
        self._all = list(self.indices) == list(range(len(self.structure.keys)))
        self.dtype = self.params[0].dtype
        self.elements = sum(p.size for p in self.params)
        rows = [[0] * len(self.params), *([view_of(a).address for a in row] for row in (self.params, *self.states))]
        self.table = np.array(rows, np.uint64)
        self._row = self.table[0].view(np.int64).data
        self.use_dtype(self.dtype)
        self.items, self.chunks = chunks_of([p.size for p in self.params])
        self.spec: Spec | None = None
        self.rows = sorted(set(self.param_groups))
        self._first = self.rows[0]
        self.groups = np.array([self.rows.index(g) for g in self.param_groups], np.int64)
        self.group_count = len(self.rows)
        self.values = ScalarTable(self.group_count, 0, np.dtype(np.float64))
        self._norms: HostNorms | None = None

    @property
    def found(self) -> Array:
        """See the attributes of the class."""
        return self._found

    @found.setter
    def found(self, found: Array) -> None:
        self._found, self._addresses = found, found.data

    def use_dtype(self, dtype: np.dtype[Any]) -> bool:
        """Expect gradients of this dtype from now on, if that can be."""
        format_ = format_of(dtype)
        if format_ is None or not fits(format_, self.own[0]):
            return False
        self.grad_dtype, self.format = dtype, format_
        self.codecs = (ZEROED[format_] if self.zeroed else format_, *self.own)
        return True

    def label(self, name: str, t: int) -> str:
        """Return how the caller would write the array of tensor `t` in the argument `name`."""
        return self.structure.label(name, self.indices[t])

    def select(self, grads: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients of the group, of those of all parameters."""
        return grads if self._all else [grads[t] for t in self.indices]

    def prepare(self, updates: Sequence[Update], rows: Sequence[tuple[float, ...]], stream: Any) -> None:
        """Take the formulas and the scalars of a step, of all groups of parameters, and compile its kernels.

        After that nothing can fail once writing began.
        """
        if stream is not None:
            raise TypeError(f"{self.label('params', 0)} is on the CPU, where a step takes no stream; got {stream!r}")
        first = self._first
        update = updates[first]
        spec = update._specs.get(self.codecs) or update.spec(self.codecs, len(rows[first]))
        if spec is not self.spec:
            kernels = threads.Kernels(functools.partial(compiler.sweep, spec), self.elements)
            kernels.prepare()
            self.kernels, self.spec = kernels, spec
            self.values = ScalarTable(self.group_count, spec.scalars, spec.compute)
            self._norms = HostNorms(spec, [p.size for p in self.params], self.groups) if spec.measured else None
        elif self.kernels.large:  # how many threads may have changed
            self.kernels.prepare()
        if self._norms is not None:
            self._norms.prepare()
        self.pack(rows)

    def pack(self, rows: Sequence[tuple[float, ...]]) -> None:
        """Take the scalars of a step, of those of all groups of parameters."""
        if self.group_count == 1:
            self.values.pack(rows[self._first])
        else:
            self.values.pack_rows([rows[g] for g in self.rows])

    def launch(self, step: int) -> threads.Launch:
        """Return the launch that updates all tensors of the group, in step number `step`."""
        self._row[:] = self._addresses  # as memoryviews: 0.06 µs of 5, and 0.16 as arrays
        groups, values = self.groups, self.values.array
        if self._norms is not None:
            groups, values = self._norms.tensors, self._norms.run(self.table, values)
        return self.kernels, (self.table, self.items, self.chunks, groups, values, self.seed, step)
