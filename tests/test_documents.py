"""Documents cannot rot: every command, script and block of code that they show is run, every table is made."""

import ast
import doctest
import importlib.machinery
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import fastopt
from fastopt._bench import cli, command_line, measure, report, run, storages

from .documents import DOCUMENTS, ROOT, blocks, commands, forget, is_script, load_script, run_script, spans, tables
from .test_codegen import features

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RESULTS = ROOT / "asv_benchmarks" / "results"
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


class Small(NamedTuple):
    """A script that is run here, as the document says and with these arguments; an exit status of 1 may be said."""

    more: str
    needs: tuple[str, ...] = ()
    may_fail: bool = False


class SameAs(NamedTuple):
    """A command that another one contains."""

    other: str


class ByTest(NamedTuple):
    """A command that another test runs."""

    test: str


class NotRun(NamedTuple):
    """A command that no test runs, for a reason; `right` looks at what can be looked at of its words."""

    reason: str
    right: object


def extras_are_there(words):
    """Of `pip install ...`: every extra, and every version, is one of pyproject.toml's."""
    extras = PROJECT["project"]["optional-dependencies"]
    requirements = [requirement for own in extras.values() for requirement in own]
    for word in words[2:]:
        named = re.fullmatch(r"\.(?:\[(.*)\])?", word)
        assert word in ("-q", "-e", *requirements) or named, word
        assert set(filter(None, (named[1] or "").split(",") if named else ())) <= extras.keys()


def finds_tests(words):
    """Of `pytest ...`: files and folders with tests, and markers that some test has."""
    rest = iter(words[1:])
    markers = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for word in rest:
        if word == "-m":
            for name in set(re.findall(r"\w+", next(rest))) - {"or", "not", "and"}:
                assert name in markers
                assert f"pytest.mark.{name}" in sources
        elif word == "-n":
            assert next(rest) == "0"
        elif word != "-q":
            place = ROOT / word
            assert place.is_file() or any(place.rglob("test_*.py")), word


def ci_runs_it(words):
    said = re.sub(r'"\$folder/\w+/bin/(\w+)"', r"\1", CI)
    assert re.search(rf"^{re.escape(shlex.join(words))}$", said, re.MULTILINE)


