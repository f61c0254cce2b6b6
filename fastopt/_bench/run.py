"""Measuring: sizes and models, in turn, with the correctness of every baseline beside its time."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from .._api.info import info
from .._arrays.checks import Array
from .._engine import threads as _threads
from .._kernels import compiler, reference
from ..optimizers.adam import Adam
from . import measure
from .catalog import OPTIMIZERS
from .peers import BETAS, EPS, LR, PEERS, MissingPeerError, Peer

OWN = ("fastopt", "fastopt bound")
STEPS_CHECKED = 3
#: Of an Adam step, for each float32 element.
BYTES = measure.bytes_of(("float32",) * (2 + len(Adam.with_hyperparameters().active_states())))
_SAMPLE = 4096
_ROUNDS = 1000
# Of one baseline, in seconds: fast steps are measured warm. Called one by one between the others', all of them take two
# to four times as long below 2^16 elements, for their code is out of the caches.
TURN = 2e-3
# Where in memory the arrays come to lie is luck: one and the same baseline took 172 or 300 µs for 2^20 elements, 17 or
# 23 ms for 2^26. So each is measured on several copies; where they are large, on fewer, one after the other.
_LARGE = 1 << 23
_COPIES_SMALL, _COPIES_LARGE = 3, 2
_REPEATED = 1 << 28
# Three steps change a parameter by at most 3 lr; what float32 rounding makes of that is far below this.
TOLERANCE = 1e-5


class Machine(NamedTuple):
    """What is measured where, and how.

    `streaming` returns a function that moves the bytes of an Adam step over so many elements; `call` times some calls;
    `batches` yields how many copies of which peers are measured together; `release` gives back their memory.
    """

    device: str
    peers: Mapping[str, Peer]
    streaming: Callable[[int], Callable[[], object]]
    call: Callable[[Callable[[], object], int], float] | None
    batches: Callable[[int, Sequence[str]], Iterable[tuple[int, Sequence[str]]]]
    release: Callable[[], object]


class Row(NamedTuple):
    """One baseline on one set of arrays.

    `ratio` is its time over fastopt's, the median over the rounds.
    """

    case: str
    tensors: int
    elements: int
    peer: str
    seconds: float
    low: float
    high: float
    ratio: float
    error: float

    @property
    def right(self) -> bool:
        """Whether the parameters are those of the exact equation."""
        return self.error <= TOLERANCE


def models() -> dict[str, list[list[int]]]:
    """Return the shapes of the parameters of real models, by name."""
    shapes: dict[str, list[list[int]]] = json.loads(files(__package__).joinpath("models.json").read_text())
    return shapes


def exact(p: Array, g: Array, steps: int) -> Array:
    """Return parameters after `steps` Adam steps with a constant gradient: Adam's rule in float64, by NumPy.

    The tests hold the rule against independent equations.
    """
    method = Adam.with_hyperparameters(lr=LR, betas=BETAS, eps=EPS)
    spec = method.plain_spec(np.dtype(np.float64))
    arrays = [p, *(np.zeros_like(p) for _ in method.active_states())]
    for t in range(1, steps + 1):
        arrays = reference.apply(spec, method.values(t), [g, *arrays])
    return arrays[0]


def _ends(array: Array) -> Array:
    flat = array.reshape(-1)
    return flat if flat.size <= 2 * _SAMPLE else np.concatenate([flat[:_SAMPLE], flat[-_SAMPLE:]])


def start(peer: Peer, params: Sequence[Array], grads: Sequence[Array]) -> tuple[Callable[[], object], float]:
    """Return the step of a peer and its largest error after a few steps, looking at both ends of each array."""
    step, read = peer(params, grads)
    for _ in range(STEPS_CHECKED):
        step()
    errors = [
        np.max(np.abs(_ends(now) - exact(_ends(p), _ends(g), STEPS_CHECKED)), initial=0.0)
        for now, p, g in zip(read(), params, grads, strict=True)
    ]
    return step, float(np.max(errors))


def _streaming(elements: int) -> Callable[[], object]:
    """Return a function that moves as many bytes as an Adam step over as many elements."""
    optimizer = Adam(np.ones(elements, np.float32))
    optimizer.bind(np.ones(elements, np.float32))
    return measure.streaming(optimizer)


def _batches(elements: int, peers: Sequence[str]) -> list[tuple[int, Sequence[str]]]:
    return [(_COPIES_SMALL, peers)] if elements < _LARGE else [(1, peers)] * _COPIES_LARGE


CPU = Machine("cpu", PEERS, _streaming, None, _batches, lambda: None)


def numbers(shapes: Iterable[Sequence[int]]) -> tuple[list[Array], list[Array]]:
    """Return parameters and gradients; in very large ones numbers repeat, as to make them takes longer than steps."""
    rng = np.random.default_rng(0)
    params, grads = [], []
    for shape in shapes:
        made = shape if math.prod(shape) <= _REPEATED else (_REPEATED,)
        params.append(rng.standard_normal(made, np.float32))
        grads.append(rng.random(made, np.float32) + np.float32(0.5))
        if made is not shape:
            params[-1], grads[-1] = np.resize(params[-1], shape), np.resize(grads[-1], shape)
    return params, grads


def compare(
    case: str,
    shapes: Iterable[Sequence[int]],
    peers: Sequence[str],
    budget: float,
    absent: dict[str, str],
    machine: Machine = CPU,
) -> Iterator[Row]:
    """Yield a row for each peer and one for streaming; add to `absent` those that cannot run, and why."""
    params, grads = numbers(shapes)
    elements = sum(p.size for p in params)
    taken: dict[str, list[list[float]]] = {}
    ratios: dict[str, list[float]] = {}
    errors: dict[str, float] = {}
    batches = list(machine.batches(elements, [name for name in peers if name not in absent]))
    for together, names in batches:
        functions: dict[tuple[str, int], Callable[[], object]] = {}
        for k in range(together):
            for name in names:
                if name not in absent:
                    try:
                        functions[name, k], error = start(machine.peers[name], params, grads)
                        errors[name] = max(error, errors.get(name, 0.0))
                    except MissingPeerError as reason:
                        absent[name] = str(reason)
            functions["streaming", k], errors["streaming"] = machine.streaming(elements), 0.0
            functions["streaming", k]()
        seconds = budget / len(batches)
        times = measure.times(functions, rounds=_ROUNDS, seconds=seconds, turn=TURN, call=machine.call)
        for (name, k), turns in times.items():
            taken.setdefault(name, []).append(turns)
            ratios.setdefault(name, []).append(measure.ratio(turns, times[OWN[0], k]))
        functions.clear()
        machine.release()
    for name, own in taken.items():
        low, median, high = statistics.quantiles(itertools.chain(*own), n=4)
        ratio = statistics.median(ratios[name])
        yield Row(case, len(params), elements, name, median, low, high, ratio, errors[name])


def roofline(elements: int, own: Sequence[type[Any]] = ()) -> Iterator[measure.Speed]:
    """Yield what each optimizer, and classes of the user's own, make of the machine's memory."""
    for cls in (*OPTIMIZERS.values(), *own):
        yield measure.speed(cls, elements, np.dtype(np.float32), seconds=2, beside_numpy=False)


def header(threads: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    found = info() | {"threads": threads}
    for package in ("torch", "jax", "optax", "deepspeed", "numba-cuda", "cupy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def set_threads(threads: int | None) -> int:
    """Give every baseline the same number of threads and return it; JAX takes its number from the affinity alone."""
    import numba

    count = threads or _threads.budget()
    numba.set_num_threads(count)
    try:
        import torch
    except ImportError:
        return count
    torch.set_num_threads(count)
    return count


def warm() -> None:
    """Compile what will be measured."""
    spec = Adam.with_hyperparameters().plain_spec(np.dtype(np.float32))
    for parallel in (False, True):
        compiler.sweep(spec, parallel)
