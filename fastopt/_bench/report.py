"""What was measured, as a table, a picture, and a comparison with earlier figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .run import BYTES, OWN, TOLERANCE

T = TypeVar("T")


def progress(cases: list[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Yield the cases, with a progress bar on stderr."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(cases))
        for case, shapes in cases:
            bar.update(task, description=case)
            yield case, shapes
            bar.advance(task)


def by_case(result: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows as ``[case][peer]``."""
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        cases.setdefault(row["case"], {})[row["peer"]] = row
    return cases


def seconds(value: float) -> str:
    """Return a time with a unit that suits it."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def markdown(result: dict[str, Any]) -> str:
    """Return the two tables of the README."""
    peers = list(dict.fromkeys(row["peer"] for row in result["rows"] if row["peer"] not in (*OWN, "streaming")))
    lines = [f"| elements or model | {' | '.join((*OWN, *peers))} |", f"|---{'|---' * (len(OWN) + len(peers))}|"]
    for case, row in by_case(result).items():
        own = [seconds(row[peer]["seconds"]) if peer in row else "" for peer in OWN]
        lines.append(f"| {' | '.join([_power(case), *own, *(_times(row.get(peer)) for peer in peers)])} |")
    for elements in {r["elements"] for r in result["roofline"]}:
        lines += ["", f"| {_power(str(elements))} float32 elements | ms | GB/s | of streaming |", "|---|---|---|---|"]
    lines += [
        f"| {r['optimizer']} | {_ms(r['ms'])} | {r['gb_per_s']:.0f} | {r['streaming_fraction']:.2f} |"
        for r in result["roofline"]
    ]
    return "\n".join(lines)


def _ms(ms: float) -> str:
    return f"{ms:.1f}" if ms >= 1 else f"{ms:.3g}"


def _power(case: str) -> str:
    """Return a number of elements as a power of two."""
    count = int(case) if case.replace("_", "").isdigit() else 0
    return f"2^{count.bit_length() - 1}" if count > 1 and count.bit_count() == 1 else case


def _times(row: dict[str, Any] | None) -> str:
    """Return how many times as long as fastopt a baseline takes, in bold if less long."""
    if row is None:
        return ""
    if row["error"] > TOLERANCE:
        return "WRONG"
    text = f"{row['ratio']:.2f}" if row["ratio"] < 9.95 else f"{row['ratio']:.0f}"
    return f"**{text}**" if float(text) < 1 else text


def table(result: dict[str, Any]) -> None:
    """Print the figures: medians, the quartiles' distance, errors."""
    machine = result["machine"]
    where = (
        machine["cuda"].removeprefix("yes: ") if machine.get("device") == "cuda" else f"{machine['threads']} threads"
    )
    shown = Table(title=f"one float32 Adam step, {where}")
    for column in ("case", "tensors", "peer", "median", "spread", "GB/s", "of streaming", "peer / fastopt", "error"):
        shown.add_column(column, justify="left" if column in ("case", "peer") else "right", no_wrap=True)
    for case, row in by_case(result).items():
        for peer, r in row.items():
            shown.add_row(
                case,
                str(r["tensors"]),
                peer,
                seconds(r["seconds"]),
                f"{(r['high'] - r['low']) / r['seconds']:.0%}",
                f"{BYTES.moved * r['elements'] / r['seconds'] / 1e9:.3g}",
                f"{row['streaming']['ratio'] / r['ratio']:.2f}",
                f"{r['ratio']:.2f}",
                "" if peer == "streaming" else f"{r['error']:.0e}" + ("" if r["error"] <= TOLERANCE else " WRONG"),
            )
        shown.add_section()
    console = Console()
    console.width = max(console.width, 130)  # also where the output is no terminal
    console.print(shown)
    roofline = Table(title="what a step makes of the machine's memory")
    for column in ("optimizer", "elements", "ms", "GB/s", "of streaming"):
        roofline.add_column(column, justify="left" if column == "optimizer" else "right")
    for r in result["roofline"]:
        figures = (f"{r['ms']:.3g}", f"{r['gb_per_s']:.3g}", f"{r['streaming_fraction']:.2f}")
        roofline.add_row(r["optimizer"], f"{r['elements']:_}", *figures)
    console.print(roofline)
    for peer, reason in result["absent"].items():
        console.print(f"{peer}: not measured: {reason}")