def hooks_are_of_the_tools(words):
    assert words == ["pre-commit", "install"]
    entries = re.findall(r"entry: (\w+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert set(entries) == {"ruff", "mypy"}
    assert all(any(r.startswith(name) for r in PROJECT["project"]["optional-dependencies"]["dev"]) for name in entries)


def folder_is_there(words):
    assert (ROOT / words[1]).is_dir()


def script_is_sound(words):
    file = ROOT / words[0]
    assert os.access(file, os.X_OK)
    subprocess.run(["bash", "-n", str(file)], check=True)


def message_names_it(words):
    assert "libgomp.so.1" in DOCUMENTS["README.md"]
    assert words[-1] == "libgomp1"


def nothing(words):
    """There is nothing to look at."""


INSTALLS, RUNS_TESTS, IN_CI = "it needs the network", "it is these tests that it runs", ".ci/run does"
#: How each command that a document names is run, at the smallest size that goes through all of it.
COMMANDS = {
    "pip install .": NotRun(INSTALLS, extras_are_there),
    "pip install -q '.[plot,progress]'": NotRun(INSTALLS, extras_are_there),
    "pip install -q -e '.[test]'": NotRun(INSTALLS, extras_are_there),
    "pip install '.[cuda13]'": NotRun(INSTALLS, extras_are_there),
    "pip install torch==2.13.0": NotRun(INSTALLS, extras_are_there),
    "pip install -e '.[test,peers,dev]'": NotRun(INSTALLS, extras_are_there),
    "venv .venv": NotRun("it is Python's own", nothing),
    "apt install libgomp1": NotRun(INSTALLS, message_names_it),
    "pre-commit install": NotRun("it changes the clone", hooks_are_of_the_tools),
    "pytest": NotRun(RUNS_TESTS, finds_tests),
    "pytest -q": NotRun(RUNS_TESTS, finds_tests),
    'pytest -m "not slow"': NotRun(RUNS_TESTS, finds_tests),
    "pytest -n 0 -m slow": NotRun(RUNS_TESTS, finds_tests),
    "pytest -m internals tests": NotRun(RUNS_TESTS, finds_tests),
    "pytest tests/ptx": NotRun(RUNS_TESTS, finds_tests),
    "pytest -m slow tests/ptx": NotRun(RUNS_TESTS, finds_tests),
    'pytest tests/test_gpu.py -m "slow or not slow"': NotRun(RUNS_TESTS, finds_tests),
    "pytest tests/test_gpu.py": ByTest("test_cuda.py::test_the_tests_for_a_gpu_run_in_the_simulator"),
    "NUMBA_ENABLE_CUDASIM=1 pytest tests/simulated": ByTest("test_cuda.py::test_everything_in_the_simulator"),
    "ruff check .": NotRun(IN_CI, ci_runs_it),
    "ruff format --check .": NotRun(IN_CI, ci_runs_it),
    "mypy": NotRun(IN_CI, ci_runs_it),
    ".ci/run": NotRun("it takes longer than all tests, which it runs", script_is_sound),
    "fastopt": ByTest("test_cli.py::test_prints_the_article_and_a_row_for_each_optimizer"),
    "fastopt --plot runs.png": ByTest("test_cli.py::test_plot"),
    "fastopt info": ByTest("test_cli.py::test_info"),
    "fastopt bench": ByTest("test_bench.py::test_table_json_and_picture"),
    "fastopt bench --json new.json --plot new.png": ByTest("test_bench.py::test_table_json_and_picture"),
    "fastopt bench --json asv_benchmarks/results/cpu.json": ByTest("test_bench.py::test_table_json_and_picture"),
    "fastopt bench --compare old.json --factor 1.25": ByTest("test_bench.py::test_the_gate"),
    "fastopt bench --optimizers tests.own_optimizers:Lion": ByTest("test_own_optimizer.py::test_bench"),
    "fastopt bench --sizes --models --optimizers qhm:QHM": ByTest(
        "test_documents.py::test_the_tutorial_is_benchmarked"
    ),
    "fastopt bench --device cuda": ByTest("simulated/test_bench.py::test_what_is_measured_is_written"),
    "cd asv_benchmarks": NotRun("it is a part of the next", folder_is_there),
    "asv machine --yes": ByTest("test_asv.py::test_the_commands_that_are_documented"),
    "asv run --quick --python=same --set-commit-hash $(git rev-parse HEAD)": ByTest(
        "test_asv.py::test_the_commands_that_are_documented"
    ),
    "asv publish": ByTest("test_asv.py::test_the_commands_that_are_documented"),
    "asv preview": ByTest("test_asv.py::test_the_commands_that_are_documented"),
    "asv_benchmarks/gpu.py": ByTest("test_scripts.py::test_gpu_in_the_simulator"),
    "asv_benchmarks/gpu.py --json asv_benchmarks/results/gpu.json": ByTest(
        "test_scripts.py::test_gpu_in_the_simulator"
    ),
    "asv_benchmarks/gpu.py --parts cpu": ByTest("test_scripts.py::test_gpu_says_what_is_missing"),
    "tests.tested --json asv_benchmarks/results/tested.json": ByTest("test_tested.py::test_a_small_table"),
    "tests.tested --targets cpu --storages all --json asv_benchmarks/results/tested.json": ByTest(
        "test_tested.py::test_a_small_table"
    ),
    "examples/cuda_graph.py": ByTest("simulated/test_documents.py::test_graphs"),
    "examples/ddp.py": ByTest("test_distributed.py::test_an_example"),
    "examples/zero.py": ByTest("test_distributed.py::test_an_example"),
    "examples/fsdp2.py": ByTest("test_distributed.py::test_the_example_with_a_checkpoint_ends_when_a_process_dies"),
    "torchrun --standalone --nproc-per-node 2 examples/fsdp2.py": ByTest(
        "test_distributed.py::test_the_example_with_a_checkpoint_ends_when_a_process_dies"
    ),
    "asv_benchmarks/by_hand.c": ByTest("test_documents.py::test_loops_by_hand"),
    "asv_benchmarks/tables.py": ByTest("test_documents.py::test_tables_and_pictures_are_written"),
    "asv_benchmarks/anatomy.py": SameAs("asv_benchmarks/anatomy.py --json asv_benchmarks/results/anatomy.json"),
    "asv_benchmarks/anatomy.py --json asv_benchmarks/results/anatomy.json": Small("--sizes 64 2^15 --seconds 0.05"),
    "asv_benchmarks/companding.py": SameAs(
        "asv_benchmarks/companding.py --json asv_benchmarks/results/companding.json"
    ),
    "asv_benchmarks/companding.py --json asv_benchmarks/results/companding.json": Small("--elements 64 --steps 15"),
    "asv_benchmarks/formats.py": SameAs("asv_benchmarks/formats.py --json formats.json"),
    "asv_benchmarks/formats.py --json formats.json": Small(
        "--log2 11 --seconds 0.05 --only float32 'float32, m in bfloat16, v in int8'", ("torch",)
    ),
    "asv_benchmarks/fusing.py": SameAs("asv_benchmarks/fusing.py --json asv_benchmarks/results/fusing.json"),
    "asv_benchmarks/fusing.py --json asv_benchmarks/results/fusing.json": Small(
        "--log2 11 11 --rounds 3 --seconds 0.1 --only 'float32, int8 states'"
    ),
    "asv_benchmarks/placement.py": SameAs("asv_benchmarks/placement.py --json asv_benchmarks/results/placement.json"),
    "asv_benchmarks/placement.py --json asv_benchmarks/results/placement.json": Small("--log2 8 --seconds 0.05"),
    "asv_benchmarks/dropin.py": SameAs("asv_benchmarks/dropin.py --json asv_benchmarks/results/dropin.json"),
    "asv_benchmarks/dropin.py --json asv_benchmarks/results/dropin.json": Small(
        "--only 'one tensor of 64' --seconds 0.1 --threads 1 --no-inductor", ("torch",)
    ),
    "asv_benchmarks/starved.py": SameAs("asv_benchmarks/starved.py --json asv_benchmarks/results/starved.json"),
    "asv_benchmarks/starved.py --json asv_benchmarks/results/starved.json": Small(
        "--processes 2 --tensors 2 --elements 64 --rounds 2", ("torch",)
    ),
    "asv_benchmarks/promises.py": Small(
        "--smaller 12 --seconds 0.05 --processes 1 --json promises.json", ("torch",), may_fail=True
    ),
    "examples/low_precision.py": SameAs(
        "examples/low_precision.py --json asv_benchmarks/results/low_precision.json --plot docs/low_precision.png"
    ),
    "examples/low_precision.py --json asv_benchmarks/results/low_precision.json --plot docs/low_precision.png": Small(
        "--quick --seeds 2", ("torch",)
    ),
    "examples/exploding_gradients.py": SameAs(
        "examples/exploding_gradients.py --json asv_benchmarks/results/exploding_gradients.json "
        "--plot docs/exploding_gradients.png"
    ),
    "examples/exploding_gradients.py --json asv_benchmarks/results/exploding_gradients.json "
    "--plot docs/exploding_gradients.png": Small("--steps 10"),
}
#: Options that a document names by themselves: what they are of.
OPTIONS = {
    "-n 0": "pytest",
    "--simulate": "asv_benchmarks/gpu.py",
    "--log2 20": "asv_benchmarks/formats.py",
    "--offset 0": "asv_benchmarks/placement.py",
}
#: The documents with tables that `tables.py` makes.
WITH_TABLES = ["README.md", "docs/performance.md", "docs/low_precision.md", "docs/training.md", "docs/tested.md"]
#: Tables that no script makes, by what stands in their first line.
BY_HAND = {
    "README.md": ["argument"],  # what an argument does: the test of its bytes is below
    "CONTRIBUTING.md": ["what", "folder"],  # no figures
    "docs/performance.md": ["what"],  # beside code that is no longer there to be measured
}


def named():
    """Return every command that a document names, and the document that names it first."""
    return {command: name for name, text in reversed(DOCUMENTS.items()) for command in commands(text)}


def test_commands_are_found():
    text = """
Run `python asv_benchmarks/new.py --fast`, `.venv/bin/fastopt bench
--json x.json` or `asv_benchmarks/other.py`, see [this](examples/third.py); `tests/test_imports.py`, `p -= lr * g`,
`asv_benchmarks/results/cpu.json` and `fastopt.info()` are none.

```sh
python3 -m venv .venv && .venv/bin/python -m pip install -q .   # a comment
```

| what | command |
|---|---|
| all | `anything else` |
| that | `A=1 ../.venv/bin/asv run && make` |
"""
    assert commands(text) == [
        *("venv .venv", "pip install -q .", "anything else", "A=1 asv run", "make"),
        *(
            "asv_benchmarks/new.py --fast",
            "fastopt bench --json x.json",
            "asv_benchmarks/other.py",
            "examples/third.py",
        ),
    ]


def test_every_command_is_run():
    unknown = {command: name for command, name in named().items() if command not in COMMANDS}
    assert not unknown, f"named in a document, but not in COMMANDS of {Path(__file__).name}"
    assert not COMMANDS.keys() - named().keys(), "no document names it any more"


def test_every_script_is_named():
    files = [*(ROOT / "asv_benchmarks").glob("*.*"), *(ROOT / "examples").glob("*.*")]
    scripts = {f.relative_to(ROOT).as_posix() for f in files if re.search(r"__main__|int main", f.read_text("utf-8"))}
    assert scripts == {word for command in COMMANDS if is_script(word := command.split()[0]) and ".ci" not in word}


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if isinstance(how, ByTest)])
def test_the_other_test_is_there(command):
    file, _, name = COMMANDS[command].test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if isinstance(how, NotRun)])
