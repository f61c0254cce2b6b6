"""The airspeed-velocity suite: every benchmark is set up and called once at its smallest size; the commands work."""

import functools
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import signal
import subprocess
import sys
import urllib.request

import numba
import pytest

from fastopt._bench import device

from .documents import DOCUMENTS, ROOT, commands

SUITE = ROOT / "asv_benchmarks"
# What asv takes for a benchmark, by the first word of its name.
KINDS = ("time", "timeraw", "track", "peakmem", "mem")


@functools.cache
def suite():
    """Return the modules of the suite by name."""
    sys.path.insert(0, str(SUITE))
    try:
        package = importlib.import_module("benchmarks")
        names = [module.name for module in pkgutil.iter_modules(package.__path__)]
        return {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    finally:
        sys.path.remove(str(SUITE))


def is_benchmark(name):
    return name.partition("_")[0] in KINDS and "_" in name


def classes():
    """Return the classes of all modules that have benchmarks, by module and name."""
    found = {}
    for name, module in suite().items():
        for thing_name, thing in vars(module).items():
            assert not (inspect.isfunction(thing) and is_benchmark(thing_name)), "a function: call it here, too"
            if inspect.isclass(thing) and thing.__module__ == module.__name__ and any(map(is_benchmark, dir(thing))):
                found[f"{name}.{thing_name}"] = thing
    return found


def smallest(cls):
    """Return the smallest, or first, of each of its parameters."""
    params = getattr(cls, "params", [])
    several = params if params and isinstance(params[0], (list, tuple)) else [params] if params else []
    return [min(p) if all(isinstance(n, int) for n in p) else p[0] for p in several]


def called(cls):
    """Set a benchmark up, call all that it measures, and yield the name and the answer of each."""
    least, own = smallest(cls), cls()
    if hasattr(cls, "params"):
        assert len(cls.param_names) == len(least)
    try:
        if hasattr(own, "setup"):
            own.setup(*least)
        for name in filter(is_benchmark, dir(own)):
            yield name, getattr(own, name)(*least)
    finally:
        if hasattr(own, "teardown"):
            own.teardown(*least)


@pytest.mark.parametrize("name", classes())
def test_every_benchmark(name):
    threads, answers, cannot = numba.get_num_threads(), {}, None
    try:
        answers = dict(called(classes()[name]))
    except NotImplementedError as reason:  # how a benchmark tells asv that it cannot be run here
        cannot = str(reason)
    assert cannot == {"cuda.Step": device.missing(), "cuda.Recorded": no_figures()}.get(name)
    if cannot:
        pytest.skip(cannot)
    assert answers
    assert numba.get_num_threads() == threads
    for method, answer in answers.items():
        if method.startswith("track_"):
            assert answer > 0
            assert getattr(classes()[name], method).unit
        if method.startswith("timeraw_"):
            exec(answer, {})


def no_figures():
    return None if (SUITE / "results" / "gpu.json").exists() else "not measured on a GPU"


def test_every_module_has_some():
    assert {name.partition(".")[0] for name in classes()} == suite().keys() - {"common"}
    for cls in classes().values():
        assert (ROOT / inspect.getsourcefile(cls)).parent == SUITE / "benchmarks"


def test_something_public_without_a_benchmark_is_seen(monkeypatch):
    import fastopt

    suite()
    monkeypatch.setattr(fastopt, "__all__", [*fastopt.__all__, "something"])
    monkeypatch.syspath_prepend(SUITE)
    with pytest.raises(ImportError, match=r"public, but without a benchmark: \['something'\]"):
        importlib.reload(sys.modules["benchmarks"])


def test_the_commands_that_are_documented(tmp_path):
    """On one benchmark and with results of their own; the pages are made, and shown."""
    if importlib.util.find_spec("asv") is None:
        pytest.skip("needs the extra `bench`")
    if subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, check=False, cwd=ROOT).returncode:
        pytest.skip("needs a clone")
    config = json.loads((SUITE / "asv.conf.json").read_text(encoding="utf-8"))
    folders = {name: str(tmp_path / name) for name in ("env_dir", "results_dir", "html_dir")}
    config |= folders | {"repo": str(ROOT), "branches": ["HEAD"], "benchmark_dir": str(SUITE / "benchmarks")}
    file = tmp_path / "asv.conf.json"
    file.write_text(json.dumps(config))
    environment = os.environ | {"HOME": str(tmp_path)}  # where asv keeps what it knows of the machine
    wanted = [c for c in commands(DOCUMENTS["CONTRIBUTING.md"]) if c.startswith("asv ")]
    assert [c.split()[1] for c in wanted] == ["machine", "run", "publish", "preview"]

    def start(command, *more):
        command = re.sub(r"\$\((.*?)\)", lambda m: subprocess.getoutput(f"cd {SUITE} && {m[1]}"), command)
        words = [sys.executable, "-m", *shlex.split(command), "--config", str(file), *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(words, cwd=SUITE, env=environment, **pipes)

    def run(command, *more):
        with start(command, *more) as process:
            out = process.stdout.read()
        assert process.returncode == 0, out
        return out

    machine, measure, publish, preview = wanted
    run(machine)
    assert "overhead.Info.time_info" in run(measure, "--bench", "overhead.Info")
    found = json.loads((tmp_path / "results_dir" / "benchmarks.json").read_text())
    ours = {f"{name}.{method}" for name, cls in classes().items() for method in filter(is_benchmark, dir(cls))}
    assert set(found) - {"version"} == ours
    run(publish)
    with start(preview, "--port", "0") as process:
        try:
            said = next(url for line in process.stdout if (url := re.search(r"http://[\w.:]+", line)))
            with urllib.request.urlopen(said[0]) as page:
                assert b"airspeed velocity" in page.read()
        finally:
            process.send_signal(signal.SIGINT)
