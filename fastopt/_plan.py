"""The plan of a step: where the arrays are, how they are cut into chunks, and the launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _compile, _headers, _threads
from ._arrays import (
    Array,
    Structure,
    as_gradient,
    check_array,
    check_disjoint,
    check_gradient,
    check_like,
    fits,
    format_of,
)
from ._compile import Spec
from ._method import Packer

# A chunk is the most that is done between two looks at the chunk list, an item the least that a thread
# takes. 2^13 elements: from 2^12 to 2^18 the time of float32 Adam is the same within the noise, and
# small chunks spread mid-sized tensors over more threads.
CHUNK = 1 << 13
# What a chunk costs besides its elements, in elements: an empty chunk takes about 10 ns.
_CHUNK_COST = 64
#: Bytes of a page of memory, and of one for large arrays.
PAGE, LARGE_PAGE = 1 << 12, 1 << 21


def chunks_of(sizes: Sequence[int], longest: int = CHUNK) -> tuple[Array, Array]:
    """Return the items and the chunks for tensors of these sizes.

    No chunk has more than `longest` elements. The cut depends on the sizes alone, never on the number of threads.
    """
    pieces = []
    for tensor, size in enumerate(sizes):
        starts = np.arange(0, size, longest, dtype=np.int64)
        piece = np.empty((len(starts), 3), np.int64)
        piece[:, 0] = tensor
        piece[:, 1] = starts
        piece[:, 2] = np.minimum(size - starts, longest)
        pieces.append(piece)
    chunks = np.concatenate(pieces) if pieces else np.empty((0, 3), np.int64)
    cost = np.cumsum(chunks[:, 2] + _CHUNK_COST)
    goals = np.arange(CHUNK, cost[-1], CHUNK) if len(cost) else np.empty(0, np.int64)
    inner = np.unique(np.searchsorted(cost, goals) + 1)
    return np.unique(np.concatenate([[0], inner, [len(chunks)]])).astype(np.int64), chunks


def allocate(like: Array, index: int, count: int, dtype: np.dtype[Any], length: int | None = None) -> Array:
    """Return zeros for array number `index` of `count`, laid out as `like`, placed to stay out of its way.

    With `length` they are that many, in one dimension.

    Large arrays start at the same place of a page, nearly always, and those of 2^k elements at a distance of nearly
    2^k bytes. Streams at equal places compete for the same few lines of the first-level cache, and on some processors
    evict each other before a line is used up: 2^25 float32 elements on an AMD Zen 4 took 24 ms a step with NumPy's
    placement and 9 ms with the states moved apart by a fraction of a page. Streams a power of two apart compete in
    other tables, too: from 64 MiB on, of which that is little, states are moved apart by many pages as well.
    """
    span = LARGE_PAGE if like.nbytes >= 32 * LARGE_PAGE else PAGE
    pages = (index + 1) * (span // PAGE) // (count + 1)
    place = (like.ctypes.data + pages * PAGE + (index + 1) * PAGE // (count + 1)) // 64 * 64
    nbytes = (like.size if length is None else length) * dtype.itemsize
    buffer = np.zeros(nbytes + span, np.uint8)
    start = (place - buffer.ctypes.data) % span
    flat = buffer[start : start + nbytes].view(dtype)
    if length is not None:
        return flat
    return flat.reshape(like.shape, order="C" if like.flags.c_contiguous else "F")


class Members(NamedTuple):
    """What a group is made of.

    Attributes
    ----------
    structure : Structure
        How the caller arranged the parameters, for the error messages.
    indices : sequence of int
        Which of the caller's arrays belong to the group.
    params : sequence of ndarray
        The parameters of the group.
    states : sequence of sequence of ndarray
        For each array of a tensor after the parameter, one per parameter.
    own : tuple of str
        The codecs of the parameter and the states.
    seed : int
        Chooses how numbers are rounded at random.
    """

    structure: Structure
    indices: Sequence[int]
    params: Sequence[Array]
    states: Sequence[Sequence[Array]]
    own: tuple[str, ...]
    seed: int


class Group:
    """The tensors of one format, updated by one launch."""

    def __init__(self, members: Members) -> None:
        self.structure, self.indices, self.params, self.states, self.own, self.seed = members
        params, states = self.params, self.states
        self.dtype = params[0].dtype
        self.elements = sum(p.size for p in params)
        count = len(params)
        rows = [[0] * count, *([a.ctypes.data for a in row] for row in (params, *states))]
        self.table = np.array(rows, np.uint64)
        self._take(self.dtype)
        self.items, self.chunks = chunks_of([p.size for p in params])
        fixed = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in self._written() if a.nbytes)
        self.fixed = np.array(fixed, np.int64).reshape(-1, 2).T.copy()
        self.work = np.zeros((5, count), np.int64)
        self.work[1] = [id(p) for p in params]
        self.work[3] = [p.size for p in params]
        self.work[4] = np.arange(count)
        # Views of rows that each step writes or reads: making them anew would take 0.3 µs of 4.
        self._row, self._ids, self.found = self.table[0].view(np.int64), self.work[0], self.work[2]
        self.spec: Spec | None = None
        self.values = Packer(0, np.dtype(np.float64))
        self.grads: list[Array] = []
        self.bound: tuple[list[Array], Array, np.dtype[Any]] | None = None

    def _written(self) -> list[Array]:
        return [*self.params, *(a for row in self.states for a in row)]

    def _take(self, dtype: np.dtype[Any]) -> bool:
        """Expect gradients of this dtype from now on, if that can be."""
        format_ = format_of(dtype)
        if format_ is None or not fits(format_, self.own[0]):
            return False
        self.grad_dtype, self.codecs = dtype, (format_, *self.own)
        self.table[0] = 0  # so that all are looked at: at the same addresses they may reach further now
        return True

    def label(self, name: str, t: int) -> str:
        """Return how the caller would write the array of tensor `t` in the argument `name`."""
        return self.structure.label(name, self.indices[t])

    def read(self, grads: Sequence[Any]) -> None:
        """Check the gradients of the group and take their addresses; change nothing else.

        The addresses go to a row of their own, which :meth:`launch` brings into the table, so that a check
        that fails leaves the group as it was.
        """
        grads = [as_gradient(g) for g in grads]
        self.grads = grads  # alive until the launch
        dtype = getattr(grads[0], "dtype", None)
        known = dtype is self.grad_dtype or (isinstance(dtype, np.dtype) and self._take(dtype))
        check = _compile.refresh() if known else None
        if check is None:
            self._read_closely(grads)
            return
        self._ids[:] = [id(g) for g in grads]
        answer = self._ask(check)
        if answer == _headers.UNSORTED:
            self.work[4] = np.argsort(self.found)
            answer = self._ask(check)
        if answer >= 0 or answer == _headers.UNSORTED:
            self._read_closely(grads)

    def _ask(self, check: Any) -> int:
        dtype, size = self.grad_dtype, self.dtype.itemsize
        answer: int = check(self.work, self.table, self.fixed, id(np.ndarray), dtype.num, dtype.itemsize, size)
        return answer

    def _read_closely(self, grads: Sequence[Any]) -> None:
        """Do the same in Python, for arrays that are unusual or wrong."""
        named = [(self.label("params", t), p) for t, p in enumerate(self.params)]
        for t, (name, p) in enumerate(named):
            check_array(name, p, written=True)
            if p.ctypes.data != self.table[1, t] or p.size != self.work[3, t]:
                raise ValueError(f"{name} was resized since the optimizer was made")
            grad = self.label("grads", t)
            check_array(grad, grads[t], written=False)
            check_gradient(grad, grads[t], name, p)
            if format_of(grads[t].dtype) != self.codecs[0]:
                first = self.label("grads", 0)
                raise TypeError(
                    f"{grad} must have the dtype of {first}, {grads[0].dtype}, as their parameters have one; got "
                    f"{grads[t].dtype}"
                )
            check_like(grad, grads[t], name, p)
        named += [(f"state of {self.label('params', t)}", a) for row in self.states for t, a in enumerate(row)]
        check_disjoint([*named, *((self.label("grads", t), g) for t, g in enumerate(grads))])
        self.found[:] = [g.ctypes.data for g in grads]

    def bind(self) -> None:
        """Keep the gradients that were read last for the steps that bring none."""
        self.bound = (self.grads, self.found.copy(), self.grad_dtype)

    def recall(self) -> None:
        """Take the bound gradients again, if others were read since."""
        if self.bound is None:
            raise TypeError("step() needs grads, unless bind(grads) was called before")
        if self.grads is not self.bound[0]:
            self.grads, self.found[:], dtype = self.bound
            if dtype is not self.grad_dtype:
                self._take(dtype)

    def aim(self, stream: Any) -> None:
        """Refuse a stream: there is none on a CPU."""
        if stream is not None:
            raise TypeError(f"{self.label('params', 0)} is on the CPU, where a step takes no stream; got {stream!r}")

    def prepare(self, spec: Spec, values: tuple[float, ...]) -> None:
        """Take the scalars of a step, and compile its kernel, so that nothing can fail once writing began."""
        if spec is not self.spec:
            _threads.compile_for(spec, self.elements)
            self.spec, self.values = spec, Packer(spec.scalars, spec.number)
        self.values.pack(values)

    def launch(self, step: int) -> None:
        """Update all tensors of the group, in step number `step`."""
        assert self.spec is not None  # prepare() comes first
        self._row[:] = self.found
        arguments = (self.table, self.items, self.chunks, self.values.array, self.seed, step)
        _threads.launch(self.spec, self.elements, arguments)
        self._release()

    def _release(self) -> None:
        """Let the caller's gradients go, unless they are bound."""
        if self.bound is None or self.grads is not self.bound[0]:
            self.grads = []
