"""A stand-in for the driver and the device below :mod:`fastopt._arrays.driver`.

The package, numba-cuda's compiler, NVVM, link-time optimization and numba-cuda's conversion of arguments are the real
ones. Kernels are executed by :mod:`tests.ptx.execute`, from the PTX that a device would be given, at the addresses of
the host.
"""

import contextlib
import ctypes
import weakref
from types import SimpleNamespace

import numpy as np

from fastopt._arrays import driver
from fastopt._arrays.view import View
from fastopt._engine import single, streams
from fastopt._kernels import compiler

from .execute import Launch
from .memory import Array, Memory
from .parse import Module


class Device:
    """The stand-in for a device; :meth:`install` puts it in its place.

    Attributes
    ----------
    blocks : int
        How many blocks fill it.
    reverse : bool
        Execute the last block first.
    launches : int
    capability : tuple of int
        The compute capability that kernels are compiled for.
    """

    def __init__(self):
        self.memory = Memory()
        self._kernels, self._change = weakref.WeakKeyDictionary(), lambda text: text
        self.capability = (9, 0)
        self.reset()

    def reset(self):
        """Be as at first, but for arrays and kernels."""
        self.blocks, self.reverse, self.launches = 2, False, 0

    def array(self, values, name="array", shift=0, writable=True):
        return Array(self.memory, values, name, shift, writable)

    @contextlib.contextmanager
    def of(self, capability):
        """Compile kernels for another compute capability."""
        before, self.capability = self.capability, capability
        forget()
        try:
            yield
        finally:
            self.capability = before
            forget()

    @contextlib.contextmanager
    def changed(self, change):
        """Execute kernels after `change` was applied to their PTX."""
        kept = self._kernels, self._change
        self._kernels, self._change = weakref.WeakKeyDictionary(), change
        try:
            yield
        finally:
            self._kernels, self._change = kept

    def text_of(self, kernel):
        """Return the PTX of a kernel of numba-cuda's: after link-time optimization where there is any."""
        library = kernel._codelibrary
        return library.get_lto_ptx(cc=self.capability) if library._lto else library.get_asm_str(cc=self.capability)

    def launch(self, kernel, arguments, grid, block, stream=0, sharedmem=0):
        """Stand for the method ``launch`` of numba-cuda's kernels."""
        assert grid[1:] == block[1:] == (1, 1)
        assert (stream, sharedmem) == (0, 0)
        if kernel not in self._kernels:
            self._kernels[kernel] = Launch(Module(self._change(self.text_of(kernel))), self.memory)
        converted = []
        for kind, value in zip(kernel.argument_types, arguments, strict=True):
            kernel._prepare_args(kind, value, 0, [], converted)
        order = range(grid[0])
        self._kernels[kernel].run(
            [bytes(a) for a in converted], grid[0], block[0], order[::-1] if self.reverse else order
        )
        self.launches += 1
        self.memory.check_guards()

    def _copy_of(self, array):
        # Kernels read tables of addresses and chunks; scalars and the step number they write.
        return self.array(array, f"table of {array.dtype}", writable=array.dtype != np.int64)

    @contextlib.contextmanager
    def install(self, monkeypatch):
        """Have fastopt and numba-cuda use the stand-in; nothing of it stays."""
        from numba.cuda import codegen, dispatcher
        from numba.cuda.cudadrv import driver as numba_driver

        device = self

        def launch(kernel, *arguments):
            device.launch(kernel, *arguments)

        with monkeypatch.context() as m:
            m.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=device.capability))
            m.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda library, cc=None: cc or device.capability)
            m.setattr(dispatcher._Kernel, "bind", lambda kernel: None)
            m.setattr(dispatcher._Kernel, "launch", launch)
            m.setattr(numba_driver, "_to_core_stream", lambda stream: stream)
            m.setattr(driver, "why_not", lambda: None)
            m.setattr(driver, "on", lambda number: contextlib.nullcontext())
            m.setattr(streams, "blocks", lambda number: device.blocks)
            m.setattr(driver, "address_of", lambda array: array.address)
            m.setattr(driver, "copy_of", self._copy_of)
            m.setattr(
                driver, "new_zeros", lambda shape, dtype, order: self.array(np.zeros(shape, dtype, order), "a state")
            )
            m.setattr(streams, "stream", lambda handle: 0)
            m.setattr(streams, "capturing", lambda handle: False)
            m.setattr(driver, "device_at", lambda address: 0)
            m.setattr(driver, "copy_to_host", _read)
            m.setattr(driver, "copy_to_device", _write)
            m.setattr(streams, "Uploads", _Uploads)
            forget()
            try:
                yield self
            finally:
                forget()


def forget():
    """Forget the kernels and tables of a device."""
    for cache in (compiler.device_sweep, single._chunks, single._table, streams._launcher):
        cache.cache_clear()
    compiler._advances.clear()


def _read(address, out):
    ctypes.memmove(out.ctypes.data, address, out.nbytes)


def _write(address, array):
    ctypes.memmove(address, array.ctypes.data, array.nbytes)


class _Uploads:
    def __init__(self, length):
        self._length = length

    def send(self, row, address, handle):
        assert row.shape == (self._length,)
        _write(address, row)


def host(array):
    """Return the memory behind an array on the stand-in, or behind the header of one."""
    return (array.owner if isinstance(array, View) else array).array


def arrays_of(opt):
    """Return the memory of the states of an optimizer on the stand-in, by array and tensor."""
    return [[None if a is None else host(a) for a in row] for row in opt._states.values()]
