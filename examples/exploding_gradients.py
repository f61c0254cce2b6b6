"""Why gradients are clipped: a recurrent network that ends in NaN without, and learns with `clip_norm`.

    python examples/exploding_gradients.py --plot curves.png            (needs matplotlib; a few seconds)
    python examples/exploding_gradients.py --steps 10                   (to try it)

The task is the adding problem: a sequence of random numbers, two of which are marked; the network, plain NumPy, reads
one number at a time and is to return the sum of the two. Both runs have the same seed, the same batches and the same
learning rate.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastopt

Array = NDArray[np.float32]

LENGTH, BATCH, WIDTH = 20, 64, 32  # time steps, sequences in a batch, hidden units
RADIUS = 1.4  # spectral radius of the recurrent weights at the start
LR = 0.1
GUESS = 1 / 6  # the loss of always answering 1, the mean: twice the variance of a uniform number
BOUND = 0.5
RUNS = {
    "no clipping": math.inf,
    f"clip_norm={BOUND}": BOUND,
}  # an infinite bound: the norm is taken, nothing is clipped
RADII = (0.7, 1.0, 1.4, 2.0)


def network(rng: np.random.Generator, radius: float) -> dict[str, Array]:
    """Return the parameters of h = relu(x @ inputs + h @ recurrent + bias), answer = h @ output + offset."""
    orthogonal, _ = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))
    params = {
        "inputs": 0.3 * rng.standard_normal((2, WIDTH)),
        "recurrent": radius * orthogonal,
        "bias": np.zeros(WIDTH),
        "output": 0.3 / math.sqrt(WIDTH) * rng.standard_normal(WIDTH),
        "offset": np.zeros(1),
    }
    return {name: p.astype(np.float32) for name, p in params.items()}


def batch(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return sequences (time, batch, number and mark) and the sums of the two marked numbers of each."""
    x = np.zeros((LENGTH, BATCH, 2), np.float32)
    x[..., 0] = rng.random((LENGTH, BATCH))
    each = np.arange(BATCH)
    first, second = rng.integers(0, LENGTH // 2, BATCH), rng.integers(LENGTH // 2, LENGTH, BATCH)
    x[first, each, 1] = x[second, each, 1] = 1
    return x, x[first, each, 0] + x[second, each, 0]


def backpropagation(params: dict[str, Array], x: Array, y: Array) -> tuple[float, dict[str, Array], list[float]]:
    """Return the loss, its gradients, and the norm of its gradient by the hidden units, by time steps back."""
    h = [np.zeros((BATCH, WIDTH), np.float32)]
    for now in x:
        h.append(np.maximum(now @ params["inputs"] + h[-1] @ params["recurrent"] + params["bias"], 0))
    error = h[-1] @ params["output"] + params["offset"] - y
    back = 2 * error / np.float32(BATCH)
    grads = {name: np.zeros_like(p) for name, p in params.items()}
    grads["output"] += back @ h[-1]
    grads["offset"] += back.sum()
    by_hidden = np.outer(back, params["output"])
    norms = []
    for t in reversed(range(LENGTH)):
        norms.append(float(np.linalg.norm(by_hidden)))
        by_sum = by_hidden * (h[t + 1] > 0)
        grads["inputs"] += x[t].T @ by_sum
        grads["recurrent"] += h[t].T @ by_sum
        grads["bias"] += by_sum.sum(axis=0)
        by_hidden = by_sum @ params["recurrent"].T  # once for each time step: here gradients explode or vanish
    return float(np.mean(error**2)), grads, norms


def train(clip_norm: float, steps: int) -> dict[str, Any]:
    """Return the loss and the norm of all gradients of every step, up to the first that is not finite."""
    rng = np.random.default_rng(0)
    params = network(rng, RADIUS)
    opt = fastopt.GD(params, lr=LR, clip_norm=clip_norm)
    found: dict[str, Any] = {"loss": [], "grad_norm": [], "not_finite_at": None}
    for step in range(1, steps + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            loss, grads, _ = backpropagation(params, *batch(rng))
        opt.step(grads)
        if not (math.isfinite(loss) and math.isfinite(opt.grad_norm)):
            found["not_finite_at"] = step
            break
        found["loss"].append(float(f"{loss:.4g}"))
        found["grad_norm"].append(float(f"{opt.grad_norm:.4g}"))
    return found


def through_time(radius: float) -> list[float]:
    """Return the norms of the first gradient by the hidden units, relative to the last time step's, going back."""
    rng = np.random.default_rng(0)
    _, _, norms = backpropagation(network(rng, radius), *batch(rng))
    return [float(f"{norm / norms[0]:.3g}") for norm in norms]


def plot(found: dict[str, Any], file: str) -> None:
    """Draw loss and norm against the step, both runs in each panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = dict(zip(("loss", "grad_norm"), figure.subplots(1, 2), strict=True))
    styles = ({"color": "#d55e00", "marker": "x", "zorder": 3}, {"color": "#0072b2", "lw": 0.9})
    for what, axes in panels.items():
        for (name, run), style in zip(found.items(), styles, strict=True):
            end = f", not finite from step {run['not_finite_at']} on" if run["not_finite_at"] else ""
            axes.plot(np.arange(1, len(run[what]) + 1), run[what], label=name + end, **style)
        axes.set(xscale="log", yscale="log", xlabel="step")
        axes.grid(alpha=0.3)
    panels["loss"].axhline(GUESS, color="black", ls="--", lw=1, label="always answering the mean")
    panels["loss"].set(ylabel="loss (mean squared error)")
    panels["grad_norm"].axhline(BOUND, color="black", ls=":", lw=1, label=f"the bound, {BOUND}")
    panels["grad_norm"].set(ylabel="opt.grad_norm (before clipping)")
    for axes in panels.values():
        axes.legend(loc="upper right", fontsize=9)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Train with and without clipping, and follow one gradient through time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves")
    arguments = parser.parse_args()
    figures = {
        "measured": fastopt.info(),
        "guess": GUESS,
        "training": {name: train(clip_norm, arguments.steps) for name, clip_norm in RUNS.items()},
        "through_time": {f"{radius}": through_time(radius) for radius in RADII},
    }
    for name, run in figures["training"].items():
        end = (
            f"not finite at step {run['not_finite_at']}"
            if run["not_finite_at"]
            else f"{run['loss'][-1]:.3g} at the end"
        )
        print(f"{name}: loss {run['loss'][0]:.3g} at the start, {max(run['loss']):.3g} at most, {end}")
    for radius, norms in figures["through_time"].items():
        print(f"spectral radius {radius}: {LENGTH - 1} time steps back a gradient is multiplied by {norms[-1]:.3g}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(figures["training"], arguments.plot)


if __name__ == "__main__":
    main()
