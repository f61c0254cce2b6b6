"""What users write, by the strictest rules of a type checker; it runs, too."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, assert_type

import numba
import numpy as np
import numpy.typing as npt

import fastopt
from fastopt.rules import betas, decay, epsilon, flag, nonnegative, optional_fraction, power, rate, state

Floats = npt.NDArray[np.float32]
KINDS: list[type[fastopt.Optimizer]] = [fastopt.GD, fastopt.Momentum, fastopt.RMSprop, fastopt.Adam, fastopt.AdamW]


def ones() -> Floats:
    return np.ones(3, np.float32)


def halved(step: int) -> float:
    return 0.5**step


def classes() -> None:
    p, several, named = ones(), [ones(), ones()], {"weight": ones(), "bias": ones()}
    fastopt.GD(p).step(p.copy())
    fastopt.GD(several, 0.1, weight_decay=0.1, decoupled=True, maximize=True, reproducible=False).step([ones(), ones()])
    fastopt.GD(array for array in several).step(tuple(several_copies(several)))
    fastopt.Momentum(named, lr=halved, beta=0.5, dampening=0, nesterov=True).step({"weight": ones(), "bias": ones()})
    fastopt.Momentum(p, lr=np.float64(0.1), dampening=None).step(ones())
    fastopt.RMSprop(p, lr=lambda step: 0.1 / step, beta=0.9, eps=0, eps_root=1e-6, centered=True, momentum=0.9)
    fastopt.Adam(p, 1e-3, betas=(0.9, 0.99), eps=1e-6, eps_root=0.0, eps_hat=0.0)
    fastopt.Adam(p, lr=1e-3, state_dtype="int8")
    fastopt.AdamW(tuple(several), lr=1e-3, weight_decay=0.1, state_dtype={"m": np.float16, "v": "bfloat16"})
    half = np.zeros(3, np.uint16)
    fastopt.AdamW([half], rounding="stochastic", seed=3, capturable=False).step([ones()])
    fastopt.AdamW(half, master="split8", state_dtype=np.dtype(np.float16)).step(half.copy())
    for kind in KINDS:
        kind(ones(), 0.1, weight_decay=0.1, rounding="nearest").step(ones())


def several_copies(arrays: list[Floats]) -> list[Floats]:
    return [array.copy() for array in arrays]


def attributes() -> None:
    opt = fastopt.Adam(ones())
    assert_type(opt.lr, float | Callable[[int], float])
    assert_type(opt.betas, tuple[float, float])
    assert_type(opt.eps, float)
    assert_type(opt.weight_decay, float)
    assert_type(opt.decoupled, bool)
    assert_type(opt.reproducible, bool | None)
    assert_type(opt.step_count, int)
    assert_type(opt.state, dict[str, Any])
    assert_type(opt.seed, int)
    assert_type(opt.capturable, bool)
    assert_type(opt.rounding, Literal["nearest", "stochastic", "kahan"])
    assert_type(opt.master, Literal["split8", "split16"] | None)
    assert (opt.rounding, opt.master, opt.state_dtype, opt.seed, opt.capturable) == ("nearest", None, None, 0, False)
    opt.lr, opt.betas, opt.decoupled, opt.reproducible = halved, (0.5, 0.5), True, None
    opt.step_count = 3
    momentum = fastopt.Momentum(ones())
    assert_type(momentum.nesterov, bool)
    assert_type(momentum.dampening, float | None)
    assert_type(momentum.gain, float)


def steps() -> None:
    p, g = {"weight": ones()}, {"weight": ones()}
    opt = fastopt.AdamW(p, 0.1)
    opt.bind(g)
    opt.step()
    opt.step(g, stream=None)
    opt.decoded("params")["weight"].sum()
    opt.state["m"]["weight"].sum()
    file = Path(tempfile.mkdtemp()) / "adam.npz"
    np.savez(file, **opt.state_dict())
    opt.load_state_dict(np.load(file))
    opt.load_state_dict(opt.state_dict())
    opt.save(file, params=True, progress=lambda written, total: None)
    opt.load(str(file))
    scalar = np.array(1.0)
    fastopt.GD(scalar).step(2 * scalar)
    assert_type(fastopt.info(), dict[str, Any])
    fastopt.Adam(ones(), lr=1e-3, **fastopt.conventions["keras"]["Adam"])


def functions() -> None:
    p, g, m, v = ones(), ones(), ones(), ones()
    assert_type(fastopt.gd(p, g), Floats)
    assert_type(fastopt.adam(p, g, m, v, step=1, lr=0.1, betas=(0.9, 0.9), eps=1e-6), Floats)
    fastopt.gd(p, g, lr=0.1, weight_decay=0.1, decoupled=True, maximize=True, reproducible=True, step=1)
    fastopt.momentum(p, g, v=v, nesterov=True, dampening=None, stream=None)
    fastopt.rmsprop(p, g, m, None, v, momentum=0.9)
    fastopt.rmsprop(p, g, m, momentum=0.9, v=v)
    fastopt.adamw(p=p, g=g, m=m, v=v, step=1)
    half: npt.NDArray[np.uint16] = np.zeros(3, np.uint16)
    fastopt.gd(half, half.copy(), step=1, rounding="stochastic", seed=1)
    assert fastopt.adam.__name__ == "adam"


descend = fastopt.jitable(fastopt.Momentum, beta=0.9, nesterov=True, weight_decay=0.1, reproducible=True)


@numba.njit  # type: ignore[untyped-decorator,unused-ignore]  # where Numba is not looked into
def train(theta: Any, steps: int) -> None:
    v = np.zeros_like(theta)
    for step in range(1, steps + 1):
        descend(theta, 2 * theta, v, step, 0.1)


def compiled() -> None:
    train(ones(), 2)
    descend(ones(), ones(), ones(), 1, 0.1)
    fastopt.jitable(fastopt.GD)(ones(), ones(), 1, np.float64(0.1))
    fastopt.jitable(fastopt.Adam, betas=(0.9, 0.99))(ones(), ones(), ones(), ones(), 1, 0.1)


def loops() -> None:
    def fun(x: npt.NDArray[Any]) -> float:
        return float(np.sum(x**2))

    result = fastopt.minimize(fun, [1.0], grad=lambda x: 2 * x, max_iter=3)
    assert_type(result, fastopt.MinimizeResult)
    assert_type(result.nit, int)
    fastopt.minimize(fun, 1.0, grad=lambda x: 2 * x, optimizer=functools.partial(fastopt.GD, lr=0.1), max_iter=3)
    fastopt.minimize(lambda x: (fun(x), 2 * x), ones(), grad=True, optimizer=fastopt.RMSprop, max_iter=3)


def schedules() -> None:
    schedule = fastopt.schedules.warmup(halved, 10, start=0.1)
    assert_type(schedule(1), float)
    opt = fastopt.Adam(ones(), lr=schedule)
    opt.lr = fastopt.schedules.sequence([0.1, halved, schedule, fastopt.schedules.cosine(1, steps=10)], (5, 9, 30))
    opt.lr = fastopt.schedules.piecewise_constant(np.array([0.1, 0.01]).tolist(), boundaries=[5])
    opt.step(ones())


class Scalars(NamedTuple):
    lr: float
    beta: float
    slow: float
    floor: float


class Own(fastopt.Optimizer):
    """An optimizer of one's own, with every kind of hyperparameter."""

    lr = rate(1e-2)
    beta: float = decay(0.9)
    slow: tuple[float, float] = betas(0.9, 0.99)
    eps: float = epsilon(1e-8)
    start: float = nonnegative(0.0)
    part: float | None = optional_fraction(None)
    centered: bool = flag(False)

    v = state(init="start")
    mu = state(when="centered")

    @staticmethod
    def scalars(step: int, lr: float, beta: float, slow: tuple[float, float], eps: float) -> Scalars:
        return Scalars(lr=lr, beta=beta, slow=power(slow[0], step), floor=eps)

    @staticmethod
    def rule(s: Any, g: float, p: float, v: float, mu: float) -> tuple[float, float, float]:
        v = s.beta * v + g
        if s.centered:
            mu = s.beta * mu + g
        return p - s.lr * s.slow * v / (abs(mu) + s.floor), v, mu


