"""Write the README's tables and pictures from the committed figures of `fastopt bench` and `asv_benchmarks/gpu.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastopt._bench import report

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "asv_benchmarks" / "results" / "cpu.json"
GPU_FIGURES = ROOT / "asv_benchmarks" / "results" / "gpu.json"
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "bench.png"
GPU_PICTURE = ROOT / "docs" / "gpu.png"
NOT_MEASURED = "**Not measured on a GPU, and not yet run on one.**"


def with_tables(text: str) -> str:
    """Return the text with what stands between the marks replaced by the tables."""
    measured = gpu_markdown(gpu_figures()) if GPU_FIGURES.exists() else NOT_MEASURED
    return between(between(text, "cpu.json", report.markdown(figures())), "gpu.json", measured)


def between(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- from {name}: begin -->\n", f"\n<!-- from {name}: end -->"
    before, rest = text.split(begin)  # a mark that is missing, or there twice, is an error
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def figures() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(FIGURES.read_text())
    return result


def gpu_figures() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(GPU_FIGURES.read_text())
    if not result["machine"]["cuda"].startswith("yes: "):
        raise ValueError(f"{GPU_FIGURES.name} was not measured on a GPU: {result['machine']['cuda']}")
    return result


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all rows in which Adam stands beside its baselines."""
    return [row for part in ("sizes", "models", "many") for row in result[part]]


def gpu_markdown(result: dict[str, Any]) -> str:
    """Return what the README shows of the figures of a GPU."""
    blocks = [
        (
            f"{result['machine']['cuda'].removeprefix('yes: ')}: {bits(result['checks'])}. One float32 Adam step, by "
            "CUDA events; *of streaming* is beside a copy of as many bytes within the GPU's memory:"
        ),
        report.markdown({"rows": rows_of(result), "roofline": result["roofline"]}),
        "![The time per element against the number of elements, on a GPU](docs/gpu.png)",
        table(
            ("Adam in", "bytes an element", "ms", "GB/s", "of a copy", "PyTorch fused float32 / this"),
            (
                (
                    *(r["storage"], f"{r['bytes']:.2f}", f"{r['ms']:.3g}", f"{r['gb_per_s']:.0f}"),
                    *(f"{r['of_copy']:.2f}", times(r["torch_ratio"])),
                )
                for r in result["storages"]
            ),
        ),
        pivoted("host, µs a step", result["host"], "peer", "case", lambda r: f"{r['us']:.1f}"),
        (
            f"The CPU of that machine ({result['machine']['cpu']}), Adam in each storage: how many times as fast as in "
            "float32, by threads and by the bandwidth of a core (GB/s)."
        ),
        pivoted("Adam in", result["cpu"], "storage", at, lambda r: f"{r['float32_ratio']:.2f}"),
    ]
    blocks += [f"Not measured: {peer} ({reason})." for peer, reason in result["absent"].items()]
    if result["left_out"]:
        blocks.append(f"Left out, for want of time or memory: {'; '.join(result['left_out'])}.")
    return "\n\n".join(blocks)


def bits(checks: list[dict[str, Any]]) -> str:
    """Say how many storages have the bits of the CPU."""
    different = [f"{row['optimizer']} in {row['storage']}" for row in checks if row["different"]]
    if different:
        return f"**{len(different)} of {len(checks)} comparisons with the CPU differ**: {'; '.join(different)}"
    return f"the bits of the CPU in all of {len(checks)} comparisons of optimizers and storages"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def at(row: dict[str, Any]) -> str:
    return f"{row['threads']} ({row['gb_per_s_and_core']:.0f})"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pivoted(corner: str, rows: list[dict[str, Any]], down: str, across: Any, cell: Any) -> str:
    """Return a table with a line for each value of `down` and a column for each of `across`."""
    column = across if callable(across) else lambda row: row[across]
    columns = list(dict.fromkeys(map(column, rows)))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(row[down], {})[column(row)] = cell(row)
    return table((corner, *columns), ((name, *(found.get(c, "") for c in columns)) for name, found in cells.items()))


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
    report.plot(figures(), str(PICTURE))
    print(f"wrote {README.name} and {PICTURE.name}")
    if GPU_FIGURES.exists():
        report.plot({"rows": rows_of(gpu_figures())}, str(GPU_PICTURE))
        print(f"wrote {GPU_PICTURE.name}")
