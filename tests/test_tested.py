"""The table of all optimizers, storages and targets: a small one, and what becomes of failures and of stopped runs."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from fastopt._bench.catalog import OPTIMIZERS
from fastopt._bench.storages import STORAGES

from . import tested
from .documents import ROOT, load_script

SOME = ["float32", "float32, int8 states"]
RESULTS = ROOT / "asv_benchmarks" / "results" / "tested.json"


@pytest.mark.ci
def test_a_small_table(tmp_path):
    """One optimizer in one storage on every target that can be had; then nothing is left to try."""
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    command = [sys.executable, "-m", "tests.tested", "--optimizers", "Momentum", "--storages", SOME[1], *files]
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    targets = {"cpu", "simulator"} | ({"ptx"} if importlib.util.find_spec("numba_cuda") else set())
    for said in ("1 passed", "1 passed before"):
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        for target in targets:
            assert f"{target}: Momentum: {said}; " in done.stdout
        assert f"{len(targets)} passed, 0 failed, {3 - len(targets)} not possible, 0 not tried" in done.stdout
    rows = json.loads((tmp_path / "a.json").read_text())["targets"]
    assert {target for target, row in rows.items() if row["Momentum"]["passed"] == SOME[1:]} == targets
    text = (tmp_path / "a.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(tested.TARGETS)
    assert "| Momentum | 1/1 | 1/1 | " in text


@pytest.fixture
def tried(monkeypatch):
    """Return the pairs that were tried on a target without arrays, on which RMSprop and LAMB fail."""
    found = []

    def take_steps(name, storage):
        found.append((name, storage.name))
        if name == "RMSprop":
            raise ValueError("\nthe first line\nand another")
        if name == "LAMB":
            raise AssertionError

    class Target:
        def __enter__(self):
            return take_steps

        def __exit__(self, *error):
            pass

    monkeypatch.setitem(tested.TARGETS, "cpu", Target)
    return found


def made(file, *names, storages=SOME):
    more = ["--markdown", str(file.with_suffix(".md"))]
    return tested.main(
        ["--targets", "cpu", "--optimizers", *names, "--storages", *storages, "--json", str(file), *more]
    )


def test_failures_are_written_down(tried, tmp_path, capsys):
    file = tmp_path / "a.json"
    assert made(file, "GD", "RMSprop", "LAMB", "Adam") == 1
    assert tried == [("GD", "float32"), *((name, s) for name in ("RMSprop", "LAMB", "Adam") for s in SOME)]
    rows = json.loads(file.read_text())["targets"]["cpu"]
    assert rows["GD"]["not possible"] == {SOME[1]: "it has no states"}
    assert rows["RMSprop"]["failed"] == dict.fromkeys(SOME, "ValueError: the first line")
    assert rows["LAMB"]["failed"] == dict.fromkeys(SOME, "AssertionError: raise AssertionError")
    assert rows["Adam"]["passed"] == SOME
    out, text = capsys.readouterr().out, file.with_suffix(".md").read_text()
    for shown in (out, text):
        assert "| RMSprop | 0/2 | 0/2 | " in shown
        assert "| all | 3/7 | 3/7 | " in shown
        assert "- RMSprop in float32, int8 states: ValueError: the first line\n" in shown
        assert "Not possible, as it has no states: GD in 1 storage." in shown
    assert "3 passed, 4 failed, 1 not possible, 0 not tried" in out


def test_what_is_known_is_not_tried_again(tried, tmp_path, monkeypatch, capsys):
    file = tmp_path / "a.json"
    assert made(file, "RMSprop", storages=SOME[:1]) == 1
    assert made(file, "RMSprop", "Adam") == 1
    assert tried == [("RMSprop", SOME[0]), ("RMSprop", SOME[1]), ("Adam", SOME[0]), ("Adam", SOME[1])]
    assert made(file, "Adam") == 0  # the status is of what is asked for
    assert len(tried) == 4
    monkeypatch.setattr(tested, "digest", lambda measured: "another")
    assert made(file, "Adam") == 0
    assert len(tried) == 6
    assert "of other sources" in capsys.readouterr().out
    assert json.loads(file.read_text())["targets"]["cpu"].keys() == {"Adam"}


def test_a_run_that_is_stopped_goes_on(tried, tmp_path, monkeypatch):
    attempt = tested.attempt

    def stopped(take_steps, name, storage):
        if name == "Adam":
            raise KeyboardInterrupt
        return attempt(take_steps, name, storage)

    file = tmp_path / "a.json"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tested, "attempt", stopped)
        made(file, "GD", "Adam")
    assert made(file, "GD", "Adam") == 0
    assert tried == [("GD", SOME[0]), ("Adam", SOME[0]), ("Adam", SOME[1])]


def test_what_is_wrong_is_seen(monkeypatch):
    """A last bit, and one unit of a format."""
    expression = tested.expression

    def other(*given, **named):
        return [row * row.dtype.type(1 + 2**-7) for row in expression(*given, **named)]

    for storage in ("float32", "float64, float32 states", "bfloat16, kahan, bfloat16 states", "split8"):
        tested.check_on_the_cpu("Adam", STORAGES[storage], 100)
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            patch.setattr(tested, "expression", other)
            tested.check_on_the_cpu("Adam", STORAGES[storage], 100)


def test_a_storage_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="no such storage: float8"):
        made(tmp_path / "a.json", "Adam", storages=["float32", "float8"])


def test_the_committed_table():
    """Of storages and optimizers that there are; whether they pass now, other tests say."""
    targets = json.loads(RESULTS.read_text())["targets"]
    assert targets.keys() == tested.TARGETS.keys()
    for target, rows in targets.items():
        assert load_script("render").tested({"targets": targets}, target)
        assert rows.keys() <= OPTIMIZERS.keys()
        for row in rows.values():
            assert {name for outcome in tested.OUTCOMES for name in row[outcome]} <= STORAGES.keys()