class Slow(Own):
    """A subclass with other defaults."""

    lr = rate(1e-3)
    beta: float = decay(0.99)


class Plain(fastopt.Optimizer):
    """One that does not look at the step, as its annotation says."""

    @staticmethod
    def scalars(step: object, lr: float) -> Scalars:
        return Scalars(lr=lr, beta=0.0, slow=0.0, floor=0.0)

    @staticmethod
    def rule(s: Scalars, g: float, p: float) -> float:
        return p - s.lr * g


class Bare(Plain):
    """One without annotations: type checkers know what its hyperparameter is, and not that it is an argument."""

    warm_up = nonnegative(0.0)


def own() -> None:
    bare = Bare(ones(), 0.1)
    bare.warm_up = 2.0
    assert_type(bare.warm_up, float)
    opt = Own(ones(), 0.1, beta=0.5, slow=(0.9, 0.9), eps=1e-6, start=1, part=0.5, centered=True, weight_decay=0.1)
    opt.step(ones())
    assert_type(opt.beta, float)
    assert_type(opt.slow, tuple[float, float])
    assert_type(opt.part, float | None)
    assert_type(opt.centered, bool)
    Slow([ones()], 0.1, beta=0.5, slow=(0.9, 0.9)).step([ones()])
    p = ones()
    fastopt.as_function(Own)(p, ones(), ones(), step=1, beta=0.9)
    fastopt.as_function(Plain)(p, ones(), lr=0.1)
    fastopt.jitable(Own, beta=0.5)(p, ones(), ones(), 1, 0.1)
