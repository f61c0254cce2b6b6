"""The ways between parameters and the host's memory: none for those that are there, staged copies for a GPU's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from .memory import check_gradient, is_dense, same_order, suits


def link_to(device: torch.device) -> Near | Far:
    """Return the way to parameters on a device."""
    return Near() if device.type == "cpu" else Far(Cuda(device))


def laid_out(p: torch.Tensor, dtype: torch.dtype, device: str = "cpu", **options: Any) -> torch.Tensor:
    """Return memory in the host for the elements of a parameter, side by side, in its order where they are so."""
    plain = p.detach()
    if is_dense(plain):
        return torch.empty_like(plain, dtype=dtype, device=device, **options)
    return torch.empty(plain.shape, dtype=dtype, device=device, **options)


def _lies_as(weight: torch.Tensor, p: torch.Tensor) -> bool:
    """Say whether a weight is in the host's memory, its elements in the order of those of its parameter."""
    like = p.detach()
    return weight.device.type == "cpu" and (not is_dense(like) or same_order(weight, like))


class Near:
    """Parameters in the host's memory: gradients are read, and copies written, where they are."""

    def holds(self, p: torch.Tensor, dtype: torch.dtype) -> bool:
        """Say whether a parameter is a weight of this dtype itself."""
        return p.dtype is dtype

    def pins(self, p: torch.Tensor, dtype: torch.dtype) -> bool:
        """Say whether the weight of a parameter must be in pinned memory."""
        return False

    def fits(self, p: torch.Tensor, weight: torch.Tensor) -> bool:
        """Say whether a weight lies in such memory."""
        return _lies_as(weight, p)

    def copy_for(self, p: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
        """Return where the step writes the parameter; None where that is the weight."""
        return None if weight is p else p


class Far:
    """Parameters on a device. Gradients go down, and parameters up, by way of pinned memory and a stream of its own.

    Of a gradient that went down it is known which tensor it was and how often that had changed: one that is another at
    the step, since somebody clipped or unscaled it, goes down again.

    Parameters
    ----------
    runtime : Cuda
        Of the device.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._down: dict[torch.Tensor, torch.Tensor] = {}
        self._up: dict[torch.Tensor, torch.Tensor] = {}
        self._known: dict[torch.Tensor, tuple[weakref.ref[torch.Tensor], int]] = {}

    def holds(self, p: torch.Tensor, dtype: torch.dtype) -> bool:
        """Say whether a parameter is a weight of this dtype itself."""
        return False

    def pins(self, p: torch.Tensor, dtype: torch.dtype) -> bool:
        """Say whether the weight of a parameter must be in pinned memory, since it goes up as it is."""
        return bool(self._runtime.pins and p.dtype is dtype)

    def fits(self, p: torch.Tensor, weight: torch.Tensor) -> bool:
        """Say whether a weight lies in such memory."""
        return (not self.pins(p, weight.dtype) or weight.is_pinned()) and _lies_as(weight, p)

    def copy_for(self, p: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
        """Return where the step writes the parameter; None where that is the weight."""
        if p.dtype is weight.dtype:
            self._up[p] = weight
            return None
        return self._buffer(self._up, p)

    def _buffer(self, known: dict[torch.Tensor, torch.Tensor], p: torch.Tensor) -> torch.Tensor:
        """Return pinned memory for the elements of a parameter, the known one if it still fits."""
        old = known.get(p)
        if old is None or old.dtype is not p.dtype or old.shape != p.shape or not self.fits(p, old):
            known[p] = laid_out(p, p.dtype, pin_memory=self._runtime.pins)
        return known[p]

    def knows(self, p: torch.Tensor, grad: torch.Tensor) -> bool:
        """Say whether the gradient of a parameter, as it is now, is on its way down or there."""
        known = self._known.get(p)
        return known is not None and known[0]() is grad and known[1] == grad._version

    def fetch(self, p: torch.Tensor, grad: torch.Tensor) -> None:
        """Begin to bring the gradient of a parameter down, after all that is enqueued on the current stream."""
        self._runtime.after_current()
        self._runtime.copy(self._buffer(self._down, p), grad.detach())
        self._known[p] = weakref.ref(grad), grad._version

    def gradient(self, p: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a parameter in the host's memory; it is there after :meth:`wait`."""
        return self._down[p]

    def wait(self) -> None:
        """Wait until all that was on its way is there."""
        self._runtime.wait()

    def begin(self) -> None:
        """Have what goes up from now on come after all that reads the parameters, on the current stream."""
        self._runtime.after_current()

    def send(self, p: torch.Tensor) -> None:
        """Begin to bring a parameter up."""
        self._runtime.copy(p.detach(), self._up[p])

    def end(self) -> None:
        """Have all that the current stream is given from now on see what went up."""
        self._runtime.before_current()

    def is_capturing(self) -> bool:
        """Say whether the current stream is being captured into a graph."""
        return bool(self._runtime.is_capturing())


class Cuda:
    """What is used of CUDA, all of it; the tests have another in its place. It has not been run on a GPU.

    Parameters
    ----------
    device : torch.device
    """

    #: Whether the host's memory is pinned, without which copies are not made beside other work.
    pins = True

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def after_current(self) -> None:
        """Have later copies wait for what is enqueued on the current stream."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def before_current(self) -> None:
        """Have what is enqueued later on the current stream wait for the copies."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        """Enqueue a copy."""
        with torch.cuda.stream(self._stream):
            to.copy_(source, non_blocking=True)
        for tensor in (to, source):
            if tensor.is_cuda:
                tensor.record_stream(self._stream)  # its memory is not for others before that

    def wait(self) -> None:
        """Wait for all copies."""
        self._stream.synchronize()

    def is_capturing(self) -> bool:
        """Say whether work is not done, but recorded."""
        return torch.cuda.is_current_stream_capturing()


class Links:
    """The ways to all devices that parameters are on, and the hooks by which gradients go down as they come.

    Parameters
    ----------
    overlap : bool
        Whether there are hooks.
    """

    def __init__(self, *, overlap: bool) -> None:
        self._overlap, self._by_device = overlap, dict[torch.device, Near | Far]()
        self._hooks: list[Any] = []
        self._close = weakref.finalize(self, _remove, self._hooks)
        self._close.atexit = False

    def of(self, p: torch.Tensor) -> Near | Far:
        """Return the way to a parameter.

        Raises
        ------
        ValueError
            If it was moved.
        """
        link = self._by_device.get(p.device)
        if link is None:
            raise ValueError(f"a parameter was moved to {p.device} since the optimizer was made: make a new one")
        return link

    def reach(self, params: list[torch.Tensor]) -> None:
        """Have ways to parameters, of which no gradient has come yet."""
        for device in dict.fromkeys(p.device for p in params):
            if device not in self._by_device:
                self._by_device[device] = link_to(device)
        if self._overlap and self._close.alive:
            fetch = _fetcher(weakref.ref(self))
            far = [p for p in params if isinstance(self.of(p), Far) and p.requires_grad]
            for p in far:
                self._hooks.append(p.register_post_accumulate_grad_hook(fetch))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Remove all hooks; there will be no others."""
        self._close()

    def gradients(
        self, params: list[torch.Tensor], grads: list[torch.Tensor], name_of: Callable[[torch.Tensor], str]
    ) -> list[torch.Tensor]:
        """Return the gradients of parameters in the host's memory, once they are there.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            If one is none for its parameter, named by `name_of`; or if a graph is being captured.
        """
        far: dict[torch.Tensor, Far] = {p: link for p in params if isinstance(link := self.of(p), Far)}
        if not far:
            return grads
        links = dict.fromkeys(far.values())
        if any(link.is_capturing() for link in links):
            raise RuntimeError("a step of Offload waits for gradients in the host's memory: no graph can hold it")
        late = [(p, grad) for p, grad in zip(params, grads, strict=True) if p in far and not far[p].knows(p, grad)]
        for p, grad in late:
            if not suits(grad, p):  # names take time to find
                check_gradient(name_of(p), "Offload", grad, p)
        for p, grad in late:
            far[p].fetch(p, grad)
        for link in links:
            link.wait()
        return [far[p].gradient(p) if p in far else grad for p, grad in zip(params, grads, strict=True)]


def _fetcher(links: weakref.ref[Links]) -> Callable[[torch.Tensor], None]:
    """Return the hook of a parameter whose gradient has come, which keeps nothing alive."""

    def fetch(p: torch.Tensor) -> None:
        own = links()
        link = None if own is None else own._by_device.get(p.device)
        grad = p.grad
        if isinstance(link, Far) and grad is not None and suits(grad, p) and not link.is_capturing():
            link.fetch(p, grad)

    return fetch


def _remove(hooks: list[Any]) -> None:
    """Remove hooks."""
    while hooks:
        hooks.pop().remove()
