"""How far a stored number may be from the one that was to be stored, by the format it is in; never imports fastopt."""

import ml_dtypes
import numpy as np

#: Of a unit of the format: to the nearest, or to one of the two neighbours.
NEAREST, STOCHASTIC = 0.5, 1


def units(exact, format_):
    """Return how far apart the numbers of a format are, at most, where the exact ones lie."""
    info = ml_dtypes.finfo(format_)
    return np.maximum(np.abs(exact) * float(info.eps), float(info.smallest_subnormal))


def of_state(exact, format_, compute, square=False):
    """Return how far a state may be off beside the roundings of the arithmetic; `square`: it is never negative."""
    if format_ == np.dtype(compute).name:
        return np.zeros(exact.shape)
    if format_ == "int8":
        top = np.abs(exact).max(initial=0)
        # No code means less than 2^-118 where it is divided by: so is a 0 stored, which ADOPT's v is in step 1.
        floor = max(top * 2.0**-28, 2.0**-118) if square else top * 2.0**-15
        return np.abs(exact) / 8 * (1 + 1e-3) + floor
    return units(exact, format_) * (STOCHASTIC if format_ == "bfloat16" else NEAREST) * (1 + 1e-3)


def of_weight(exact, format_, compute, rounding="nearest", master=None):
    """Return the same of a parameter, with all that is kept beside it."""
    if format_ == np.dtype(compute).name:
        return np.zeros(exact.shape)
    info = ml_dtypes.finfo(format_)
    share = {"nearest": NEAREST, "stochastic": STOCHASTIC, "kahan": float(info.eps) / 2}[rounding]
    share = {None: share, "split8": 2.0**-8, "split16": 2.0**-16}[master]
    # A residual is no less than the least number of its format.
    least = float(info.smallest_subnormal) / 2 if rounding == "kahan" else 0
    return units(exact, format_) * share * (1 + 1e-3) + least