def plot(result: dict[str, Any], path: str) -> None:
    """Draw the time per element against the size, and bars for the models."""
    from matplotlib.figure import Figure  # 0.3 s

    cases = by_case(result)
    sizes = {c: row for c, row in cases.items() if next(iter(row.values()))["tensors"] == 1}
    models = {c: row for c, row in cases.items() if c not in sizes}
    peers = list(dict.fromkeys(row["peer"] for row in result["rows"]))
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for k, peer in enumerate(peers):
        points = [(r[peer]["elements"], r[peer]["seconds"]) for r in sizes.values() if peer in r]
        style: dict[str, Any] = {"color": "black", "ls": "--", "lw": 1}
        if peer != "streaming":
            style = {"color": f"C{k}", "marker": "o", "lw": 2.5 if peer in OWN else 1.2}
        label = "the same bytes, nothing computed" if peer == "streaming" else peer
        left.loglog([n for n, _ in points], [t / n * 1e9 for n, t in points], label=label, ms=4, **style)
    left.set(xlabel="elements", ylabel="ns per element", title="one float32 Adam step on one array")
    left.set_xscale("log", base=2)
    left.grid(alpha=0.3)
    left.legend()
    width = 0.8 / max(len(peers), 1)
    for k, peer in enumerate(p for p in peers if p != "streaming"):
        heights = [row[peer]["seconds"] * 1e3 if peer in row else 0 for row in models.values()]
        right.bar([i + k * width for i in range(len(models))], heights, width, color=f"C{k}", label=peer)
    right.set_yscale("log")
    right.set(ylabel="ms per step", title="all tensors of a model")
    right.set_xticks([i + 0.35 for i in range(len(models))], [name.replace(" of ", "\nof ") for name in models])
    right.grid(alpha=0.3, axis="y")
    figure.savefig(path, dpi=130, metadata={"Description": fingerprint(result)} if path.endswith(".png") else None)


def check_format(path: str) -> None:
    """Raise unless a picture can be written in the format that the name asks for.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    from matplotlib.backend_bases import FigureCanvasBase  # 0.3 s

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.rpartition(".")[2].lower() not in formats:
        raise ValueError(f"{path} must end in one of {', '.join(sorted(formats))}")


def fingerprint(result: dict[str, Any]) -> str:
    """Return what a picture says of the figures that it was drawn from."""
    return hashlib.sha256(json.dumps(result["rows"], sort_keys=True).encode()).hexdigest()


def comparison(result: dict[str, Any], old: dict[str, Any], factor: float) -> list[str]:
    """Print how fastopt changed relative to streaming, and return the cases that got slower by more than `factor`.

    Each time is taken relative to that of the streaming kernel in its own run, because the machine may have been
    faster or slower as a whole.
    """
    console = Console()
    now, before = by_case(result), by_case(old)
    slower = []
    shown = Table(title=f"new / old, relative to streaming; more than {factor:g} is too slow")
    for column in ("case", "peer", "ratio", ""):
        shown.add_column(column, justify="right" if column == "ratio" else "left")
    for case, peer in _common(now, before):
        ratio = _relative(now[case], peer) / _relative(before[case], peer)
        if ratio > factor:
            slower.append(f"{case}: {peer}")
        shown.add_row(case, peer, f"{ratio:.2f}", "SLOWER" if ratio > factor else "")
    console.print(shown)
    return slower


def comparable(row: dict[str, dict[str, Any]]) -> bool:
    """Say whether there are figures of fastopt's and of streaming in a row of :func:`by_case`."""
    own = [row[peer]["ratio"] for peer in (*OWN, "streaming") if peer in row]
    return "streaming" in row and len(own) > 1 and min(own) > 0


def _common(now: dict[str, Any], before: dict[str, Any]) -> Iterable[tuple[str, str]]:
    cases = (case for case in now if case in before and comparable(now[case]) and comparable(before[case]))
    return ((case, peer) for case in cases for peer in OWN if peer in now[case] and peer in before[case])


def _relative(row: dict[str, dict[str, Any]], peer: str) -> float:
    ratio: float = row[peer]["ratio"] / row["streaming"]["ratio"]
    return ratio
