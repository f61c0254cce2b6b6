"""The compiler of GPU kernels: everything that is particular to that of numba-cuda.

Another compiler of Python for GPUs takes its place by answering to the names here and in
:func:`fastopt._kernels.targets.cuda`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._arrays import driver


def complete() -> None:
    """Add to numba-cuda what its rules for NumPy lack.

    It infers types for these functions and has no code for them; for the others there is code, which is used for arrays
    elsewhere.
    """
    import math

    from numba.cuda.mathimpl import get_unary_impl_for_fn_and_ty
    from numba.cuda.np.ufunc_db import get_ufunc_info
    from numba.cuda.ufuncs import ufunc_db

    def root(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return get_unary_impl_for_fn_and_ty(math.sqrt, signature.args[0])(context, builder, signature, arguments)

    ufunc_db().setdefault(np.sqrt, {"f->f": root, "d->d": root})
    exact = (np.absolute, np.isfinite, np.isinf, np.negative, np.reciprocal, np.sign, np.signbit, np.square, np.trunc)
    for function in exact:
        ufunc_db().setdefault(function, get_ufunc_info(function))


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Within this block, kernels are compiled so that a product and a sum are two operations, each rounded by itself.

    NVVM has an option for that, and numba-cuda no way to give it; here what holds the code of a kernel gives it. As the
    lock of its compiler is held, no other thread compiles meanwhile.
    """
    from numba.cuda.codegen import JITCUDACodegen
    from numba.cuda.dispatcher import global_compiler_lock

    usual = JITCUDACodegen._library_class

    class Library(usual):  # type: ignore[misc, valid-type]  # numba-cuda is untyped
        _nvvm_options: dict[str, Any]

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._nvvm_options = self._nvvm_options | {"fma": False}

    with global_compiler_lock:
        JITCUDACodegen._library_class = Library
        try:
            yield
        finally:
            JITCUDACodegen._library_class = usual


def compiled(function: Callable[..., Any], signature: Any, **flags: Any) -> Any:
    """Return the kernel for `signature`, on the current device."""
    cuda = driver.module()
    if driver.simulated():
        return cuda.jit(function)
    complete()
    with unfused():
        try:
            return cuda.jit(signature, **flags)(function)
        except KeyError as error:
            if error.args and isinstance(error.args[0], np.ufunc):
                name = error.args[0].__name__
                raise TypeError(f"np.{name} is not among the functions that numba-cuda compiles for a GPU") from None
            raise
