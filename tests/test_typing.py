"""Type checkers and editors know the signatures: what users write passes, and what they get wrong is refused."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastopt
from fastopt import rules, schedules
from fastopt._api.arguments import SETTINGS, Function, TimedFunction
from fastopt._bench.catalog import OPTIMIZERS

from .typing import user

FOLDER = Path(__file__).parent / "typing"
PUBLIC = [f"fastopt.{name}" for name in fastopt.__all__]
PUBLIC += [
    f"fastopt.{module}.{name}" for module, of in (("rules", rules), ("schedules", schedules)) for name in of.__all__
]

needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed (it is in the extra dev)"
)


def mypy(*files, cache):
    """Return the status and words of mypy on files, by its strictest rules, silent on fastopt as for its users."""
    options = ["--strict", "--config-file=", "--follow-imports=silent", f"--cache-dir={cache}", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, *map(str, files)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=FOLDER.parents[1])
    return done.returncode, done.stdout + done.stderr


@needs_mypy
def test_types(tmp_path):
    # In wrong.py a comment on every line that must be refused says so: mypy has something to say where one is not.
    assert mypy(*FOLDER.glob("*.py"), cache=tmp_path) == (0, "")
    # Of everything public the type is known: it is not Any, and neither is what a function takes or returns.
    file = tmp_path / "public.py"
    file.write_text("\n".join(["import fastopt.rules", *(f"reveal_type({name})" for name in PUBLIC)]))
    status, words = mypy(file, cache=tmp_path)
    told = re.findall(r'Revealed type is "(.*)"', words)
    assert (status, len(told)) == (0, len(PUBLIC)), words
    unknown = r"^Any$|: Any( =)?[,)]|\) -> Any$"
    assert [name for name, kind in zip(PUBLIC, told, strict=True) if re.search(unknown, kind)] == []


@pytest.mark.parametrize(
    "use", ["classes", "attributes", "steps", "functions", "compiled", "loops", "own", "schedules"]
)
def test_what_passes_runs(use):
    getattr(user, use)()


def test_what_is_refused_does_not_run():
    source = (FOLDER / "wrong.py").read_text()
    lines, namespace, ran, refused = source.splitlines(), {}, [], 0
    for node in ast.parse(source).body:
        line = lines[node.end_lineno - 1]
        code = compile(ast.Module([node], []), "wrong.py", "exec")
        if "# type: ignore" not in line:
            exec(code, namespace)
            continue
        try:
            exec(code, namespace)
        except (AttributeError, TypeError, ValueError):
            refused += 1
        else:
            ran.append(line)
    assert ran == []
    assert refused == source.count("# type: ignore")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_hyperparameter_is_annotated(name):
    """Without an annotation it works, and type checkers do not know it: see CONTRIBUTING."""
    cls = OPTIMIZERS[name]
    annotated = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    assert set(cls.hyperparameters) <= annotated
    assert not set(cls.states) & annotated  # an argument, it would be


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_functions_ask_for_the_step_that_scalars_look_at(name):
    cls = OPTIMIZERS[name]
    assert inspect.get_annotations(cls.scalars)["step"] == ("int" if cls.timed else "object")


def test_the_types_of_functions_are_their_signatures():
    timed, untimed = (list(inspect.signature(kind.__call__).parameters.values()) for kind in (TimedFunction, Function))
    assert [p.name for p in timed if p.name != "step"] == [p.name for p in untimed if p.name != "step"]
    of_all = list(inspect.signature(fastopt.gd).parameters)
    assert sorted(p.name for p in untimed if p.kind is not p.VAR_POSITIONAL) == sorted([*of_all, "self", "others"])


def test_a_setting_is_as_it_was_given_and_cannot_be_set():
    p = np.zeros(3, np.uint16)
    given = {"params": p, "rounding": "stochastic", "seed": 3, "state_dtype": {"v": "float16"}}
    opt = fastopt.Momentum(**given)
    for name, setting in SETTINGS.items():
        if name == "groups":  # of which there is one
            assert [group.params for group in opt.groups] == [[p]]
            continue
        assert getattr(opt, name) is given.get(name, setting.default)
        with pytest.raises(AttributeError, match=f"no '{name}' to set"):
            setattr(opt, name, given.get(name))