def test_what_is_not_run_is_right(command):
    COMMANDS[command].right(shlex.split(command))


@pytest.mark.parametrize("command", [c for c, how in COMMANDS.items() if isinstance(how, SameAs)])
def test_the_same_command_with_more_options(command):
    assert isinstance(COMMANDS[COMMANDS[command].other], Small)
    assert COMMANDS[command].other.startswith(f"{command} ")


@pytest.mark.usefixtures("tutorial_module")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.partition(" ")[0] == "fastopt"])
def test_options_of_the_command_line(command):
    """Those that are run with others in tests of their own: the command line takes them."""
    _, *words = command.split()
    if words[:1] == ["bench"]:
        cli._parser().parse_args(words[1:])
    elif words != ["info"]:
        command_line._parser().parse_args(words)


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_are_named_by_themselves(option, tmp_path, monkeypatch, capsys):
    assert option in [span for text in DOCUMENTS.values() for span in spans(text)]
    if OPTIONS[option] != "pytest":
        assert run_script(OPTIONS[option], ["--help"], tmp_path, monkeypatch) == 0
        assert f"{option.split()[0]} " in capsys.readouterr().out.replace("]", " ")


def test_every_option_is_known():
    assert {span for text in DOCUMENTS.values() for span in spans(text) if re.match(r"--?\w", span)} == OPTIONS.keys()


