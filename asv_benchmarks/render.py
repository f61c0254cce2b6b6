"""Figures as JSON files in `results/`, and as the Markdown tables that scripts print and `tables.py` puts in documents.

A file says under "measured" how its figures came about: what a script writes, or, of figures that are older than the
file, what the document says that they stood in.
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastopt import info
from fastopt._bench import run, storages

Figures = dict[str, Any]


def measured() -> Figures:
    """Return what stands under "measured" in a file of figures from here and now."""
    return {"on": dt.datetime.now(dt.UTC).date().isoformat(), **run.header(info()["threads"])}


def write(file: str, **figures: Any) -> None:
    """Write figures that were measured just now."""
    Path(file).write_text(json.dumps({"measured": measured(), **figures}, indent=1) + "\n", encoding="utf-8")


def table(header: Iterable[str], rows: Iterable[Iterable[str]], words: int = 1) -> str:
    """Return a table, of which the first columns are words and the others numbers."""
    header = list(header)
    first, *others = (f"| {' | '.join(line)} |" for line in (header, *rows))
    return "\n".join([first, f"|{'---|' * words}{'---:|' * (len(header) - words)}", *others])


def anatomy(figures: Figures) -> str:
    rows = ((name, *(f"{us:.2f}" for us in times)) for name, times in figures["us"].items())
    return table(("µs", *(f"{n:_}" for n in figures["elements"])), rows)


def formats(*runs: Figures) -> str:
    """Return one table of several runs of the same storages; what they hold is shown of the first."""
    header = ["Adam", "bytes moved", "held (theory)"]
    for figures in runs:
        header += [f"at {figures['gb_per_s']:.0f} GB/s: ms", "PyTorch fused / this"]
    rows = []
    for name, row in runs[0]["rows"].items():
        cells = [name, f"{row['moved']:.2f}", f"{row['held']:.2f} ({row['theory']:.2f})"]
        for figures in runs:
            cells += [f"{figures['rows'][name]['ms']:.1f}", f"{figures['rows'][name]['ratio']:.2f}"]
        rows.append(cells)
    return table(header, rows)


def fusing(figures: Figures) -> str:
    (small, large), (one, every) = figures["elements"], figures["threads"]
    rows = []
    for name, cached in figures["cache"].items():
        both = (cached, figures["memory"][name])
        rows.append(
            (name, *(text for row in both for text in (f"{row['ns']:.3f}", f"{(row['ratio'] - 1) * 100:+.1f} %")))
        )
    ours = f"{small:_} elements, {one} thread: ns an element"
    return table(("Adam", ours, "costs", f"{large:_}, {every} threads", "costs"), rows)


def placement(figures: Figures) -> str:
    storages = figures["ratios"]
    rows = ((name, *(f"{ratios[name]:.2f}" for ratios in storages.values())) for name in next(iter(storages.values())))
    return table(("from parameters to gradients", *storages), rows)


def companding(figures: Figures) -> str:
    spreads = figures["rows"][0]["errors"]
    columns = (f"{rounding}, spread {spread}" for spread, roundings in spreads.items() for rounding in roundings)
    rows = (
        (row["state"], row["codes"], *(f"{e:.2g}" for errors in row["errors"].values() for e in errors.values()))
        for row in figures["rows"]
    )
    return table(("state", "codes", *columns), rows, words=2)


def training(figures: Figures) -> str:
    tasks, rows = figures["training"], []
    for storage in next(iter(tasks.values())):
        ends = (task[storage][part] for task in tasks.values() for part in ("last", "held_out"))
        rows.append((storage, *(f"{statistics.mean(e):.4f} ± {statistics.stdev(e):.4f}" for e in ends)))
    return table(("storage", *(f"{task}, {part}" for task in tasks for part in ("training", "held out"))), rows)


def standing_still(figures: Figures) -> str:
    rows = ((name, f"{row['end']:.5f}", f"{row['largest']:.5f}") for name, row in figures["standing_still"].items())
    return table(("storage", "mean distance to the goal", "largest"), rows)


def round_trips(figures: Figures) -> str:
    lost = [f"{state} {part}" for state in ("m", "v") for part in ("median", "99%", "lost")]
    rows = ((name, *(f"{row[part]:.2g}" for part in lost)) for name, row in figures["round_trips"].items())
    own = ("m: median error", "99 %", "became 0")
    return table(("state_dtype", *own, own[0].replace("m", "v", 1), *own[1:]), rows)


def clipping(figures: Figures) -> str:
    rows = []
    for name, row in figures["training"].items():
        end, loss = row["not_finite_at"], row["loss"]
        last = f"not finite from step {end} on" if end else f"{statistics.mean(loss[-50:]):.3f}"
        rows.append((name, f"{loss[0]:.2f}", f"{max(loss):.3g}", f"{max(row['grad_norm']):.3g}", last))
    return table(("gradient descent", "loss at first", "largest loss", "largest norm", "loss, last 50 steps"), rows)


def through_time(figures: Figures) -> str:
    names = figures["through_time"]
    back = (1, 5, 10, 19)
    rows = ((name, *(f"{norms[steps]:.2g}" for steps in back)) for name, norms in names.items())
    return table(("spectral radius", *(f"{steps} back" for steps in back)), rows)


def starved(figures: Figures) -> str:
    """Return the times of a step of all processes; what was not measured has its reason."""
    rows = [
        (name, f"{row['ms']:.0f}", f"{row['fastopt_ms']:.0f}", f"{row['times_as_long']:.2f}")
        for name, row in figures["rows"].items()
    ]
    rows += [(name, reason, "", "") for name, reason in figures["missing"]]
    of = f"AdamW, {figures['processes']} processes, {figures['cores']} cores"
    return table((of, "ms a step", "fastopt in turn, ms", "times as long"), rows)


def dropin(figures: Figures) -> str:
    """Return how many times as long as ours the steps of PyTorch's optimizers take."""
    peers = list(dict.fromkeys(peer for row in figures["rows"].values() for peer in row["times_as_long"]))
    rows = [
        (
            name,
            f"{row['seconds']['fastopt.torch'] * 1e3:.3g}",
            *(f"{row['times_as_long'][peer]:.2f}" if peer in row["times_as_long"] else "" for peer in peers),
        )
        for name, row in figures["rows"].items()
    ]
    return table((f"AdamW, {figures['threads']} threads", "ms a step", *peers), rows)


