"""Measure how far Adam's update is off when one of its states is stored in 8 bits, by companding and rounding.

Gradients are normal around a mean, of sizes that differ by `spread` (the standard deviation of their logarithm) within
a block; the scale of a block is its largest number. The error is the root mean square over the steps, without the first
fifteenth of them, relative to the update with both states in float64. This is where `fastopt._storage.int8` has its
choice from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import render

BLOCK = 64
SPREADS = (0.5, 1.5)
Array = np.ndarray
#: What is added to numbers, in units of their codes, before they are cut off: of where Weyl sequences start and a step.
Rounding = Callable[[Array, int], Array]
ROUNDINGS: dict[str, Rounding] = {
    "nearest": lambda start, step: np.full(start.size, 0.5),
    "by chance": lambda start, step: np.random.default_rng(step).random(start.size),
    "Weyl": lambda start, step: np.modf(start + step * 0.6180339887)[0],
}


def peaks(x: Array) -> Array:
    return np.maximum(np.abs(x).reshape(-1, BLOCK).max(1), 1e-38).repeat(BLOCK)


def linear(x: Array, noise: Array, levels: int) -> Array:
    return np.clip(np.floor(x / peaks(x) * levels + noise), -levels, levels) * peaks(x) / levels


def root(x: Array, noise: Array, levels: int) -> Array:
    """Codes are roots; rounded so that the mean of the squares is kept; never 0 but for 0."""
    size = np.abs(x) / peaks(x) * levels**2
    code = np.floor(np.sqrt(size))
    code += size + noise * (2 * code + 1) >= (code + 1) ** 2
    code = np.where((x != 0) & (code == 0), 1, np.minimum(code, levels))
    return np.sign(x) * code**2 * peaks(x) / levels**2


def softsign(x: Array, noise: Array, levels: int) -> Array:
    y = x / peaks(x)
    code = np.floor(2 * y / (1 + np.abs(y)) * levels + noise) / levels
    return code / (2 - np.abs(code)) * peaks(x)


def logarithm(x: Array, noise: Array, exponent: int, fraction: int) -> Array:
    """The upper bits of a float, below the power of two of the peak; never 0 but for 0."""
    top = 2.0 ** np.floor(np.log2(peaks(x)))
    lowest = 2.0 ** (2 - 2**exponent)
    unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(x) / top, lowest))) - fraction)
    size = np.floor(np.abs(x) / top / unit + noise) * unit
    return np.sign(x) * np.where((x != 0) & (size == 0), lowest * 2.0**-fraction, size) * top


def keep(x: Array, noise: Array) -> Array:
    return x


STATES: dict[str, dict[str, Callable[[Array, Array], Array]]] = {
    "m": {
        "linear": lambda x, n: linear(x, n, 127),
        "softsign": lambda x, n: softsign(x, n, 127),
        "root": lambda x, n: root(x, n, 127),
        "3 bits of exponent, 4 of fraction": lambda x, n: logarithm(x, n, 3, 4),
        "4 bits of exponent, 3 of fraction": lambda x, n: logarithm(x, n, 4, 3),
    },
    "v": {
        "root": lambda x, n: root(x, n, 255),
        "4 bits of exponent, 4 of fraction": lambda x, n: logarithm(x, n, 4, 4),
        "5 bits of exponent, 3 of fraction": lambda x, n: logarithm(x, n, 5, 3),
    },
}


def error(
    stores: tuple[Callable[..., Array], Callable[..., Array]], rounding: Rounding, spread: float, size: int, steps: int
) -> float:
    rng, start = np.random.default_rng(1), np.random.default_rng(5).random(size)
    sizes, mean = np.exp(rng.normal(size=size) * spread) * 1e-3, rng.normal(size=size) * 0.3
    m, v, right_m, right_v = np.zeros((4, size))
    off, whole = [], []
    for step in range(1, steps + 1):
        g = sizes * (mean + rng.normal(size=size))
        m, right_m = (0.9 * a + 0.1 * g for a in (m, right_m))
        v, right_v = (0.999 * a + 0.001 * g * g for a in (v, right_v))
        c, d = 1 - 0.9**step, 1 - 0.999**step
        update, right = (a / c / (np.sqrt(b / d) + 1e-8) for a, b in ((m, v), (right_m, right_v)))
        if step > steps // 15:
            off.append(np.mean((update - right) ** 2))
            whole.append(np.mean(right**2))
        noise = rounding(start, step)
        m, v = (store(a, noise) for store, a in zip(stores, (m, v), strict=True))
    return float(np.sqrt(np.mean(off) / np.mean(whole)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=2**14, help=f"a multiple of {BLOCK}")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    given = parser.parse_args()
    rows = []
    for state, codes in STATES.items():
        for name, store in codes.items():
            stores = (store, keep) if state == "m" else (keep, store)
            errors = {
                str(spread): {r: error(stores, f, spread, given.elements, given.steps) for r, f in ROUNDINGS.items()}
                for spread in SPREADS
            }
            rows.append({"state": state, "codes": name, "errors": errors})
    figures = {"elements": given.elements, "steps": given.steps, "rows": rows}
    print(render.companding(figures))
    if given.json:
        render.write(given.json, **figures)


if __name__ == "__main__":
    main()
