"""The four runs of the article, by its own listings and by fastopt, and a picture of them.

The problem is f(theta) = (theta - 3)^2 from theta = 0 with lr = 0.1. The listings are kept as the article
has them, in plain Python: each formula a second time, for fastopt is held against them and they share nothing with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from .._api.conventions import conventions
from .catalog import OPTIMIZERS

MINIMUM = 3.0
LR = 0.1  # conventions["article"] has the same
ITERATIONS = 100


def gradient(theta: Any) -> Any:
    """Return the derivative of f."""
    return 2 * (theta - 3)


def _gd() -> Iterator[float]:
    theta = 0.0
    while True:
        theta -= LR * gradient(theta)
        yield theta


def _momentum() -> Iterator[float]:
    theta = v = 0.0
    while True:
        v = 0.9 * v + 0.1 * gradient(theta)
        theta -= LR * v
        yield theta


def _rmsprop() -> Iterator[float]:
    theta = s = 0.0
    while True:
        g = gradient(theta)
        s = 0.9 * s + 0.1 * g**2
        theta -= LR * g / math.sqrt(s + 1e-8)
        yield theta


def _adam() -> Iterator[float]:
    theta = m = v = 0.0
    t = 0
    while True:
        t += 1
        g = gradient(theta)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        m_hat = m / (1 - 0.9**t)
        v_hat = v / (1 - 0.999**t)
        theta -= LR * m_hat / math.sqrt(v_hat + 1e-8)
        yield theta


LISTINGS: dict[str, Callable[[], Iterator[float]]] = {
    "GD": _gd,
    "Momentum": _momentum,
    "RMSprop": _rmsprop,
    "Adam": _adam,
}


def listed(name: str) -> list[float]:
    """Return theta after each iteration of the article's listing."""
    return _until_minimum(LISTINGS[name]())


def computed(name: str) -> list[float]:
    """Return theta after each iteration of fastopt's optimizer in the article's convention."""
    return _until_minimum(_steps(name))


def _steps(name: str) -> Iterator[float]:
    theta = np.zeros(1)
    optimizer = OPTIMIZERS[name](theta, **conventions["article"][name])
    while True:
        optimizer.step(gradient(theta))
        yield float(theta[0])


def _until_minimum(iterates: Iterator[float]) -> list[float]:
    """Go on until the minimum is reached, and stand still there for the iterations that remain."""
    taken: list[float] = []
    for theta in islice(iterates, ITERATIONS):
        taken.append(theta)
        if gradient(theta) == 0:
            break
    return taken + taken[-1:] * (ITERATIONS - len(taken))


def picture(runs: dict[str, list[float]], width: int = 72, height: int = 15) -> str:
    """Return the distance from the minimum against the iteration, on a log axis, in characters."""
    low, high = -6.0, 1.0
    grid = [[" "] * width for _ in range(height)]
    for name, iterates in runs.items():
        for column in range(width):
            theta = iterates[column * (len(iterates) - 1) // (width - 1)]
            level = math.log10(max(abs(theta - MINIMUM), 10**low))
            row = round((high - level) / (high - low) * (height - 1))
            grid[min(max(row, 0), height - 1)][column] = name[0]
    lines = [f"|theta - 3|  {'  '.join(f'{name[0]} = {name}' for name in runs)}"]
    for k, row_ in enumerate(grid):
        label = f"1e{high - k * (high - low) / (height - 1):+.0f}" if k % 2 == 0 else ""
        lines.append(f"{label:>5} |{''.join(row_).rstrip()}")
    lines.append(f"{'':5} +{'-' * width}")
    lines.append(f"{'':7}1{'iteration':^{width - 4}}{ITERATIONS}")
    return "\n".join(lines)


def plot(runs: dict[str, list[float]], path: str) -> None:
    """Write the same picture to an image file.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'fastopt[plot]'") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, iterates in runs.items():
        axes.semilogy(range(1, len(iterates) + 1), np.abs(np.array(iterates) - MINIMUM), label=name)
    axes.set(xlabel="iteration", ylabel=r"$|\theta - 3|$", ylim=(1e-6, 10))
    axes.set_title(r"$f(\theta) = (\theta - 3)^2$ from $\theta = 0$, lr = 0.1")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