@pytest.mark.parametrize(
    "command", [c for c, how in COMMANDS.items() if isinstance(how, Small)], ids=lambda c: c.split()[0]
)
def test_a_script(command, tmp_path, monkeypatch, capsys, request):
    how, (script, *words) = COMMANDS[command], shlex.split(command)
    for package in how.needs:
        pytest.importorskip(package, reason="needs the extra `peers`")
    for folder in ("asv_benchmarks/results", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    request.getfixturevalue("without_scikit_learn")
    words += shlex.split(how.more)
    assert run_script(script, words, tmp_path, monkeypatch) in ((0, 1) if how.may_fail else (0,))
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / words[words.index("--json") + 1]).read_text(encoding="utf-8"))
    assert figures["measured"]["numba"]
    for name in RENDERED.get(Path(script).stem, (Path(script).stem,)):  # what tables.py would make of them
        table = getattr(load_script("render"), name)(figures)
        assert len(table.splitlines()) > 2
        assert table in out or script.startswith("examples/")
    for file in RESULTS.glob(f"{Path(script).stem}*.json"):
        assert_like_committed(figures, json.loads(file.read_text(encoding="utf-8")))
    if "--plot" in words:
        assert (tmp_path / words[words.index("--plot") + 1]).read_bytes().startswith(b"\x89PNG")


