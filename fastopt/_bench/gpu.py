"""Adam on a GPU by fastopt and by its baselines, for ``fastopt bench --device cuda`` and the scripts.

Each is a function as in :mod:`fastopt._bench.peers`: it takes host arrays and works on copies of them on the GPU. In
the simulator, where there is no GPU, PyTorch and Optax work on the CPU: so their code is run, and nothing measured.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array
from ..optimizers.adam import Adam
from . import device, measure, run
from .catalog import OPTIMIZERS
from .peers import BETAS, EPS, LR, MissingPeerError, Peer, compiled_optax


def _torch() -> tuple[Any, str]:
    """Return PyTorch, and the name of its device."""
    try:
        import torch  # seconds, and only where it is installed
    except ImportError:
        raise MissingPeerError("torch is not installed") from None
    if driver.simulated():
        return torch, "cpu"
    if not torch.cuda.is_available():
        raise MissingPeerError(f"torch {torch.__version__} sees no GPU")
    return torch, "cuda"


def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise MissingPeerError("cupy is not installed") from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # noqa: BLE001  of CUDA's, whose class is CuPy's own
        raise MissingPeerError(f"cupy {cupy.__version__} sees no GPU: {error}") from None
    return cupy


def library() -> str:
    """Return whose arrays fastopt is measured with: PyTorch's if it is here with a GPU, otherwise numba-cuda's."""
    if driver.simulated():
        return "numba-cuda"
    try:
        _torch()
    except MissingPeerError:
        return "numba-cuda"
    return "torch"


def on_device(arrays: Sequence[Array], of: str | None = None) -> list[Any]:
    """Return copies on the GPU, as arrays of a library; uint16 are the bits of bfloat16."""
    of = of or library()
    if of == "torch":
        torch, name = _torch()
        tensors = [torch.from_numpy(a).to(name, copy=True) for a in arrays]
        return [t.view(torch.bfloat16) if t.dtype == torch.uint16 else t for t in tensors]
    if of == "cupy":
        cupy = _cupy()
        return [cupy.asarray(a) for a in arrays]
    return [driver.module().to_device(a) for a in arrays]


def on_host(arrays: Sequence[Any]) -> list[Array]:
    """Return copies in host memory of arrays of any of these libraries, the bits of bfloat16 as uint16."""
    found: list[Array] = []
    for array in arrays:
        if hasattr(array, "copy_to_host"):
            found.append(array.copy_to_host())
        elif hasattr(array, "detach"):
            host = array.detach().cpu()
            bits = host.view(sys.modules["torch"].uint16) if "bfloat16" in str(host.dtype) else host
            found.append(bits.numpy())
        else:
            found.append(sys.modules["cupy"].asnumpy(array))
    return found


def fastopt(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """The class, with its gradients handed over anew at each step."""
    params, grads = on_device(params), on_device(grads)
    optimizer = Adam(params, lr=LR, betas=BETAS, eps=EPS)
    return lambda: optimizer.step(grads), lambda: on_host(params)


def fastopt_bound(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """The class, bound to its gradients."""
    params = on_device(params)
    optimizer = Adam(params, lr=LR, betas=BETAS, eps=EPS)
    optimizer.bind(on_device(grads))
    return optimizer.step, lambda: on_host(params)


class _Captured:
    """A step that is taken once as it is, then captured, and from then on replayed."""

    def __init__(self, step: Callable[[], object], capture: Callable[[], Callable[[], object]]) -> None:
        self._step, self._capture, self._taken = step, capture, 0

    def __call__(self) -> None:
        self._taken += 1
        if self._taken == 2:
            self._step = self._capture()
        self._step()


def fastopt_graph(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """A step in a CUDA graph."""
    params = on_device(params)
    optimizer = Adam(params, lr=LR, betas=BETAS, eps=EPS, capturable=True)
    optimizer.bind(on_device(grads))
    step = _Captured(optimizer.step, lambda: device.Graph(lambda handle: optimizer.step(stream=handle)))
    return step, lambda: on_host(params)


def _torch_adam(params: Sequence[Array], grads: Sequence[Array], **options: bool) -> Any:
    torch, name = _torch()
    tensors = [torch.from_numpy(p).to(name, copy=True).requires_grad_() for p in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g).to(name, copy=True)
    return torch.optim.Adam(tensors, lr=LR, betas=BETAS, eps=EPS, **options).step, lambda: on_host(tensors)


def torch_foreach(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """PyTorch's Adam, one operation over all tensors at a time."""
    return _torch_adam(params, grads, foreach=True)


