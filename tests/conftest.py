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
