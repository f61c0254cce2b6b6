"""The baselines: each takes Adam steps on float32 arrays that start from the same numbers.

A peer is a function ``(params, grads) -> (step, read)``: `step` takes one Adam step with the defaults of the paper,
`read` returns the parameters. It copies what it is given into memory of its own, as its users would have it. One that
cannot run here raises :class:`MissingPeerError` with the reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays.checks import Array
from ..optimizers.adam import Adam

LR, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8

Peer = Callable[[Sequence[Array], Sequence[Array]], tuple[Callable[[], object], Callable[[], Sequence[Array]]]]


class MissingPeerError(Exception):
    """A peer cannot run here; the text says why."""


def fastopt(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """The class, with its gradients handed over anew at each step."""
    params, grads = [p.copy() for p in params], [g.copy() for g in grads]
    optimizer = Adam(params, lr=LR, betas=BETAS, eps=EPS)
    return lambda: optimizer.step(grads), lambda: params


def fastopt_bound(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """The class, bound to its gradients."""
    params = [p.copy() for p in params]
    optimizer = Adam(params, lr=LR, betas=BETAS, eps=EPS)
    optimizer.bind([g.copy() for g in grads])
    return optimizer.step, lambda: params


def numpy(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """NumPy, in place where an operation allows it, as a careful user writes it."""
    params, grads = [p.copy() for p in params], [g.copy() for g in grads]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
    (b1, b2), taken = BETAS, [0]

    def step() -> None:  # Adam a second time: a baseline is measured and must not be fastopt's own formula
        taken[0] += 1
        c1, c2 = 1 - b1 ** taken[0], 1 - b2 ** taken[0]
        for p, g, (m, v) in zip(params, grads, moments, strict=True):
            np.multiply(m, b1, out=m)
            np.add(m, (1 - b1) * g, out=m)
            np.multiply(v, b2, out=v)
            np.add(v, (1 - b2) * g * g, out=v)
            np.subtract(p, (LR / c1) * m / (np.sqrt(v / c2) + EPS), out=p)

    return step, lambda: params


def _torch(params: Sequence[Array], grads: Sequence[Array], **options: bool) -> Any:
    try:
        import torch  # seconds, and only where it is installed
    except ImportError:
        raise MissingPeerError("torch is not installed") from None
    tensors = [torch.from_numpy(p).clone().requires_grad_() for p in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g).clone()
    step = torch.optim.Adam(tensors, lr=LR, betas=BETAS, eps=EPS, **options).step
    return step, lambda: [tensor.detach().numpy() for tensor in tensors]


def torch_foreach(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """PyTorch's Adam, one operation over all tensors at a time."""
    return _torch(params, grads, foreach=True)


def torch_fused(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """PyTorch's Adam in one C++ kernel."""
    return _torch(params, grads, fused=True)


def optax(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """Optax's Adam, compiled by JAX, its buffers donated."""
    enqueue, held, wait = compiled_optax(params, grads)

    def step() -> None:
        enqueue()
        wait(held[0])

    return step, lambda: [np.asarray(p) for p in held[0]]


def compiled_optax(params: Sequence[Array], grads: Sequence[Array], platform: str | None = None) -> Any:
    """Return the same on a platform of JAX's: a step not waited for, a list of parameters and state, and a wait."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import jax
            import optax as library
    except ImportError as error:
        raise MissingPeerError(f"{error.name} is not installed") from None
    try:
        place = jax.devices(platform)[0]
    except RuntimeError as error:
        missing = f"jax {jax.__version__} sees no {str(platform).upper()}: {str(error).splitlines()[0]}"
        raise MissingPeerError(missing) from None
    transformation = library.adam(LR, *BETAS, eps=EPS)

    def update(p: Any, state: Any, g: Any) -> Any:
        change, state = transformation.update(g, state, p)
        return library.apply_updates(p, change), state

    compiled = jax.jit(update, donate_argnums=(0, 1))
    held = [jax.device_put([p.copy() for p in params], place), None]
    held[1] = jax.device_put(transformation.init(held[0]), place)
    g = jax.device_put([a.copy() for a in grads], place)

    def enqueue() -> None:
        held[:] = compiled(held[0], held[1], g)

    return enqueue, held, jax.block_until_ready


def deepspeed(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """DeepSpeed's CPUAdam, which is built when it is first used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from deepspeed.ops.adam import DeepSpeedCPUAdam
    except ImportError as error:
        raise MissingPeerError(f"{error.name} is not installed") from None
    tensors = [torch.from_numpy(p).clone().requires_grad_() for p in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g).clone()
    try:
        step = DeepSpeedCPUAdam(tensors, lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0, adamw_mode=False).step
    except (RuntimeError, OSError, ImportError, AssertionError) as error:
        raise MissingPeerError(f"DeepSpeed's kernel could not be built: {str(error).splitlines()[0]}") from None
    return step, lambda: [tensor.detach().numpy() for tensor in tensors]


PEERS: dict[str, Peer] = {
    "fastopt": fastopt,
    "fastopt bound": fastopt_bound,
    "NumPy": numpy,
    "PyTorch foreach": torch_foreach,
    "PyTorch fused": torch_fused,
    "Optax": optax,
    "DeepSpeed": deepspeed,
}