#: The tables that are made of the figures of a script, where they are not called like it.
RENDERED = {
    "low_precision": ("training", "standing_still", "round_trips"),
    "exploding_gradients": ("clipping", "through_time"),
    "promises": (),
}


def assert_like_committed(new, old):
    """Figures that a script writes have the structure of those that are committed, and the same names in it.

    There may be fewer, at a small size, or more, of which none were committed.
    """
    if isinstance(old, dict):
        assert new.keys() <= old.keys() or new.keys() >= old.keys(), new.keys() ^ old.keys()
        for name in (old.keys() & new.keys()) - {"measured"}:
            assert_like_committed(new[name], old[name])
    elif isinstance(old, list) and isinstance(old[0], dict):
        for one, other in zip(new, old, strict=True):
            assert_like_committed(one, other)
    else:
        assert isinstance(new, type(old)) or {type(new), type(old)} == {int, float}
        assert isinstance(new, (int, float, list)) or new == old


@pytest.fixture
def without_scikit_learn(monkeypatch):
    """Where it is not installed, numbers of the same shape stand in for its handwritten digits."""
    if importlib.util.find_spec("sklearn") is None:
        rng = np.random.default_rng(0)
        digits = SimpleNamespace(data=rng.uniform(0, 16, (1797, 64)), target=rng.integers(0, 10, 1797))
        package, spec = ModuleType("sklearn"), importlib.machinery.ModuleSpec("sklearn", None)
        package.datasets, package.__spec__ = ModuleType("sklearn.datasets"), spec  # PyTorch asks for it
        package.datasets.load_digits = lambda: digits
        monkeypatch.setitem(sys.modules, "sklearn", package)
        monkeypatch.setitem(sys.modules, "sklearn.datasets", package.datasets)


def test_what_needs_an_extra_says_so():
    """A script that imports PyTorch is one that CONTRIBUTING says needs the extra `peers`, and the other way round."""
    rows = {row.split("|")[2]: row for table in tables(DOCUMENTS["CONTRIBUTING.md"]) for row in table}
    for command, how in COMMANDS.items():
        if isinstance(how, Small):
            source = (ROOT / command.split()[0]).read_text(encoding="utf-8")
            imports = {
                line.split()[1].partition(".")[0] for line in source.splitlines() if re.match(r" *(import|from) ", line)
            }
            (row,) = [row for cell, row in rows.items() if command.split()[0] in cell]
            assert set(how.needs) == imports & {"torch", "optax", "jax"}
            assert ("extra `peers`" in row) == bool(how.needs), row


