"""The command line, run as a user runs it."""

import json
import re
import subprocess
import sys

import pytest

from fastopt import _cli

NAMES = ["GD", "Momentum", "RMSprop", "Adam", "AdamW"]


def test_prints_the_article_and_a_row_for_each_optimizer(capsys):
    assert _cli.main(["--size", "2^12"]) == 0
    out = capsys.readouterr().out
    differences = re.findall(r"^\w+ +\d+ +-?[\d.]+ +-?[\d.]+ +([\d.e+-]+)$", out, re.MULTILINE)
    assert len(differences) == 12
    assert all(float(d) < 1e-12 for d in differences)
    for name in NAMES:
        assert re.search(rf"^{name} +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", out, re.MULTILINE), name
    assert "|theta - 3|" in out


def test_json_is_nothing_but_json(capsys):
    assert _cli.main(["--size", "5000", "--dtype", "float64", "--json"]) == 0
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
    assert _cli.main(["--size", "100", "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert str(file) in capsys.readouterr().out


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    assert _cli.main(["--plot", str(tmp_path / "missing" / "runs.png")]) == 1
    assert "--plot" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-3", "x", "2^", "1.5"])
def test_sizes_that_are_refused(size, capsys):
    with pytest.raises(SystemExit):
        _cli.main([f"--size={size}"])
    assert size in capsys.readouterr().err


def test_as_a_module():
    run = [sys.executable, "-m", "fastopt", "--size", "1000", "--json"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"info", "article", "speed"}