def torch_fused(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """PyTorch's Adam in one kernel."""
    return _torch_adam(params, grads, fused=True)


def torch_graph(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """PyTorch's fused Adam in a CUDA graph."""
    torch, name = _torch()
    if name != "cuda":
        raise MissingPeerError("PyTorch's graphs need a GPU")
    plain, read = _torch_adam(params, grads, fused=True, capturable=True)

    def first() -> None:
        side = torch.cuda.Stream()  # what PyTorch wants before a capture
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            plain()
        torch.cuda.current_stream().wait_stream(side)

    def capture() -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            plain()
        replay: Callable[[], object] = graph.replay
        return replay

    return _Captured(first, capture), read


# Adam a second time, as a user of CuPy writes it: a baseline is measured and must not be fastopt's own formula.
_KERNEL = """
m = b1 * m + gain1 * g;
v = b2 * v + gain2 * g * g;
p = p - lr * m / (sqrtf(v / c2) + eps);
"""


def cupy(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """Adam as an ElementwiseKernel of CuPy's, one launch for each tensor."""
    library = _cupy()
    kernel = library.ElementwiseKernel(
        "float32 g, float32 lr, float32 b1, float32 gain1, float32 b2, float32 gain2, float32 c2, float32 eps",
        "float32 p, float32 m, float32 v",
        _KERNEL,
        "adam",
    )
    params, grads = on_device(params, "cupy"), on_device(grads, "cupy")
    moments = [(library.zeros_like(p), library.zeros_like(p)) for p in params]
    (b1, b2), taken = BETAS, [0]

    def step() -> None:
        taken[0] += 1
        lr, c2 = LR / (1 - b1 ** taken[0]), 1 - b2 ** taken[0]
        for p, g, (m, v) in zip(params, grads, moments, strict=True):
            kernel(g, lr, b1, 1 - b1, b2, 1 - b2, c2, EPS, p, m, v)

    return step, lambda: on_host(params)


def optax(params: Sequence[Array], grads: Sequence[Array]) -> Any:
    """Optax's Adam, compiled by JAX, its buffers donated."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # three quarters of the memory, else
    step, held, _ = compiled_optax(params, grads, "cpu" if driver.simulated() else "gpu")
    return device.OwnStreams(step), lambda: [np.asarray(p) for p in held[0]]


PEERS: dict[str, Peer] = {
    "fastopt": fastopt,
    "fastopt bound": fastopt_bound,
    "fastopt graph": fastopt_graph,
    "PyTorch foreach": torch_foreach,
    "PyTorch fused": torch_fused,
    "PyTorch graph": torch_graph,
    "CuPy": cupy,
    "Optax": optax,
}
# Bytes per element that one of them needs while it steps: all arrays, and what it allocates.
_NEEDS = dict.fromkeys(PEERS, run.BYTES.read) | {"PyTorch foreach": 28, "Optax": 40}


def batches(elements: int, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield which of them to measure together, of each one copy: all, or as many as fit, fastopt always among them."""
    first, *rest = names
    together, left = [first], device.room() - _NEEDS[first] * elements
    for name in rest:
        if len(together) > 1 and _NEEDS[name] * elements > left:
            yield 1, together
            together, left = [first], device.room() - _NEEDS[first] * elements
        together.append(name)
        left -= _NEEDS[name] * elements
    yield 1, together


def least(elements: int) -> int:
    """Return the bytes of GPU memory without which so many elements cannot be measured."""
    return round(2 * max(_NEEDS[name] for name in run.OWN) * elements)


def release() -> None:
    """Return to the GPU what libraries keep of memory that nobody uses any more."""
    gc.collect()
    if driver.simulated():
        return
    driver.module().current_context().deallocations.clear()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def roofline(elements: int, own: Sequence[type[Any]] = (), seconds: float = 1.0) -> Iterator[measure.Speed]:
    """Yield what each optimizer, and the user's own, makes of the GPU's memory, beside a copy of as many bytes."""
    rng = np.random.default_rng(0)
    p, g = (rng.random(elements, np.float32) for _ in range(2))
    for cls in (*OPTIMIZERS.values(), *own):
        optimizer = cls(on_device([p]))
        optimizer.bind(on_device([g]))
        (group,) = optimizer._groups
        moved = measure.bytes_of(group.codecs).moved
        functions: dict[str, Callable[[], object]] = {
            "step": optimizer.step,
            "stream": device.Copy(round(moved * elements)),
        }
        for function in functions.values():
            function()
        taken = measure.times(functions, rounds=200, seconds=seconds, turn=run.TURN, call=device.call)
        yield measure.speed_of(cls, elements, np.dtype(np.float32), moved, taken)
        release()


def _streaming(elements: int) -> Callable[[], object]:
    return device.Copy(round(run.BYTES.moved * elements))


MACHINE = run.Machine("cuda", PEERS, _streaming, device.call, batches, release)
