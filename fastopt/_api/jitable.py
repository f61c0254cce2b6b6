"""The updates inside a user's own compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Unpack, cast

import numpy as np
from numba import types
from numba.core.errors import NumbaTypeError
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from .._arrays.checks import Array, check_integer
from .._engine.single import update_arrays
from .._kernels import array_tuples as tuples
from .._kernels import cache, compiler
from .._kernels.symbols import digest, named_by_contents
from .arguments import check_alone
from .method import Method
from .optimizer import Optimizer

P = ParamSpec("P")
#: p, g, the states, the step and lr, by position.
Update = Callable[[Array, Array, Unpack[tuple[Array, ...]], int, float], None]


def jitable(
    optimizer: Callable[Concatenate[Any, Any, P], Optimizer], *nothing: P.args, **hyperparameters: P.kwargs
) -> Update:
    """Return an update that can be called inside ``numba.njit`` functions, and outside of them too.

    Parameters
    ----------
    optimizer : type
        A class such as :class:`fastopt.Adam`.
    **hyperparameters
        As the class has them, `reproducible` too, frozen into the compiled code; `lr` is not among them.

    Returns
    -------
    callable
        ``update(p, g, *states, step, lr)``, all by position. `p`, `g` and the states that these
        hyperparameters call for are arrays of one dtype (float32 or float64) and one shape, C-contiguous or
        all Fortran-contiguous, `p` and the states writable, updated in place. `step` counts from 1, `lr` is a
        number. Single-threaded, whatever the size; several threads may call it on different arrays. A wrong
        dtype or layout is a typing error when the caller is compiled; wrong sizes, shared memory, `step` or
        `lr` raise ValueError before anything is written.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is not acceptable.

    Notes
    -----
    The arithmetic is that of the class, bit for bit. A function of yours with ``cache=True`` is compiled anew when
    the update that it was compiled with is not made any more: after a change of its hyperparameters, of the rule, or
    of fastopt. (Where a process makes both updates, and a global name of your module changes from one to the other
    while your file stays the same, Numba does not notice: it looks at no globals.)

    Examples
    --------
    >>> import numba, numpy as np, fastopt
    >>> update = fastopt.jitable(fastopt.Momentum, beta=0.9)
    >>> @numba.njit
    ... def descend(theta, iterations):
    ...     v = np.zeros_like(theta)
    ...     for step in range(1, iterations + 1):
    ...         update(theta, 2 * (theta - 3), v, step, 0.1)
    ...     return theta
    >>> descend(np.zeros(1), 1000).round(6)
    array([3.])
    """
    if nothing:  # it is there because a ParamSpec needs it
        raise TypeError(f"jitable() takes 1 positional argument but {1 + len(nothing)} were given")
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer) and hasattr(optimizer, "rule")):
        raise TypeError(f"optimizer must be a class such as fastopt.Adam, got {optimizer!r}")
    if "lr" in hyperparameters:
        raise TypeError("lr is the last argument of the update that jitable() returns")
    with_hyperparameters = optimizer.with_hyperparameters.__wrapped__
    method: Method = with_hyperparameters(optimizer, **hyperparameters)
    check_alone("jitable()", method.__dict__)
    names = ("p", "g", *method.active_states())
    count = len(names)
    scalars = method.compiled_values()
    reproducible = method.is_reproducible(("float32",))
    contents = digest(method._rule, method._norms, scalars, reproducible)
    cache.present.add(contents)

    def update(*arguments: Any) -> None:
        *arrays, step, lr = _expect(names, arguments, TypeError)
        timed: Method = with_hyperparameters(optimizer, **hyperparameters | {"lr": lr})
        p, g, *states = arrays
        update_arrays(timed, (g, p, *states), ("g", "p", *names[2:]), check_integer("step", step, 1))

    update.__name__ = update.__qualname__ = f"the update of {optimizer.__name__}"

    @overload(update, jit_options=compiler.INSIDE, strict=False)
    def _update(*arguments: Any) -> Any:
        dtype = _check_types(names, _expect(names, arguments, NumbaTypeError))
        method.check_dtypes(dtype)
        run = compiler.run_whole(method.plain_spec(dtype))
        itemsize = dtype.itemsize
        cast = np.float32 if dtype == np.float32 else np.float64

        def implementation(*arguments):
            arrays = (arguments[1], arguments[0]) + arguments[2:-2]  # noqa: RUF005  Numba needs the +
            step, lr = arguments[-2], arguments[-1]
            tuples.depends_on(contents)
            shapes, addresses = tuples.shapes(arrays), tuples.addresses(arrays)
            size = arrays[0].size
            if step < 1:
                raise ValueError("step must be an integer >= 1")
            if not (lr >= 0 and lr < np.inf):
                raise ValueError("lr must be a finite number >= 0")
            for k in range(count):
                if shapes[k] != shapes[0]:
                    raise ValueError("the arrays of an update must all have the shape of p")
                for j in range(k):
                    # As the distance is unsigned, it is taken both ways.
                    apart = min(addresses[k] - addresses[j], addresses[j] - addresses[k])
                    if size and apart < np.uint64(size * itemsize):
                        raise ValueError("no two arrays of an update may share memory")
            values = tuples.cast(scalars(float(step), float(lr)), cast)
            for k in range(len(values)):
                if abs(values[k]) == np.inf:
                    raise ValueError("the hyperparameters give a scalar that is too large for the dtype")
            run(addresses, size, values, np.uint32(0), 0)  # nothing here is rounded stochastically

        return named_by_contents(implementation)

    return cast("Update", update)


def _expect(names: tuple[str, ...], arguments: tuple[Any, ...], error: type[Exception]) -> tuple[Any, ...]:
    if len(arguments) != len(names) + 2:
        wanted = ", ".join([*names, "step", "lr"])
        raise error(f"the update takes {wanted} by position; got {len(arguments)} arguments")
    return arguments


def _check_types(names: tuple[str, ...], arguments: tuple[Any, ...]) -> np.dtype[Any]:
    """Return the dtype of the arrays of a call inside compiled code."""
    *arrays, step, lr = arguments
    p = arrays[0]
    for name, kind in zip(names, arrays, strict=True):
        if not isinstance(kind, types.Array):
            raise NumbaTypeError(f"{name} must be an array, got {kind}")
        if kind.dtype not in (types.float32, types.float64):
            raise NumbaTypeError(f"{name} must have dtype float32 or float64, got {kind.dtype}")
        if kind.dtype != p.dtype or kind.ndim != p.ndim:
            raise NumbaTypeError(f"{name} must be like p, {p}; got {kind}")
        if kind.layout != p.layout or kind.layout not in "CF" or not kind.aligned:
            raise NumbaTypeError(f"{name} must be contiguous, in the memory order of p; got {kind}")
        if not kind.mutable and name != "g":
            raise NumbaTypeError(f"{name} is updated in place and must be writable, got {kind}")
    if not isinstance(step, types.Integer):
        raise NumbaTypeError(f"step must be an integer, got {step}")
    if not isinstance(lr, (types.Integer, types.Float)):
        raise NumbaTypeError(f"lr must be a number, got {lr}")
    return as_dtype(p.dtype)
