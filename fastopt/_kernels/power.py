"""Powers of decay factors, for the scalars of a step: the same bits in Python, in compiled code and on a GPU.

What C libraries make of ``pow`` differs in the last bit, by library and by processor. Here a power is worked out in
pairs of float64, a number and what it lacks (T. J. Dekker, "A floating-point technique for extending the available
precision", 1971), by sums and products alone, each rounded by itself; so above 1e-290 it is nearly always the
float64 that is nearest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from .compiler import EXACT
from .parts import named_part
from .symbols import named_by_contents

# Of an exponent: what powers of many exponents in a row have in common is worked out once.
_LOW_BITS = 8
_LOW = (1 << _LOW_BITS) - 1
#: Powers by base and upper bits of the exponent, each row of 256; so many bases, and rows of one, are kept.
_rows: dict[float, dict[int, list[float]]] = {}
_MOST = 16


def power(base: float, exponent: int) -> float:
    """Return ``base**exponent`` for a base in [0, 1) and an integer >= 0, with the same bits everywhere.

    For use in `scalars`: it may be compiled. Takes 0.1 µs when the exponents come in a row.

    Parameters
    ----------
    base : float
        In [0, 1).
    exponent : int
        >= 0, such as the number of the step.

    Returns
    -------
    float
        The nearest float64, nearly always, above 1e-290.

    References
    ----------
    T. J. Dekker, "A floating-point technique for extending the available precision", 1971.

    Examples
    --------
    >>> from fastopt.rules import power
    >>> power(0.5, 3)
    0.125
    """
    try:
        found = _rows[base][exponent >> _LOW_BITS][exponent & _LOW]
    except KeyError:
        found = _row(base, exponent >> _LOW_BITS)[exponent & _LOW]
    except TypeError:  # a float, which the simulator passes, as compiled code does
        found = power(base, int(exponent))
    return found


def _product(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return (a + b) * (c + d) as such a pair."""
    p = a * c
    # Each factor as the sum of two numbers of 26 bits, whose products are exact.
    t = 134217729.0 * a
    a1 = t - (t - a)
    a2 = a - a1
    t = 134217729.0 * c
    c1 = t - (t - c)
    c2 = c - c1
    q = (((a1 * c1 - p) + a1 * c2) + a2 * c1) + a2 * c2
    q = q + (a * d + b * c)
    s = p + q
    return s, q - (s - p)


def _make_raised(product: Callable[..., Any]) -> Callable[..., Any]:
    def raised(base: float, exponent: int) -> Any:
        """Return a power as a pair, by repeated squaring."""
        a, b, c, d = 1.0, 0.0, base, 0.0
        while exponent > 0:
            if exponent & 1:
                a, b = product(a, b, c, d)
            c, d = product(c, d, c, d)
            exponent >>= 1
        return a, b

    return raised


_raised = _make_raised(_product)
_compiled_product = named_part(_product, **EXACT)
_compiled_raised = named_part(_make_raised(_compiled_product), **EXACT)


@functools.lru_cache(maxsize=64)
def _low_powers(base: float) -> Any:
    """Return the powers for the exponents up to _LOW, as two arrays, by the operations of `_raised`."""
    exponents = np.arange(_LOW + 1)
    a, b, c, d = np.ones(_LOW + 1), np.zeros(_LOW + 1), base, 0.0
    for bit in range(_LOW_BITS):
        with_bit = exponents >> bit & 1 == 1
        a, b = np.where(with_bit, _product(a, b, c, d), (a, b))
        c, d = _product(c, d, c, d)
    return a, b


def _row(base: float, high: int) -> list[float]:
    """Return the powers for all exponents that have these upper bits, and keep them."""
    row: list[float] = _product(*_raised(base, high << _LOW_BITS), *_low_powers(base))[0].tolist()
    if len(_rows) > _MOST:
        _rows.clear()
    rows = _rows.setdefault(base, {})
    if len(rows) > _MOST:
        rows.clear()
    rows[high] = row
    return row


@overload(power, jit_options=EXACT, strict=False)
def _power(base: Any, exponent: Any) -> Any:
    def compiled(base, exponent):
        whole = np.int64(exponent)
        low = whole & np.int64(_LOW)
        a, b = _compiled_raised(base, whole - low)
        c, d = _compiled_raised(base, low)
        return _compiled_product(a, b, c, d)[0]

    return named_by_contents(compiled)
