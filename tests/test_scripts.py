"""Scripts that the documentation names, at a small size."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, encoding="utf-8", cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_anatomy():
    table = run("asv_benchmarks/anatomy.py", "--sizes", "64", "2^15", "--seconds", "0.1").splitlines()
    assert table[0] == "| µs | 64 | 32_768 |"
    parts = {name.strip(): [float(n) for n in numbers] for _, name, *numbers, _ in (r.split("|") for r in table[2:])}
    documented = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in documented for name in parts)
    assert all(0 < a < 1e6 for numbers in parts.values() for a in numbers)
