"""asv_benchmarks/gpu.py, in the simulator at a toy size, and what becomes of its figures."""

import functools
import json
import subprocess
import sys

import pytest

from fastopt._arrays import driver
from fastopt._bench import gpu, storages

from .documents import DOCUMENTS, ROOT, load_script, run_script
from .test_asv import called, suite

SMALL = ["--seconds", "100000", "--each", "0.001", "--log2", "3", "--large", "4"]
# One with a codec of every kind, and one that is not for the CPU's part; float32 is always there.
STORAGES = ["split8, int8 states", "float64, float32 states"]
CHOSEN = ["float32", *STORAGES]
# gpu.py in the simulator, whose threads take turns as soon as the script has loaded it: that takes less time.
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
    small = ["--tensors", "2", "--models", "--check", "Adam", "--check-sizes", "1", "7", "--storages", *STORAGES]
    files = ["--json", str(folder / "gpu.json"), "--plot", str(folder / "gpu.png")]
    command = [sys.executable, "-c", SIMULATED, "--simulate", *SMALL, *small, *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "gpu.png").read_bytes().startswith(b"\x89PNG")
    return done.stdout, json.loads((folder / "gpu.json").read_text())


@pytest.mark.ci
def test_gpu_in_the_simulator(simulated):
    out, result = simulated
    checks = {row["storage"]: row["different"] for row in result["checks"]}
    assert checks == {storage: {} for storage in CHOSEN}
    assert f"{len(CHOSEN)} checks, 0 with different bits; 0 wrong results" in out
    assert result["left_out"] == []
    measured = {row["peer"] for row in result["sizes"]}
    assert measured | set(result["absent"]) == {*gpu.PEERS, "streaming"}
    assert all(f"{name}: not measured: {reason}" in out for name, reason in result["absent"].items())
    assert {row["case"] for row in result["sizes"] + result["many"]} == {"8", "2 x 64"}
    assert [row["storage"] for row in result["storages"]] == CHOSEN
    assert all(row["ms"] > 0 for row in result["storages"] + result["cpu"] + result["roofline"])
    assert {row["threads"] for row in result["cpu"]} >= {1}
    assert {row["peer"] for row in result["host"]} >= {"fastopt", "fastopt graph", "fastopt, arrays of numba-cuda"}


@pytest.mark.ci
def test_the_readme_shows_the_figures_of_a_gpu(simulated, tmp_path, monkeypatch):
    tables, (_, result) = load_script("tables"), simulated
    with_tables = functools.partial(tables.with_tables, "README.md", DOCUMENTS["README.md"])
    monkeypatch.setattr(tables, "GPU_FIGURES", tmp_path / "gpu.json")
    assert tables.NOT_MEASURED in with_tables()
    tables.GPU_FIGURES.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"gpu\.json was not measured on a GPU: simulated"):
        with_tables()
    result["machine"]["cuda"] = "yes: a stand-in"
    tables.GPU_FIGURES.write_text(json.dumps(result))
    shown = with_tables()
    assert tables.NOT_MEASURED not in shown
    assert f"the bits of the CPU in all of {len(CHOSEN)} comparisons" in shown
    for row in result["storages"]:
        assert f"| {row['storage']} | {row['bytes']:.2f} | {row['ms']:.3g} |" in shown
    for row in result["host"]:
        assert f"{row['us']:.1f}" in shown
    for row in result["cpu"]:
        assert f"| {row['storage']} | " in shown
    result["checks"][0]["different"] = {"params": 3}
    tables.GPU_FIGURES.write_text(json.dumps(result))
    assert f"**1 of {len(CHOSEN)} comparisons with the CPU differ**: Adam in float32" in with_tables()


def test_documents_do_not_deny_figures_of_a_gpu():
    measured = load_script("tables").GPU_FIGURES.exists()
    denied = [name for name, text in DOCUMENTS.items() if "ot measured on a GPU" in text]
    assert bool(denied) != measured, denied


@pytest.mark.ci
def test_the_benchmarks_show_recorded_figures(simulated, tmp_path, monkeypatch):
    module, file = suite()["cuda"], tmp_path / "gpu.json"
    file.write_text(json.dumps(simulated[1]))
    monkeypatch.setattr(module, "RECORDED", file)
    figures = module.recorded()
    assert len(figures) == len(simulated[1]["sizes"]) + len(simulated[1]["many"])
    monkeypatch.setattr(module.Recorded, "figures", figures)
    monkeypatch.setattr(module.Recorded, "params", tuple(zip(*figures, strict=True)))
    assert dict(called(module.Recorded)) == {"track_time": simulated[1]["sizes"][0]["seconds"], "track_ratio": 1}


@pytest.fixture
def gpu_script(tmp_path, monkeypatch, capsys):
    """Return a function that runs the script, and returns its exit status and what it wrote."""

    def run(*arguments):
        status = run_script("asv_benchmarks/gpu.py", [*SMALL, *arguments], tmp_path, monkeypatch)
        return status, capsys.readouterr()

    return run


def test_gpu_says_what_is_missing(gpu_script):
    if driver.why_not() is None:
        pytest.skip("there is a GPU")
    status, said = gpu_script()
    assert (status, said.out) == (2, "")
    assert f"no GPU can be measured here: {driver.why_not()}" in said.err
    status, said = gpu_script("--parts", "cpu", "--storages", *STORAGES)
    assert (status, said.err) == (0, "")
    assert "split8, int8 states" in said.out
    assert "left out: 0" in said.out


def test_gpu_leaves_out_what_there_is_no_time_for(gpu_script):
    status, said = gpu_script("--parts", "cpu", "--seconds", "1e-6")
    assert (status, said.err) == (0, "")
    assert "cpu: float32: left out" in said.out
    assert f"left out: {len(storages.MEASURED) - 2};" in said.out  # all but the two in float64