def test_loops_by_hand(tmp_path):
    """The command in its comment, with warnings as errors; run where the processor has those instructions."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    source = ROOT / "asv_benchmarks" / "by_hand.c"
    text = source.read_text(encoding="utf-8")
    compile_, run = (
        re.search(r"^ \*     (gcc .*)$", text, re.MULTILINE)[1].replace("/tmp/", f"{tmp_path}/").split(" && ")
    )
    done = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True)
    if not done.stdout.startswith("x86_64"):
        pytest.skip(f"compiles for x86-64, not for {done.stdout.strip()}")
    subprocess.run([*shlex.split(compile_), "-Wall", "-Wextra", "-Werror"], check=True, cwd=source.parent)
    assert all((ROOT / file).is_file() for file in re.findall(r"fastopt/[\w/]+\.py", text))
    if all(features.get(name) for name in ("avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512bitalg")):
        out = subprocess.run([run], capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(r"(float32|int8 states|split8 and int8 states) +\d+\.\d{3}\n" * 3, out)


def test_tables_and_pictures_are_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    for name in WITH_TABLES:
        before, after = DOCUMENTS[name].split(": begin -->\n", 1)
        (tmp_path / name).write_text(f"{before}: begin -->\n nothing of this stays {after}", encoding="utf-8")
    assert run_script("asv_benchmarks/tables.py", ["--root", str(tmp_path)], tmp_path, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    written = [line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")]  # the tutorial prints, too
    assert written[:6] == [*WITH_TABLES, "docs/bench.png"]
    for name in written:
        if name.endswith(".md"):
            assert (tmp_path / name).read_text(encoding="utf-8") == DOCUMENTS[name]
    assert written[-1] == "docs/qhm.png"
    for name in ("docs/bench.png", "docs/qhm.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def made():
    return load_script("tables")


@pytest.mark.parametrize("name", WITH_TABLES)
def test_documents_show_the_committed_figures(name, made):
    assert made.with_tables(name, DOCUMENTS[name]) == DOCUMENTS[name], "run asv_benchmarks/tables.py"


@pytest.mark.parametrize("name", sorted(file.name for file in RESULTS.iterdir()))
def test_other_figures_are_seen(name, made, monkeypatch):
    """A file in which every figure is another one does not agree with any document that shows it."""

    def changed(value):
        if isinstance(value, dict):
            return {key: changed(own) for key, own in value.items()}
        if isinstance(value, list):
            return [changed(own) for own in value]
        return value * 2 + 1 if isinstance(value, float) else value

    load = made.load
    monkeypatch.setattr(made, "load", lambda file: changed(load(file)) if file == name else load(file))
    found = [(text, make()) for own in made.TABLES.values() for text, make in own.items() if name in text]
    assert found
    assert not any(table in text for _, table in found for text in DOCUMENTS.values())


def test_pictures_are_drawn_from_the_committed_figures(made):
    for picture, figures in made.PICTURES.items():
        assert report.fingerprint(figures()).encode() in (ROOT / picture).read_bytes(), "run asv_benchmarks/tables.py"


def test_the_bytes_of_the_committed_figures(made):
    """What arrays take and what is moved were calculated: they are what is calculated now."""
    chosen = load_script("formats").CHOSEN
    for file in ("formats_62_gb_per_s.json", "formats_98_gb_per_s.json"):
        for storage, row in made.load(file)["rows"].items():
            own = measure.bytes_of(chosen.get(storage, storages.STORAGES["float32"]).codecs())
            assert (row["moved"], row["theory"]) == (own.moved, own.read)
            assert abs(row["held"] - row["theory"]) < 0.05


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_table_is_made_by_a_script(name):
    """Or is one of the few that are written by hand, which are listed."""
    outside = re.sub(r"<!-- from (.*): begin -->.*<!-- from \1: end -->\n", "", DOCUMENTS[name], flags=re.DOTALL)
    assert [table[0].split("|")[1].strip() for table in tables(outside)] == BY_HAND.get(name, [])


def test_every_file_of_figures_is_shown():
    shown = "".join(re.findall(r"<!-- from (.*): begin -->", "".join(DOCUMENTS.values())))
    assert [file.name for file in RESULTS.iterdir() if file.name not in shown] == []


def test_the_bytes_that_the_readme_names():
    (table,) = [lines for lines in tables(DOCUMENTS["README.md"]) if lines[0].startswith("| argument")]
    found = [row.split("|")[-2].strip() for row in table[2:]]

    def bytes_in(name):
        return measure.bytes_of(storages.STORAGES[name].codecs())

    def kept(name):
        own, states = bytes_in(name), measure.bytes_of(("float32",) * 4).written - 4
        return f"{own.written - states:.0f}"

    whole = [bytes_in(name) for name in ("float32", "float32, bfloat16 states", "float32, int8 states")]
    right = [f"{own.written:.0f} / {own.moved:.0f}" for own in whole]
    right += [f"{kept('bfloat16, stochastic')} + states", f"{kept('bfloat16, kahan')} + states"]
    right += [f"{kept('split8')} or {kept('split16')} + states"]
    assert found == right
    assert f"reads and writes {whole[0].moved} bytes for each float32 element" in DOCUMENTS["docs/low_precision.md"]
    assert f"moving its {whole[0].moved} bytes an element" in DOCUMENTS["docs/performance.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_runs(name, tmp_path, monkeypatch):
    """What is a doctest, pytest runs in README.md; else a document is one session. A class is quoted as it is."""
    found = blocks(DOCUMENTS[name], "python")
    if name == "README.md":
        options = PROJECT["tool"]["pytest"]["ini_options"]
        assert {"README.md"} <= set(options["testpaths"])
        assert "--doctest-glob=README.md" in options["addopts"]
        assert all(block.startswith(">>> ") for block in found)
        return
    session = {"__name__": "session"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for block in found:
        if quoted := re.search(r"^class (\w+)\(Optimizer\)", block, re.MULTILINE):
            file = ROOT / "fastopt" / "optimizers" / f"{quoted[1].lower()}.py"
            assert block == without_docstring(file.read_text(encoding="utf-8"), block.splitlines()[0])
        else:
            exec(compile(block, name, "exec"), session)
    for picture in (tmp_path / "docs").iterdir():  # one that a document draws is the one that it shows
        assert f"]({picture.name})" in DOCUMENTS[name]
        committed = ROOT / "docs" / picture.name
        assert description(picture) == description(committed), "run asv_benchmarks/tables.py"


def description(picture):
    """Return what a picture says of itself: its pixels differ between releases of matplotlib."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.size, image.info["Description"]


