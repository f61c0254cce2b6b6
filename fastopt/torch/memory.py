"""The memory of tensors, as the engine takes it: one dimension, contiguous, whatever the order of their elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .._arrays import gpu
from .._arrays.tensors import as_array, obstacle
from .._arrays.view import View
from .._engine.allocation import Place, Pool

#: In which format each dtype of a parameter is stored; a complex number is two real ones.
FORMATS = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.complex64: "float32",
    torch.complex128: "float64",
}


def steps_of(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """Return the stride and the length of each dimension longer than 1, the shortest stride first."""
    return sorted((stride, n) for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if n != 1)


def is_dense(tensor: torch.Tensor) -> bool:
    """Say whether the elements of a tensor lie side by side, in whatever order."""
    expected = 1
    for stride, n in steps_of(tensor):
        if stride != expected and tensor.numel():
            return False
        expected *= n
    return True


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Say whether two elements of a tensor may have one place in memory."""
    reach = 0
    for stride, n in steps_of(tensor):
        if stride <= reach:
            return bool(tensor.numel())
        reach += stride * (n - 1)
    return False


def same_order(tensor: torch.Tensor, like: torch.Tensor) -> bool:
    """Say whether two tensors of one shape have their elements in the same order, one behind the other."""
    lengths = zip(tensor.shape, tensor.stride(), like.stride(), strict=True)
    return all(n == 1 or own == other for n, own, other in lengths) or not tensor.numel()


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a dense tensor in one dimension; of a complex one, real and imaginary parts in turn."""
    plain = tensor.detach()
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return plain.as_strided((plain.numel(),), (1,))


def array_of(name: str, tensor: torch.Tensor) -> Any:
    """Return the memory of a dense tensor as the engine takes it, an ndarray or the view of an array on a GPU."""
    return as_array(gpu.as_view(name, flat(tensor)))


class Layout(NamedTuple):
    """How the tensor of a state lies in memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, array: Any) -> torch.Tensor:
        """Return the memory of an array of one dimension, which the engine made, as such a tensor."""
        made: torch.Tensor = array.owner if isinstance(array, View) else torch.from_numpy(array)
        if self.dtype.is_complex:
            made = torch.view_as_complex(made.view(-1, 2))
        elif made.dtype is not self.dtype:
            made = made.view(self.dtype)  # bfloat16, of which NumPy knows the bits alone
        return made.as_strided(self.shape, self.stride)

    def fits(self, tensor: torch.Tensor, device: torch.device) -> bool:
        """Say whether a tensor lies so, and can be updated where it is."""
        strides = zip(self.shape, tensor.stride(), self.stride, strict=True) if tensor.shape == self.shape else None
        return (
            strides is not None
            and all(n == 1 or own == wanted for n, own, wanted in strides)
            and tensor.dtype is self.dtype
            and tensor.device == device
            and not (tensor.requires_grad or (tensor.device.type == "cpu" and obstacle(tensor)))
        )


def layout_of(like: torch.Tensor, dtype: np.dtype[Any], codec: str, length: int | None) -> Layout:
    """Return how a state of a parameter lies: as the parameter does, or in one dimension of `length`.

    Numbers of another dtype than its own that belong to a complex one are in one dimension, real and imaginary in turn.
    """
    kind = torch.bfloat16 if codec.startswith("bfloat16") else getattr(torch, dtype.name)
    if kind is torch.uint16:
        kind = torch.int16  # the same bits, in a dtype that PyTorch can pickle
    if length is None and like.is_complex():
        if kind is like.real.dtype:
            kind = like.dtype
        else:
            length = 2 * like.numel()
    return Layout(kind, tuple(like.shape), like.stride()) if length is None else Layout(kind, (length,), (1,))


def lies(tensor: torch.Tensor) -> Layout:
    """Return how a tensor lies in memory; one that is not dense, how a dense one would."""
    strides = tensor.stride() if is_dense(tensor) else torch.empty(tensor.shape, device="meta").stride()
    return Layout(tensor.dtype, tuple(tensor.shape), strides)


def pooled(layouts: Sequence[Layout], places: Sequence[Place]) -> list[torch.Tensor]:
    """Return tensors in the host's memory that lie so, all 0, and begin at such places: in one pool."""
    sizes = [math.prod(layout.shape) * layout.dtype.itemsize for layout in layouts]
    pool = Pool(zip(sizes, places, strict=True))
    each = zip(layouts, sizes, places, strict=True)
    return [
        torch.from_numpy(pool.take(nbytes, place)).view(layout.dtype).as_strided(layout.shape, layout.stride)
        for layout, nbytes, place in each
    ]