def tested(figures: Figures, target: str) -> str:
    """Return in how many storages each optimizer passed, of those tried, by the format of the parameters; what did not.

    Storages are named, and so found, as :mod:`fastopt._bench.storages` has them.
    """
    rows = figures["targets"][target]
    group = {name: storage.master or storage.param for name, storage in storages.STORAGES.items()}
    tried = {name: [*row["passed"], *row["failed"]] for name, row in rows.items()}
    there = {name for row in rows.values() for kind in ("passed", "failed", "not possible") for name in row[kind]}
    groups = [own for own in dict.fromkeys(group.values()) if own in {group[name] for name in there}]

    def cells(names: Iterable[str]) -> list[str]:
        chosen = list(names)
        passed, all_ = (
            Counter(group[storage] for name in chosen for storage in own[name])
            for own in ({name: row["passed"] for name, row in rows.items()}, tried)
        )
        counts = [(passed[own], all_[own]) for own in groups] + [(passed.total(), all_.total())]
        seconds = sum(rows[name]["seconds"] for name in chosen)
        return [*(f"{one}/{other}" if other else "" for one, other in counts), f"{seconds:.1f}"]

    lines = [(name, *cells([name])) for name in rows] + [("all", *cells(rows))]
    text = [table((target, *groups, "all", "seconds"), lines)]
    failed = [f"- {name} in {own}: {why}" for name, row in rows.items() for own, why in row["failed"].items()]
    text += ["Failed:", "\n".join(failed)] if failed else []
    left: dict[str, list[str]] = {}
    for name, row in rows.items():
        for why, count in Counter(row["not possible"].values()).items():
            left.setdefault(why, []).append(f"{name} in {count} {'storage' if count == 1 else 'storages'}")
    text += [f"Not possible, as {why}: {', '.join(names)}." for why, names in left.items()]
    return "\n\n".join(text)
