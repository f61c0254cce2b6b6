"""Fixtures."""

import os
import subprocess
import sys
import textwrap

import pytest

# Several processes run tests at once: a thread that waits for others must not keep a processor from them. Read when
# OpenMP's runtime is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from fastopt._kernels import compiler

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    from .simulated import turns

    turns.install()

# What takes longest, in two parts. Each process that tests gets a row of them at first, an eighth of all where there
# are two: the parts begin the first two rows, so that at the end none is left to be waited for.
LONGEST = (
    ("test_the_tests_for_a_gpu_run_in_the_simulator", "test_everything_in_the_simulator"),
    (
        "test_gpu_in_the_simulator",
        "test_the_readme_shows_the_figures_of_a_gpu",  # which has them from the one before
        "test_the_command_line_of_the_sanitizer",
        "test_the_same_bits_on_every_processor",
    ),
)


@pytest.hookimpl(trylast=True)  # of those that are selected
def pytest_collection_modifyitems(items):
    first, second = ([item for item in items if item.name.startswith(part)] for part in LONGEST)
    others = [item for item in items if not item.name.startswith(sum(LONGEST, ()))]
    until = max(0, len(items) // 8 - len(first))
    items[:] = [*first, *others[:until], *second, *others[until:]]


@pytest.fixture
def run_script(tmp_path):
    """Return a function that runs a script in a fresh interpreter and returns what it printed.

    It fails on a non-zero status and on anything written to stderr.
    """

    def run(script, *, cache=None, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "PYTHON"))}
        if cache is not None:
            env["NUMBA_CACHE_DIR"] = str(cache)
        env |= {"PYTHONWARNINGS": "error"} | {k: str(v) for k, v in environment.items()}
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=env, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(params=["fast", "close"])
def both_checks(request, monkeypatch):
    """Run a test twice: with array headers read from compiled code, and in Python alone."""
    if request.param == "close":
        monkeypatch.setattr(compiler, "gather", lambda: None)
