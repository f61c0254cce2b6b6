"""All storages that there are, by name, those that are measured, and whether a GPU and the CPU agree on their bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._api.optimizer import Optimizer
from .._arrays.checks import FORMATS, Array, fits
from .._engine.arrange import codecs_of
from .._storage import formats
from ..optimizers.adam import Adam
from . import gpu
from .catalog import OPTIMIZERS


class Storage(NamedTuple):
    """In which formats the numbers of an optimizer are, and what becomes of the bits that its parameters lack.

    Attributes
    ----------
    param, grad : str
        The format of the parameters, and that of the gradients.
    states : str, or mapping of state to str
        The format of the states; in :data:`STORAGES`, one for all of them.
    rounding, master
        As an optimizer is given them.
    """

    param: str
    grad: str
    states: str | Mapping[str, str]
    rounding: str = "nearest"
    master: str | None = None

    @property
    def name(self) -> str:
        """What of it is not the default, in words."""
        parts = [self.master or self.param]
        if self.rounding != "nearest":
            parts.append(self.rounding)
        if not isinstance(self.states, str):
            parts += [f"{state} in {format_}" for state, format_ in self.states.items()]
        elif self.states != formats.compute_dtype(self.param):
            parts.append(f"{self.states} states")
        if self.grad != self.param:
            parts.append(f"{self.grad} gradients")
        return ", ".join(parts)

    @property
    def options(self) -> dict[str, Any]:
        """What an optimizer is given for it, beside arrays in these formats."""
        given = {"state_dtype": self.states, "rounding": self.rounding, "master": self.master}
        default = {"state_dtype": formats.compute_dtype(self.param), "rounding": "nearest", "master": None}
        return {name: value for name, value in given.items() if value != default[name]}

    def codecs(self, cls: type[Optimizer] = Adam) -> tuple[str, ...]:
        """Return the codecs of the gradient, the parameter and the states of an optimizer."""
        method = cls.with_hyperparameters()
        names = method.active_states()
        by_state = formats.by_state(self.options.get("state_dtype"), names, cls.__name__)
        return (self.grad, *codecs_of(self.param, self.rounding, self.master, by_state, names, method.squares))


def _every() -> Iterator[Storage]:
    """Yield whatever the rules of :mod:`fastopt._storage.formats` let go together."""
    kinds = list(dict.fromkeys(FORMATS.values()))
    for param, rounding, master in itertools.product(kinds, formats.ROUNDINGS, (None, *formats.MASTERS)):
        try:
            formats.check_rounding(rounding, master, [param])
        except (TypeError, ValueError):
            continue
        for states in formats.STATES[formats.compute_dtype(param)]:
            yield from (Storage(param, grad, states, rounding, master) for grad in kinds if fits(grad, param))


#: Every storage in which all states are in one format.
STORAGES = {storage.name: storage for storage in _every()}


def selected(names: Iterable[str]) -> dict[str, Storage]:
    """Return those of these names."""
    return {name: STORAGES[name] for name in names}


#: Those that are measured, all with gradients in the format of the parameters.
MEASURED = selected(
    (
        "float32",
        "float32, bfloat16 states",
        "float32, float16 states",
        "float32, int8 states",
        "bfloat16",
        "bfloat16, stochastic, bfloat16 states",
        "bfloat16, kahan, bfloat16 states",
        "split8, bfloat16 states",
        "split8, int8 states",
        "split16, int8 states",
        "float16",
        "float16, stochastic, float16 states",
        "float16, kahan, int8 states",
        "float64",
        "float64, float32 states",
    )
)

#: The optimizers whose bits are compared.
CHECKED: dict[str, dict[str, Any]] = {"Momentum": {"nesterov": True}, "Adam": {"weight_decay": 0.1}}


def stored(numbers: Array, format_: str) -> Array:
    """Return float32 numbers in a format; in bfloat16, as its bits, cut off: so nothing but NumPy is needed."""
    if format_ == "bfloat16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(format_)


def in_storage(storage: Storage, params: Iterable[Array], grads: Iterable[Array]) -> tuple[list[Array], list[Array]]:
    """Return float32 parameters and gradients in a storage."""
    return [stored(p, storage.param) for p in params], [stored(g, storage.grad) for g in grads]


def params_and_grads(storage: Storage, sizes: Sequence[int], seed: int = 0) -> tuple[list[Array], list[Array]]:
    """Return parameters and gradients of these sizes in a storage."""
    rng = np.random.default_rng(seed)
    params = [rng.standard_normal(n, np.float32) for n in sizes]
    grads = [rng.random(n, np.float32) + np.float32(0.5) for n in sizes]
    return in_storage(storage, params, grads)


def arrays_of(optimizer: Any) -> Iterator[tuple[str, Array]]:
    """Yield all state arrays of a checkpoint by name, the bits of bfloat16 as uint16."""
    for name, value in optimizer.state_dict().items():
        array = np.asarray(value)
        if isinstance(value, np.ndarray) and array.ndim:
            yield name, array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def differing(optimizer: str, storage: Storage, sizes: Sequence[int], steps: int = 3) -> Mapping[str, int]:
    """Return how many elements of each array differ between the CPU and the GPU after a few steps, where any does."""
    params, grads = params_and_grads(storage, sizes)
    there, there_grads = gpu.on_device(params), gpu.on_device(grads)
    cls, hyper = OPTIMIZERS[optimizer], CHECKED[optimizer]
    on_cpu, on_gpu = (cls(p, **hyper, **storage.options, reproducible=True) for p in (params, there))
    for _ in range(steps):
        on_cpu.step(grads)
        on_gpu.step(there_grads)
    found = {"params": (gpu.on_host(there), params)}
    wanted = dict(arrays_of(on_cpu))
    found |= {name: ([array], [wanted[name]]) for name, array in arrays_of(on_gpu)}
    counts = {
        name: sum(int(np.count_nonzero(a.view(np.uint8) != b.view(np.uint8))) for a, b in zip(one, other, strict=True))
        for name, (one, other) in found.items()
    }
    return {name: count for name, count in counts.items() if count}
