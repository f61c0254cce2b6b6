"""Write the tables and pictures of README.md and `docs/` from the committed figures in `results/`.

The picture of the tutorial is drawn by the code that the tutorial shows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import render
from render import table

from fastopt._bench import report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "asv_benchmarks" / "results"
GPU_FIGURES = RESULTS / "gpu.json"
NOT_MEASURED = "**Not measured on a GPU, and not yet run on one.**"


def load(file: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    return result


def measured_on_a_gpu() -> str:
    return gpu_markdown(gpu_figures()) if GPU_FIGURES.exists() else NOT_MEASURED


#: The tables of each document, by the file or the files that they are from, and the part of it, as the marks around a
#: table name them.
TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"cpu.json": lambda: report.markdown(load("cpu.json")), "gpu.json": measured_on_a_gpu},
    "docs/performance.md": {
        "anatomy.json": lambda: render.anatomy(load("anatomy.json")),
        "placement.json": lambda: render.placement(load("placement.json")),
        "fusing.json": lambda: render.fusing(load("fusing.json")),
        "dropin.json": lambda: render.dropin(load("dropin.json")),
        "starved.json": lambda: render.starved(load("starved.json")),
    },
    "docs/low_precision.md": {
        "formats_62_gb_per_s.json, formats_98_gb_per_s.json": lambda: render.formats(
            load("formats_62_gb_per_s.json"), load("formats_98_gb_per_s.json")
        ),
        "companding.json": lambda: render.companding(load("companding.json")),
        "low_precision.json, training": lambda: render.training(load("low_precision.json")),
        "low_precision.json, standing_still": lambda: render.standing_still(load("low_precision.json")),
        "low_precision.json, round_trips": lambda: render.round_trips(load("low_precision.json")),
    },
    "docs/training.md": {
        "exploding_gradients.json, training": lambda: render.clipping(load("exploding_gradients.json")),
        "exploding_gradients.json, through_time": lambda: render.through_time(load("exploding_gradients.json")),
    },
    "docs/tested.md": {
        "tested.json, cpu": lambda: render.tested(load("tested.json"), "cpu"),
        "tested.json, simulator": lambda: render.tested(load("tested.json"), "simulator"),
        "tested.json, ptx": lambda: render.tested(load("tested.json"), "ptx"),
    },
}
#: The pictures, and the figures that they are drawn from.
PICTURES: dict[str, Callable[[], dict[str, Any]]] = {"docs/bench.png": lambda: load("cpu.json")}
GPU_PICTURE = "docs/gpu.png"
TUTORIAL, TUTORIAL_PICTURE = "docs/tutorial.md", "docs/qhm.png"


def with_tables(document: str, text: str) -> str:
    """Return the text of a document with what stands between the marks replaced by the tables."""
    for name, made in TABLES[document].items():
        text = between(text, name, made())
    return text


def between(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- from {name}: begin -->\n", f"\n<!-- from {name}: end -->"
    before, rest = text.split(begin)  # a mark that is missing, or there twice, is an error
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def gpu_figures() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(GPU_FIGURES.read_text())
    if not result["machine"]["cuda"].startswith("yes: "):
        raise ValueError(f"{GPU_FIGURES.name} was not measured on a GPU: {result['machine']['cuda']}")
    return result


def run_tutorial(root: Path) -> None:
    """Run the code of the tutorial, which writes its picture, in a folder."""
    code = "".join(
        re.findall(r"^```python\n(.*?)^```$", (ROOT / TUTORIAL).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )
    with contextlib.chdir(root):
        exec(compile(code, TUTORIAL, "exec"), {"__name__": "tutorial"})  # noqa: S102


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


def pivoted(
    corner: str,
    rows: list[dict[str, Any]],
    down: str,
    across: str | Callable[[dict[str, Any]], str],
    cell: Callable[[dict[str, Any]], str],
) -> str:
    """Return a table with a line for each value of `down` and a column for each of `across`."""
    column = across if callable(across) else lambda row: row[across]
    columns = list(dict.fromkeys(map(column, rows)))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(row[down], {})[column(row)] = cell(row)
    return table((corner, *columns), ((name, *(found.get(c, "") for c in columns)) for name, found in cells.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="where README.md and docs/ are (default: this repository)"
    )
    root = parser.parse_args().root
    for document in TABLES:
        file = root / document
        file.write_text(with_tables(document, file.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {document}")
    pictures = dict(PICTURES)
    if GPU_FIGURES.exists():
        pictures[GPU_PICTURE] = lambda: {"rows": rows_of(gpu_figures())}
    for picture, made in pictures.items():
        report.plot(made(), str(root / picture))
        print(f"wrote {picture}")
    run_tutorial(root)
    print(f"wrote {TUTORIAL_PICTURE}")


if __name__ == "__main__":
    main()