@pytest.fixture
def tutorial_module(tmp_path, monkeypatch):
    """The first block of the tutorial in the file that it names, where commands find it."""
    (tmp_path / "qhm.py").write_text(blocks(DOCUMENTS["docs/tutorial.md"], "python")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    forget(tmp_path, before)


@pytest.mark.usefixtures("tutorial_module")
def test_the_tutorial_is_benchmarked(monkeypatch, capsys):
    """By the command that it shows; the package's own optimizers are left out."""
    pytest.importorskip("rich", reason="needs the extra `bench`")
    (block,) = blocks(DOCUMENTS["docs/tutorial.md"], "sh")
    monkeypatch.setattr(run, "OPTIMIZERS", {})
    assert cli.main([*shlex.split(block)[2:], "--roofline", "4096"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "4_096" in line]
    assert "QHM" in row


def without_docstring(text, begin):
    """Return a source from a line on, without the docstring of the optimizer."""
    docstring = r'(^class \w+\(Optimizer\):\n)    r?""".*?"""\n\n'
    return re.sub(docstring, r"\1", text[text.index(begin) :], count=1, flags=re.DOTALL | re.MULTILINE)


def test_what_readme_shows_of_pytorch(tmp_path, monkeypatch):
    """Without it, it is skipped, and so it must be for the doctests."""
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    found = [block for block in blocks(DOCUMENTS["README.md"], "python") if "fastopt.torch" in block]
    examples = [example for block in found for example in doctest.DocTestParser().get_examples(block)]
    assert all(example.options.get(doctest.SKIP) for example in examples)
    monkeypatch.chdir(tmp_path)
    session = {"fastopt": fastopt}
    for example in examples:
        exec(example.source, session)
    assert type(session["opt"]).__name__ == "Offload"
    saved = torch.load("adamw.pt", weights_only=True)
    assert [state["step"] for state in saved["state"].values()] == [1, 1]
    assert saved["param_groups"][0]["lr"] < 1e-3


def test_what_is_skipped_needs_a_gpu():
    """And is run in the simulator, by tests/simulated/test_documents.py."""
    skipped = [block for block in blocks(DOCUMENTS["README.md"], "python") if "SKIP" in block]
    (of_gpu,) = [block for block in skipped if "fastopt.torch" not in block]
    examples = doctest.DocTestParser().get_examples(of_gpu)
    assert all(example.options.get(doctest.SKIP) for example in examples)
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        exec("\n".join(example.source for example in examples), {"fastopt": fastopt})
