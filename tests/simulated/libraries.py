"""Stand-ins for PyTorch's and CuPy's arrays on a GPU: what fastopt and its tests use of them, in host memory."""

import contextlib
import importlib.util
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from .device import Device


def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


if importlib.util.find_spec("torch"):
    import torch as _torch

    class Tensor(_torch.Tensor):
        """A tensor in host memory that says that it is on a GPU, and shows itself by DLPack."""

        __module__ = "torch"

        @staticmethod
        def of(tensor):
            return tensor.as_subclass(Tensor)

        def __dlpack_device__(self):
            return (2, 0)


def imitate_torch(monkeypatch):
    """Have PyTorch make such tensors, whatever device it is asked for, and answer for its streams."""
    real = torch()

    def imitated(maker):
        return lambda *given, device=None, **kwargs: Tensor.of(maker(*given, **kwargs))

    for name in ("zeros", "ones"):
        monkeypatch.setattr(real, name, imitated(getattr(real, name)))
    waits = {"wait_stream": lambda other: None}  # everything is done at once
    monkeypatch.setattr(real.cuda, "current_stream", lambda device=None: SimpleNamespace(cuda_stream=0, **waits))
    monkeypatch.setattr(real.cuda, "Stream", lambda: SimpleNamespace(cuda_stream=7, **waits))
    monkeypatch.setattr(real.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(real.cuda, "synchronize", lambda: None)


class ndarray(Device):  # noqa: N801  as CuPy calls it
    """An array as CuPy's: with its interface alone."""

    __module__ = "cupy"

    def __getitem__(self, index):
        return ndarray(self.array[index])

    def __setitem__(self, index, value):
        self.array[index] = value.array

    def __getattr__(self, name):
        return getattr(self.array, name)

    def __float__(self):
        return float(self.array)

    def __iadd__(self, number):
        self.array += number
        return self

    def __isub__(self, number):
        self.array -= number
        return self


class Stream(contextlib.nullcontext):
    """A stream that does everything at once."""

    ptr = 7

    def __init__(self, *, non_blocking):
        super().__init__()

    def synchronize(self):
        """Everything was done at once."""


class ElementwiseKernel:
    """CuPy's kernel, whose body is C: assignments of products, quotients and roots, which Python reads alike."""

    def __init__(self, inputs, outputs, body, name):
        self._inputs, self._outputs = ([text.split()[1] for text in t.split(",")] for t in (inputs, outputs))
        self._body = "\n".join(line.strip() for line in body.replace("const float ", "").split(";"))
        assert re.fullmatch(r"\w+", name)

    def __call__(self, *given):
        names = [*self._inputs, *self._outputs]
        values = {n: a.array if isinstance(a, ndarray) else np.float32(a) for n, a in zip(names, given, strict=True)}
        found = values | {"sqrtf": np.sqrt}
        exec(self._body, {}, found)
        for name in self._outputs:
            values[name][...] = found[name]


def imitate_cupy(monkeypatch):
    """Put a module `cupy` in place of the real one."""
    module = ModuleType("cupy")
    module.__version__ = "0"
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "float16", "float32", "float64"):
        setattr(module, name, np.dtype(name).type)
    module.ndarray, module.ElementwiseKernel = ndarray, ElementwiseKernel
    module.asarray = lambda array: ndarray(np.array(array))
    module.asnumpy = lambda array: array.array.copy()
    module.zeros = lambda shape, dtype: ndarray(np.zeros(shape, dtype))
    module.empty = lambda shape, dtype: ndarray(np.empty(shape, dtype))
    module.empty_like = lambda like: ndarray(np.empty_like(like.array))
    module.zeros_like = lambda like, dtype=None: ndarray(np.zeros_like(like.array, dtype))
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    module.get_default_memory_pool = lambda: pool
    module.cuda = SimpleNamespace(
        Stream=Stream,
        get_current_stream=lambda device: SimpleNamespace(ptr=0),
        runtime=SimpleNamespace(getDeviceCount=lambda: 1),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
