"""What a step reads and writes: its gradients, found and checked, and all else that must be as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import headers
from .._arrays.checks import (
    Array,
    as_gradient,
    check_array,
    check_disjoint,
    check_gradient,
    check_like,
    check_unchanged,
    format_of,
)
from .._arrays.structure import Structure, check_lasting
from .._arrays.tensors import check_in_place, is_tensor
from .._arrays.view import View
from .._kernels import compiler
from .extents import named_arrays, spans, spans_overlap
from .gpu import DeviceGroup
from .plan import Group


class Bound(NamedTuple):
    """The gradients of :meth:`fastopt.Optimizer.bind`, and their addresses and the dtype in each group."""

    given: list[Any]
    grads: list[Any]
    found: list[Array]
    dtypes: list[np.dtype[Any]]


class Gather:
    """The arrays of all groups, tensor by tensor in the order of the groups.

    All groups together, because no two arrays of a step may share memory, whatever their dtypes are.

    Parameters
    ----------
    params : object
        The caller's own collection of parameters, in which none may be replaced by another.
    given : sequence
        The parameters, as they are in it.
    structure : Structure
        How they are arranged in it.
    arrays : sequence of ndarray or View
        The parameters.
    states : mapping of str to sequence of ndarray or View
        All other arrays that a step writes, for each parameter or None, by name.
    groups : sequence of Group
    """

    def __init__(
        self,
        params: Any,
        given: Sequence[Any],
        structure: Structure,
        arrays: Sequence[Any],
        states: Mapping[str, Sequence[Any]],
        groups: Sequence[Group],
    ) -> None:
        self.structure = structure
        self._devices = [group for group in groups if isinstance(group, DeviceGroup)]
        self._groups = [group for group in groups if not isinstance(group, DeviceGroup)]
        self._tensors = [t for group in self._groups for t in group.indices]
        self._params = [arrays[t] for t in self._tensors]
        self._relist: Callable[[], list[Any] | None] | None
        self._collection, self._relist = params, _reader(structure, params)
        self._given = list(given)
        tensors = [t for t in self._tensors if is_tensor(given[t])]
        #: The parameters that are tensors in the host's memory.
        self.tensors = [given[t] for t in tensors]
        if tensors:
            self._relist = functools.partial(self._relist_tensors, self._relist, tensors, arrays)
        self._all_written = functools.partial(named_arrays, structure, arrays, states)
        written = [a for _, a in self._written()]
        self._dtypes = [a.dtype for a in written]  # kept, so that no other dtype can come to have their identity
        rows = (map(id, written), (a.ctypes.data for a in written), (a.size for a in written), map(id, self._dtypes))
        self._expected = np.array([list(row) for row in rows], np.int64)
        self._fixed = spans(written)
        self._fixed_on_devices = spans([a for _, a in self._all_written() if isinstance(a, View)])
        self._disjoint = np.empty((2, 0), np.int64)  # gradients on devices that were found to share no memory
        count = len(self._tensors)
        self._work = np.zeros((9, count), np.int64)  # see headers.gather
        self._work[1] = [id(p) for p in self._params]
        self._work[3] = [p.size for p in self._params]
        self._work[5] = [p.itemsize for p in self._params]
        self._work[7] = np.arange(count)
        listed = np.array([id(p) for p in self._given], np.int64)
        self._zeroed = any(group.zeroed for group in groups)
        self._arguments = (self._work, self._expected, self._fixed, id(np.ndarray), listed, int(self._zeroed))
        self._found = self._work[2]
        start = 0
        for group in self._groups:
            end = start + len(group.indices)
            group.found = self._found[start:end]
            self._use_dtype(group, start, group.dtype)
            start = end
        self.grads: list[Any] = []
        self.bound: Bound | None = None

    def _written(self) -> Iterator[tuple[str, Array]]:
        """Yield the arrays in the host's memory that a step writes, and what an error calls them."""
        return ((name, a) for name, a in self._all_written() if not isinstance(a, View))

    def gather(self, given: list[Any] | None) -> None:
        """Check gradients, as many as there are parameters, and take their addresses; change nothing else.

        Without any, take those that are bound. The addresses go to a row of their own, which launching brings into the
        tables of the groups, so that a check that fails leaves those as they were.
        """
        if given is None:
            self._use_bound()
            return
        self.grads = []  # whatever was read before, and is not bound, is let go, even if this is refused
        grads: list[Any] = []
        known = True
        for group in self._groups:
            start = len(grads)
            grads += group.select(given)
            known &= getattr(grads[start], "dtype", None) is group.grad_dtype
        if not known:
            known = self._use_dtypes(grads)
        gather = compiler.gather() if known else None
        if gather is None or not self._check_compiled(gather, grads):
            if self._zeroed:
                self._check_scalars(grads)
            grads = [as_gradient(g) for g in grads]
            if not known:
                gather = compiler.gather() if self._use_dtypes(grads) else None
            if gather is None or not self._check_compiled(gather, grads):
                self._check_in_python(grads)
        if self._devices:
            self._read_on_devices(given)
            grads += given
        self.grads = grads  # alive until the launch

    def _read_on_devices(self, given: list[Any]) -> None:
        for group in self._devices:
            group.read(given)
        starts = np.concatenate([group.found for group in self._devices])
        ends = starts + np.concatenate([group.grad_lengths for group in self._devices])
        now = np.array([starts, ends])
        if np.array_equal(now, self._disjoint):
            return
        if spans_overlap(starts, ends, self._fixed_on_devices):
            views = (pair for group in self._devices for pair in group.named_gradients(given))
            check_disjoint([*((name, a) for name, a in self._all_written() if isinstance(a, View)), *views])
        self._disjoint = now

    def _use_dtype(self, group: Group, start: int, dtype: np.dtype[Any]) -> bool:
        """Have gradients of this dtype taken for a group, if they can be."""
        if not group.use_dtype(dtype):
            return False
        end = start + len(group.indices)
        self._work[4, start:end], self._work[6, start:end] = dtype.num, dtype.itemsize
        self._work[8] = 0  # so that all are looked at: at the same addresses they may reach further now
        return True

    def _use_dtypes(self, grads: list[Any]) -> bool:
        """Have gradients of the dtypes that these have taken for all groups, if they can be."""
        start, known = 0, True
        for group in self._groups:
            dtype = getattr(grads[start], "dtype", None)
            known &= dtype is group.grad_dtype or (isinstance(dtype, np.dtype) and self._use_dtype(group, start, dtype))
            start += len(group.indices)
        return known

    def _relist_tensors(
        self, relist: Callable[[], list[Any]] | None, tensors: Sequence[int], arrays: Sequence[Any]
    ) -> list[Any] | None:
        """Return what `relist` does, once the parameters that are tensors have the memory that they had."""
        for t in tensors:
            check_in_place(self.structure.label("params", t), self._given[t], arrays[t])
        return None if relist is None else relist()

    def _check_compiled(self, gather: Callable[..., int], grads: list[Any]) -> bool:
        """Say whether all is surely well."""
        listed = self._relist() if self._relist is not None else None
        arguments = (*self._arguments, 0 if listed is None else id(listed), id(grads))
        answer = gather(*arguments)
        if answer == headers.UNSORTED:
            self._work[7] = np.argsort(self._found)
            answer = gather(*arguments)
        return answer <= headers.MOVED

    def _check_in_python(self, grads: list[Any]) -> None:
        """Do the same in Python, for arrays that are unusual or wrong."""
        structure = self.structure
        if self._relist is not None:
            self._relist()
            self._check_list()
        for (name, array), expected, dtype in zip(self._written(), self._expected.T, self._dtypes, strict=True):
            check_unchanged(name, array, int(expected[1]), int(expected[2]), dtype)
        start = 0
        for group in self._groups:
            first = structure.label("grads", group.indices[0])
            for t, p, grad in zip(group.indices, group.params, grads[start:], strict=False):
                name, like = structure.label("grads", t), structure.label("params", t)
                check_array(name, grad, written=group.zeroed)
                check_gradient(name, grad, like, p)
                if format_of(grad.dtype) != group.format:
                    raise TypeError(
                        f"{name} must have the dtype of {first}, {grads[start].dtype}, as their parameters have one; "
                        f"got {grad.dtype}"
                    )
                check_like(name, grad, like, p)
            start += len(group.indices)
        labels = (structure.label("grads", t) for t in self._tensors)
        check_disjoint([*self._written(), *zip(labels, grads, strict=True)])
        self._found[:] = [g.ctypes.data for g in grads]

    def _check_list(self) -> None:
        structure, t = self.structure, 0
        for part, params in structure.collections(self._collection):
            count = len(part.keys)
            self._check_part(structure, t, self._given[t : t + count], part, params)
            t += count

    @staticmethod
    def _check_part(structure: Structure, first: int, expected: list[Any], part: Structure, params: Any) -> None:
        if part.kind == "array":
            return
        now = dict(params) if isinstance(params, Mapping) else dict(enumerate(params))
        if len(now) != len(expected):
            raise ValueError(
                f"params had {len(expected)} arrays when the optimizer was made, and has {len(now)} now: make a new one"
            )
        for k, given in enumerate(expected):
            if now.get(part.keys[k]) is not given:
                name = structure.label("params", first + k)
                raise ValueError(
                    f"{name} was replaced by another array since the optimizer was made: write into it, "
                    f"{name}[...] = values, or make a new optimizer"
                )

    def bind(self, given: Any) -> None:
        """Check gradients and keep them for the steps that bring none."""
        grads = self.structure.unpack("grads", given)
        check_lasting("grads", self.structure, given, grads)
        self._check_scalars(grads)
        self.bind_all(grads)

    def _check_scalars(self, grads: list[Any]) -> None:
        for t, grad in enumerate(grads):
            if isinstance(grad, np.generic):
                name = self.structure.label("grads", t)
                raise TypeError(f"{name} is a scalar, {grad!r}, into which nobody can write: give an array")

    def bind_all(self, grads: list[Any]) -> None:
        """Do the same with gradients in the order of the parameters."""
        self.gather(list(grads))
        groups = [*self._groups, *self._devices]
        self.bound = Bound(
            grads, self.grads, [group.found.copy() for group in groups], [group.grad_dtype for group in groups]
        )

    def _use_bound(self) -> None:
        """Take the bound gradients again, if others were read since."""
        if self.bound is None:
            raise TypeError("step() needs grads, unless bind(grads) was called before")
        if self.grads is self.bound.grads:
            return
        start, groups = 0, [*self._groups, *self._devices]
        for group, found, dtype in zip(groups, self.bound.found, self.bound.dtypes, strict=True):
            if dtype is not group.grad_dtype:
                if isinstance(group, DeviceGroup):
                    group.use_dtype(dtype)
                else:
                    self._use_dtype(group, start, dtype)
            start += len(group.indices)
            group.found[:] = found
        self.grads = self.bound.grads

    def release(self) -> None:
        """Let the caller's gradients go, unless they are bound."""
        if self.bound is None or self.grads is not self.bound.grads:
            self.grads = []


def _reader(structure: Structure, params: Any) -> Callable[[], list[Any]] | None:
    """Return what lists the arrays that are in the caller's collection now; None if no others can be."""
    if structure.kind == "array" or type(params) is tuple:
        return None
    if structure.kind == "sequence" and type(params) is list:
        return lambda: params
    return functools.partial(structure.arrays_in, params)
