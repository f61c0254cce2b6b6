"""The command line, run as a user runs it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fastopt
from fastopt._bench import command_line, measure
from fastopt._bench.catalog import OPTIMIZERS

NAMES = list(OPTIMIZERS)


def test_prints_the_article_and_a_row_for_each_optimizer(capsys):
    assert command_line.main(["--size", "2^12"]) == 0
    out = capsys.readouterr().out
    differences = re.findall(r"^\w+ +\d+ +-?[\d.]+ +-?[\d.]+ +([\d.e+-]+)$", out, re.MULTILINE)
    assert len(differences) == 12
    assert all(float(d) < 1e-12 for d in differences)
    for name in NAMES:
        assert re.search(rf"^{name} +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", out, re.MULTILINE), name
    assert "|theta - 3|" in out


def test_json_is_nothing_but_json(capsys):
    assert command_line.main(["--size", "5000", "--dtype", "float64", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {row["optimizer"] for row in result["speed"]} >= set(NAMES)
    for row in result["speed"]:
        assert row["elements"] == 5000
        assert row["dtype"] == "float64"
        assert row["ms"] > 0
    assert len(result["article"]["Adam"]["fastopt"]) == 100
    assert result["info"]["threads"] >= 1


def test_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    file = tmp_path / "runs.png"
    assert command_line.main(["--size", "100", "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert str(file) in capsys.readouterr().out


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    assert command_line.main(["--plot", str(tmp_path / "missing" / "runs.png")]) == 1
    assert "--plot" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-3", "x", "2^", "1.5", "0^-1", "2^-1", "2^99999999999", "2^61", "9" * 5000])
def test_sizes_that_are_refused(size, capsys):
    with pytest.raises(SystemExit):
        command_line.main([f"--size={size}"])
    assert size in capsys.readouterr().err


def test_more_than_the_memory_is_refused_before_anything_is_measured(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["--size", "2^45"])
    assert "take 1_310_720.0 GiB of memory; this machine has" in capsys.readouterr().err


def test_out_of_memory_is_a_message(monkeypatch, capsys):
    def none(*arguments):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(measure, "speed", none)
    assert command_line.main(["--size", "10"]) == 1
    assert "not enough memory: Unable to allocate 9 GiB" in capsys.readouterr().err


def test_info(capsys):
    assert command_line.main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(fastopt.info())
    assert lines["fastopt"] == fastopt.__version__
    with pytest.raises(SystemExit):
        command_line.main(["info", "--json"])


FASTOPT = [sys.executable, "-m", "fastopt"]


@pytest.mark.parametrize("command", [["--size", "10"], ["info"]])
def test_whoever_reads_the_output_may_stop(command):
    """As `| head -1` does: no traceback."""
    with subprocess.Popen([*FASTOPT, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert "Error" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_no_traceback(redirected):
    command = f"{shlex.join([*FASTOPT, 'info'])} {redirected}"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if "full" in redirected else 0)
    assert "No space left" in done.stderr or "full" not in redirected


@pytest.mark.parametrize("closed", [False, True])
def test_figures_are_written_whatever_becomes_of_the_output(tmp_path, closed):
    """Of a terminal that knows ASCII alone, and one that is closed."""
    pytest.importorskip("rich", reason="needs the extra `bench`")
    quick = ["--only", "NumPy", "--sizes", "64", "--models", "--roofline", "100", "--seconds", "0.01"]
    run = [*FASTOPT, "bench", *quick, "--json", "figures.json"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    with subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ascii_only
    ) as process:
        if closed:
            process.stdout.close()
        out = "" if closed else process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == int(closed), errors
    assert "Traceback" not in errors
    assert closed or "one float32 Adam step" in out
    assert {row["case"] for row in json.loads((tmp_path / "figures.json").read_text())["rows"]} == {"64"}


def test_as_a_module():
    run = [sys.executable, "-m", "fastopt", "--size", "1000", "--json"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"info", "article", "speed"}
