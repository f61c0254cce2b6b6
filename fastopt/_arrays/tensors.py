"""Arrays of other libraries in the host's memory, seen as NumPy's: PyTorch's tensors, and what shows itself by DLPack.

Nothing here imports PyTorch: who has a tensor has it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

#: DLPack's number for the host's memory.
_CPU = 1


def is_tensor(given: Any) -> bool:
    """Say whether something is a tensor of PyTorch, on whatever device."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(given, kind)


def obstacle(tensor: Any) -> str:
    """Return what keeps a tensor from being seen as an array and what to do about it; "" if nothing does."""
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"is sparse, of the layout {layout}: pass a dense one, such as .to_dense()"
    if tensor.is_meta:
        return 'is on the device "meta" and has no memory: pass one that has, such as .to_empty() of its module makes'
    if tensor.device.type != "cpu":
        return f'is on the device "{tensor.device}": pass one on a CPU or on a GPU of NVIDIA'
    if type(tensor).__name__ == "DTensor":
        return "is a DTensor, of which a part is in this process: give it to an optimizer of fastopt.torch"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return "is of a class that has no memory of its own: pass the plain tensors that it consists of"
    if tensor._is_zerotensor():
        return "has no memory, as all that it has are zeros: pass .clone() of it"
    if tensor.is_conj() or tensor.is_neg():
        return "is a view that negates when it is read: pass .resolve_neg().resolve_conj() of it"
    return ""


def shows_dlpack(given: Any) -> bool:
    """Say whether something shows itself by DLPack as in the host's memory, and is neither NumPy's nor PyTorch's."""
    kind = type(given)
    if issubclass(kind, (np.ndarray, np.generic)) or not hasattr(kind, "__dlpack_device__") or is_tensor(given):
        return False
    return bool(given.__dlpack_device__()[0] == _CPU)


def as_array(given: Any, *, written: bool = True) -> Any:
    """Return the memory of an array of another library as an ndarray; anything else, and what cannot be seen so, as is.

    Of PyTorch's tensors NumPy knows the bits of bfloat16 alone. Whether gradients are tracked does not matter. What is
    `written` must say by DLPack that it may be.
    """
    if shows_dlpack(given):
        try:
            array = np.from_dlpack(given)
        except (BufferError, RuntimeError, TypeError, ValueError):  # such as bfloat16, which NumPy does not know
            return given
        return array if array.flags.writeable or not written else given
    if not is_tensor(given) or obstacle(given):
        return given
    torch = sys.modules["torch"]
    plain = given.detach()
    return (plain.view(torch.uint16) if plain.dtype is torch.bfloat16 else plain).numpy()


def note_change(tensors: list[Any]) -> None:
    """Have autograd know that tensors were changed, as of every change in place."""
    if tensors:
        sys.modules["torch"].autograd.graph.increment_version(tensors)


def check_in_place(name: str, tensor: Any, array: Any) -> None:
    """Raise unless a tensor still has the memory that it was seen to have.

    Raises
    ------
    ValueError
        If it was given other memory, or another shape, since then.
    """
    if (array.size and tensor.data_ptr() != array.ctypes.data) or tensor.shape != array.shape:
        raise ValueError(
            f"{name} was given other memory since the optimizer was made, as {name}.data = ... and Module.to do: write "
            f"into it, {name}.copy_(values), or make a new optimizer"
        )
