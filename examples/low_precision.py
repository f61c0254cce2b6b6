"""Does training suffer from fewer bytes? PyTorch computes gradients, fastopt updates in every storage.

PyTorch's own Adam runs beside.

    pip install '.[peers]' scikit-learn matplotlib ml_dtypes
    python examples/low_precision.py --json figures.json --plot curves.png        (10 minutes on two processors)
    python examples/low_precision.py --quick                                      (a few seconds, to try it)

Three parts: what a number loses in each format; a classifier of handwritten digits (scikit-learn's) and a
character-level transformer on the sources of Python's standard library, from several seeds; and a case in which
parameters in bfloat16 do not move at all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.nn import functional

import fastopt

# What is stored: the dtype of parameters and gradients, and the arguments that say the rest.
STORAGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "float32": (np.float32, {}),
    "bfloat16 states": (np.float32, {"state_dtype": "bfloat16"}),
    "int8 states": (np.float32, {"state_dtype": "int8"}),
    "bfloat16, nearest": (ml_dtypes.bfloat16, {}),
    "bfloat16, stochastic": (ml_dtypes.bfloat16, {"rounding": "stochastic"}),
    "bfloat16, Kahan": (ml_dtypes.bfloat16, {"rounding": "kahan"}),
    "bfloat16 + split16": (ml_dtypes.bfloat16, {"master": "split16"}),
    "bfloat16 + split8, int8 states": (ml_dtypes.bfloat16, {"master": "split8", "state_dtype": "int8"}),
}
REFERENCE = "torch.optim.Adam"


class Stored:
    """The parameters of a model in some storage; the model computes with them in float32."""

    def __init__(self, model: torch.nn.Module, storage: str, seed: int, lr: float) -> None:
        self.params = list(model.parameters())
        self.kind, kwargs = STORAGES[storage]
        if self.kind is np.float32:
            self.arrays = [p.detach().numpy() for p in self.params]  # the same memory
        else:
            self.arrays = [p.detach().numpy().astype(self.kind) for p in self.params]
        self.optimizer = fastopt.Adam(self.arrays, lr=lr, seed=seed, **kwargs)
        self.show()

    def show(self) -> None:
        """Bring what is stored into the model."""
        if self.kind is not np.float32:
            for p, array in zip(self.params, self.arrays, strict=True):
                p.detach().copy_(torch.from_numpy(array.view(np.int16)).view(torch.bfloat16))

    def step(self) -> None:
        """Update from the gradients that the model has; they are stored as the parameters are."""
        grads = [p.grad.detach().numpy().astype(self.kind, copy=False) for p in self.params if p.grad is not None]
        self.optimizer.step(grads)
        self.show()


def digits(seed: int) -> tuple[torch.nn.Module, Callable[[int], torch.Tensor], Callable[[], float], float, int]:
    """Return a model, its loss at a step and on what is held out, a learning rate and a number of steps."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = torch.tensor(data.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(data.target[order])
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    rng = np.random.default_rng(seed)
    batches = [torch.from_numpy(rng.integers(0, 1500, 64)) for _ in range(600)]

    def loss(step: int) -> torch.Tensor:
        return functional.cross_entropy(model(x[batches[step]]), y[batches[step]])

    def held_out() -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(model(x[1500:]), y[1500:]))

    return model, loss, held_out, 1e-3, len(batches)


