"""Measure how far Adam's update is off when one of its states is stored in 8 bits, by companding and rounding.

Gradients are normal around a mean, of sizes that differ by `spread` (the standard deviation of their logarithm) within
a block; the scale of a block is its largest number. The error is the root mean square over 1400 steps, relative to the
update with both states in float64. This is where `fastopt._storage.int8` has its choice from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIZE, STEPS, BLOCK = 16384, 1500, 64
Array = np.ndarray
Rounding = Callable[[Array, int], Array]
START = np.random.default_rng(5).random(SIZE)
ROUNDINGS: dict[str, Rounding] = {
    "nearest": lambda rng, step: np.full(SIZE, 0.5),
    "by chance": lambda rng, step: np.random.default_rng(step).random(SIZE),
    "Weyl": lambda rng, step: np.modf(START + step * 0.6180339887)[0],
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


def error(store_m: Callable[..., Array], store_v: Callable[..., Array], rounding: Rounding, spread: float) -> float:
    rng = np.random.default_rng(1)
    sizes, mean = np.exp(rng.normal(size=SIZE) * spread) * 1e-3, rng.normal(size=SIZE) * 0.3
    m, v, right_m, right_v = np.zeros((4, SIZE))
    off, whole = [], []
    for step in range(1, STEPS + 1):
        g = sizes * (mean + rng.normal(size=SIZE))
        m, right_m = (0.9 * a + 0.1 * g for a in (m, right_m))
        v, right_v = (0.999 * a + 0.001 * g * g for a in (v, right_v))
        c, d = 1 - 0.9**step, 1 - 0.999**step
        update, right = (a / c / (np.sqrt(b / d) + 1e-8) for a, b in ((m, v), (right_m, right_v)))
        if step > 100:
            off.append(np.mean((update - right) ** 2))
            whole.append(np.mean(right**2))
        noise = rounding(START, step)
        m, v = store_m(m, noise), store_v(v, noise)
    return float(np.sqrt(np.mean(off) / np.mean(whole)))


def main() -> None:
    print("| state | codes | " + " | ".join(f"{r}, spread {s}" for s in (0.5, 1.5) for r in ROUNDINGS) + " |")
    print("|---|---|" + "---:|" * 6)
    for state, codes in STATES.items():
        for name, store in codes.items():
            pair = (store, keep) if state == "m" else (keep, store)
            cells = [f"{error(*pair, r, s):.2g}" for s in (0.5, 1.5) for r in ROUNDINGS.values()]
            print(f"| {state} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
