"""Write the README's tables and draw its picture from the committed figures of `fastopt bench`."""

from __future__ import annotations

import json
from pathlib import Path

from fastopt._bench import report

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "asv_benchmarks" / "results" / "cpu.json"
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "bench.png"
BEGIN, END = "<!-- from cpu.json: begin -->\n", "\n<!-- from cpu.json: end -->"


def with_tables(text: str) -> str:
    """Return the text with what stands between the marks replaced by the tables."""
    before, rest = text.split(BEGIN)  # a mark that is missing, or there twice, is an error
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{report.markdown(figures())}\n{END}{after}"


def figures() -> dict[str, object]:
    result: dict[str, object] = json.loads(FIGURES.read_text())
    return result


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
    report.plot(figures(), str(PICTURE))
    print(f"wrote {README.name} and {PICTURE.name}")