class Transformer(torch.nn.Module):
    """Two layers of attention over the last 64 characters."""

    def __init__(self, characters: int, width: int = 64, context: int = 64) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(characters, width)
        self.place = torch.nn.Parameter(torch.randn(context, width) * 0.02)
        layer = {"dim_feedforward": 4 * width, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.layers = torch.nn.ModuleList(torch.nn.TransformerEncoderLayer(width, 4, **layer) for _ in range(2))
        self.norm, self.out = torch.nn.LayerNorm(width), torch.nn.Linear(width, characters)
        self.mask = torch.nn.Transformer.generate_square_subsequent_mask(context)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next character at each place."""
        x = self.embed(text) + self.place
        for layer in self.layers:
            x = layer(x, src_mask=self.mask, is_causal=True)
        return self.out(self.norm(x))


def sources() -> bytes:
    """Return a million characters of the standard library, the same in every process."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return b"".join(file.read_bytes() for file in files)[:1_000_000]


def characters(seed: int) -> tuple[torch.nn.Module, Callable[[int], torch.Tensor], Callable[[], float], float, int]:
    """Return the same for a transformer that predicts the next character of Python's own sources."""
    raw = np.frombuffer(sources(), np.uint8)
    known, codes = np.unique(raw, return_inverse=True)
    text = torch.from_numpy(codes.astype(np.int64))
    model = Transformer(len(known))
    rng = np.random.default_rng(seed)
    train = len(text) * 9 // 10
    starts = rng.integers(0, train - 65, (400, 16))
    ends = np.random.default_rng(0).integers(train, len(text) - 65, 64)

    def cut(where: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.stack([text[s : s + 65] for s in where])
        return rows[:, :-1], rows[:, 1:]

    def cross_entropy(where: Any) -> torch.Tensor:
        x, y = cut(where)
        return functional.cross_entropy(model(x).flatten(0, 1), y.flatten())

    def held_out() -> float:
        with torch.no_grad():
            return float(cross_entropy(ends))

    return model, lambda step: cross_entropy(starts[step]), held_out, 1e-3, len(starts)


TASKS = {"digits": digits, "characters": characters}


def train(task: str, storage: str, seed: int, most: int) -> tuple[list[float], float]:
    """Return the loss at every step, at most so many, and the loss at the end on what was held out."""
    torch.manual_seed(seed)
    model, loss, held_out, lr, steps = TASKS[task](seed)
    if storage == REFERENCE:
        optimizer: Any = torch.optim.Adam(model.parameters(), lr=lr)
    else:
        optimizer = Stored(model, storage, seed, lr)
    curve = []
    for step in range(min(steps, most)):
        model.zero_grad()
        value = loss(step)
        value.backward()
        optimizer.step()
        curve.append(float(value.detach()))
    return curve, held_out()


def spread(values: list[float]) -> float:
    """Return the standard deviation over the seeds."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def training(storages: list[str], seeds: int, most: int) -> dict[str, Any]:
    """Return every loss: by task, storage and seed."""
    found: dict[str, Any] = {}
    for task in TASKS:
        for storage in (REFERENCE, *storages):
            runs = [train(task, storage, seed, most) for seed in range(seeds)]
            curves, ends = [r[0] for r in runs], [r[1] for r in runs]
            last = [statistics.mean(curve[-50:]) for curve in curves]
            found.setdefault(task, {})[storage] = {
                "held_out": ends,
                "last": last,
                "curve": [round(statistics.mean(c[i] for c in curves), 4) for i in range(len(curves[0]))],
            }
            print(f"{task}, {storage}: {statistics.mean(ends):.4f} ± {spread(ends):.4f}", flush=True)
    return found


def standing_still(storages: list[str], steps: int) -> dict[str, dict[str, float]]:
    """Return how far weights of about 1 come with steps of 2^-14, an eighth of what bfloat16 needs to notice them."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0.8, 1.2, 4096).astype(ml_dtypes.bfloat16)
    goal = start.astype(np.float32) - rng.uniform(0.05, 0.1, 4096).astype(np.float32)
    found = {}
    for storage in storages:
        kind, kwargs = STORAGES[storage]
        weights = start.astype(kind)
        optimizer = fastopt.Adam(weights, lr=2.0**-14, **kwargs)
        for _ in range(steps):
            optimizer.step((weights.astype(np.float32) - goal).astype(kind))
        distance = np.abs(weights.astype(np.float32) - goal)
        found[storage] = {"start": 0.075, "end": float(distance.mean()), "largest": float(distance.max())}
        print(f"standing still, {storage}: {distance.mean():.5f} from the goal, {distance.max():.5f} at most")
    return found


def round_trips(rows: int) -> dict[str, dict[str, float]]:
    """Return the relative error of an average of gradients, and of their squares, that was stored once."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.normal(size=(rows, 512)) * 1.5).astype(np.float32) * np.float32(1e-3)
    numbers = (sizes * rng.normal(size=sizes.shape)).astype(np.float32).ravel()
    found = {}
    for name in ("float32", "bfloat16", "float16", "int8"):
        row = {}
        for state, given in (("m", numbers), ("v", numbers**2)):
            # With betas of 0 the states are the gradient and its square.
            optimizer = fastopt.Adam(np.zeros_like(given), betas=(0.0, 0.0), state_dtype=name)
            optimizer.step(numbers)
            error = np.abs(optimizer.decoded(state) - given) / np.abs(given)
            row |= {f"{state} median": float(np.median(error)), f"{state} 99%": float(np.quantile(error, 0.99))}
            row[f"{state} lost"] = float(np.mean(optimizer.decoded(state) == 0))
        found[name] = row
        print(f"stored once, {name}: median error {row['m median']:.2g} of m, {row['v median']:.2g} of v")
    return found


def plot(found: dict[str, Any], file: str) -> None:
    """Draw the curves of the training losses, averaged over seeds and 20 steps."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(TASKS), figsize=(12, 4.5))
    for axis, task in zip(axes, TASKS, strict=True):
        for storage, runs in found[task].items():
            curve = np.convolve(runs["curve"], np.ones(20) / 20, "valid")
            style = {"color": "black", "lw": 3, "alpha": 0.4} if storage == REFERENCE else {"lw": 1}
            axis.plot(curve, label=storage, **style)
        axis.set(title=task, xlabel="step", ylabel="training loss", yscale="log")
    axes[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Run all three parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two storages, a few steps: to try this script")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves")
    arguments = parser.parse_args()
    torch.set_num_threads(fastopt.info()["threads"])
    storages, steps, rows = list(STORAGES), 4000, 64
    if arguments.quick:
        storages, steps, rows = ["float32", "bfloat16, nearest"], 2, 1
    figures = {
        "measured": fastopt.info() | {"torch": torch.__version__},
        "round_trips": round_trips(rows),
        "standing_still": standing_still(storages, steps),
        "training": training(storages, arguments.seeds, steps),
    }
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures) + "\n")
    if arguments.plot:
        plot(figures["training"], arguments.plot)


if __name__ == "__main__":
    main()
