"""Scripts that the documentation names, at a small size."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastopt._arrays import driver
from fastopt._bench import gpu, storages

ROOT = Path(__file__).parent.parent


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, encoding="utf-8", cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def script(name):
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "asv_benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = ["--seconds", "100000", "--each", "0.001", "--log2", "3", "--large", "4"]
GPU = ["asv_benchmarks/gpu.py", *SMALL]
# The same in the simulator, whose threads take turns as soon as the script has loaded it: that takes less time.
SIMULATED = """
import importlib, sys
sys.path.insert(0, "asv_benchmarks")
script = importlib.import_module("gpu")
def clock(seconds, clock=script.Clock):
    from tests.simulated import turns
    turns.install()
    return clock(seconds)
script.Clock = clock
sys.exit(script.main())
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Return what the script of the GPU prints, and its figures, from the simulator at a toy size."""
    folder = tmp_path_factory.mktemp("gpu")
    small = ["--tensors", "2", "--models", "--check", "Adam", "--check-sizes", "1", "7"]
    files = ["--json", str(folder / "gpu.json"), "--plot", str(folder / "gpu.png")]
    out = run("-c", SIMULATED, *SMALL, "--simulate", *small, *files)
    assert (folder / "gpu.png").read_bytes().startswith(b"\x89PNG")
    return out, json.loads((folder / "gpu.json").read_text())


def test_gpu_in_the_simulator(simulated):
    out, result = simulated
    checks = {row["storage"]: row["different"] for row in result["checks"]}
    assert checks == {storage: {} for storage in storages.MEASURED}
    assert f"{len(storages.MEASURED)} checks, 0 with different bits; 0 wrong results" in out
    assert result["left_out"] == []
    measured = {row["peer"] for row in result["sizes"]}
    assert measured | set(result["absent"]) == {*gpu.PEERS, "streaming"}
    assert all(f"{name}: not measured: {reason}" in out for name, reason in result["absent"].items())
    assert {row["case"] for row in result["sizes"] + result["many"]} == {"8", "2 x 64"}
    assert [row["storage"] for row in result["storages"]] == list(storages.MEASURED)
    assert all(row["ms"] > 0 for row in result["storages"] + result["cpu"] + result["roofline"])
    assert {row["threads"] for row in result["cpu"]} >= {1}
    assert {row["peer"] for row in result["host"]} >= {"fastopt", "fastopt graph", "fastopt, arrays of numba-cuda"}


def test_the_readme_shows_the_figures_of_a_gpu(simulated, tmp_path, monkeypatch):
    tables, (_, result) = script("tables"), simulated
    text = tables.README.read_text()
    monkeypatch.setattr(tables, "GPU_FIGURES", tmp_path / "gpu.json")
    assert tables.NOT_MEASURED in tables.with_tables(text)
    tables.GPU_FIGURES.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"gpu\.json was not measured on a GPU: simulated"):
        tables.with_tables(text)
    result["machine"]["cuda"] = "yes: a stand-in"
    tables.GPU_FIGURES.write_text(json.dumps(result))
    shown = tables.with_tables(text)
    assert tables.NOT_MEASURED not in shown
    assert f"the bits of the CPU in all of {len(storages.MEASURED)} comparisons" in shown
    for row in result["storages"]:
        assert f"| {row['storage']} | {row['bytes']:.2f} | {row['ms']:.3g} |" in shown
    for row in result["host"]:
        assert f"{row['us']:.1f}" in shown
    for row in result["cpu"]:
        assert f"| {row['storage']} | " in shown
    result["checks"][0]["different"] = {"params": 3}
    tables.GPU_FIGURES.write_text(json.dumps(result))
    assert f"**1 of {len(storages.MEASURED)} comparisons with the CPU differ**: Adam in float32" in (
        tables.with_tables(text)
    )


def test_documents_do_not_deny_figures_of_a_gpu():
    measured = script("tables").GPU_FIGURES.exists()
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    denied = [f.name for f in files if "ot measured on a GPU" in f.read_text(encoding="utf-8")]
    assert bool(denied) != measured, denied


def test_gpu_says_what_is_missing():
    if driver.why_not() is None:
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, *GPU], check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no GPU can be measured here: {driver.why_not()}" in done.stderr
    table = run(*GPU, "--parts", "cpu")
    assert "split8, int8 states" in table
    assert "left out: 0" in table


def test_gpu_leaves_out_what_there_is_no_time_for():
    out = run(*GPU, "--parts", "cpu", "--seconds", "1e-6")
    assert "cpu: float32: left out" in out
    assert f"left out: {len(storages.MEASURED) - 2};" in out  # all but the two in float64


def test_anatomy():
    table = run("asv_benchmarks/anatomy.py", "--sizes", "64", "2^15", "--seconds", "0.1").splitlines()
    assert table[0] == "| µs | 64 | 32_768 |"
    parts = {name.strip(): [float(n) for n in numbers] for _, name, *numbers, _ in (r.split("|") for r in table[2:])}
    documented = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in documented for name in parts)
    assert all(0 < a < 1e6 for numbers in parts.values() for a in numbers)


def test_fusing(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra `peers`")
    file = tmp_path / "figures.json"
    options = ("--log2", "11", "12", "--rounds", "3", "--seconds", "0.1", "--json", str(file))
    out = run("asv_benchmarks/fusing.py", *options)
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert len(figures["cache"]) == len(figures["memory"]) == 9
    rows = [*figures["cache"].values(), *figures["memory"].values()]
    assert all(0 < row["ns"] < 1e6 and 0.01 < row["ratio"] < 100 for row in rows)
    monkeypatch.syspath_prepend(ROOT / "asv_benchmarks")
    table = script("fusing").table
    assert out.strip() == table(figures)
    kept = json.loads((ROOT / "asv_benchmarks" / "results" / "fusing.json").read_text(encoding="utf-8"))
    assert table(kept) in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