def copies(tensors: Sequence[torch.Tensor], places: Sequence[Place]) -> list[torch.Tensor]:
    """Return copies of strided tensors in the host's memory, as :func:`pooled` has them."""
    made = pooled(list(map(lies, tensors)), places)
    return [new.copy_(tensor.detach()) for new, tensor in zip(made, tensors, strict=True)]


def check_parameter(name: str, p: torch.Tensor) -> None:
    """Raise unless there is memory to update.

    Raises
    ------
    TypeError
        If it is sparse, on no CPU and no GPU of NVIDIA, or of a dtype that cannot be updated.
    ValueError
        If two of its elements have one place.
    """
    found = "" if p.is_cuda else obstacle(p)
    if found:
        raise TypeError(f"{name} {found}")
    if p.dtype not in FORMATS:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in FORMATS)
        raise TypeError(f"{name} must have one of the dtypes {allowed}; got {str(p.dtype).removeprefix('torch.')}")
    if overlaps_itself(p):
        raise ValueError(
            f"{name} has elements that share memory: shape {tuple(p.shape)}, strides {p.stride()}; pass .clone() of it"
        )


def fitting(name: str, owner: str, grad: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a gradient, or a copy of it, with its elements in the order of `like`, the memory that is updated.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As :func:`check_gradient`.
    """
    check_gradient(name, owner, grad, like)
    if same_order(grad, like) and (grad.is_cuda or not obstacle(grad)):
        return grad
    return torch.empty_like(like).copy_(grad.detach())


def suits(grad: torch.Tensor, p: torch.Tensor) -> bool:
    """Say whether a gradient is one for a parameter."""
    return grad.layout is torch.strided and grad.dtype is p.dtype and grad.device == p.device and grad.shape == p.shape


def check_gradient(name: str, owner: str, grad: torch.Tensor, p: torch.Tensor) -> None:
    """Raise unless a gradient is one for a parameter.

    Raises
    ------
    RuntimeError
        If it is sparse, as an optimizer of PyTorch does.
    TypeError
        If it has another dtype or device than its parameter.
    ValueError
        If it has another shape.
    """
    if grad.layout is not torch.strided:
        raise RuntimeError(f"{owner} does not support sparse gradients; {name} has the layout {grad.layout}")
    if grad.dtype is not p.dtype or grad.device != p.device:
        raise TypeError(
            f"{name} must be {p.dtype} on {p.device}, as its parameter is; got {grad.dtype} on {grad.device}"
        )
    if grad.shape != p.shape:
        raise ValueError(f"{name} must have the shape of its parameter, {tuple(p.shape)}; got {tuple(grad.shape)}")


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the addresses of the first element of a tensor and past the last."""
    start, size = tensor.data_ptr(), tensor.element_size()
    return start, start + (sum(stride * (n - 1) for stride, n in steps_of(tensor)) + 1) * size


def places(tensor: torch.Tensor) -> Any:
    """Return the address of each element of a tensor."""
    found = np.zeros((), np.int64)
    for stride, n in steps_of(tensor):
        found = np.add.outer(found, np.arange(n, dtype=np.int64) * stride)
    return (tensor.data_ptr() + found * tensor.element_size()).ravel()


def check_apart(names: Sequence[str], tensors: Sequence[torch.Tensor], staged: Sequence[bool]) -> None:
    """Raise if a tensor that is updated by way of a copy shares an element with another; those in between may.

    Raises
    ------
    ValueError
        Naming the two.
    """
    if not any(staged):
        return
    before: list[tuple[int, int]] = []  # those that end after the next begins
    for start, end, i in sorted((*extent(t), i) for i, t in enumerate(tensors) if t.numel()):
        before = [(other_end, k) for other_end, k in before if other_end > start]
        for _, k in before:
            if (staged[i] or staged[k]) and _share(tensors[i], tensors[k]):
                first, second = sorted((names[i], names[k]))
                raise ValueError(f"{first} and {second} share memory: each parameter must have its own")
        before.append((end, i))


def _share(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors, of which one begins within the other, have an element in common."""
    return (is_dense(tensor) and is_dense(other)) or bool(np.intersect1d(places(tensor), places(other)).size)
