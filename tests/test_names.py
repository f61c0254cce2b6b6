"""What compiled code is called: equal names for equal contents, in every process, and for nothing else."""

import ast
import subprocess
import sys
import types

import numba
import numpy as np
import pytest

import fastopt
from fastopt import _compile, _names
from fastopt._names import UNKNOWN, digest

from .test_imports import MODULES, imported

pytestmark = pytest.mark.internals


def symbols(library):
    """Return the names of the functions that a compiled module shows to others."""
    return [f.name for f in library.get_defined_functions() if f.linkage.name not in ("internal", "private")]


@pytest.mark.parametrize("states", ["float32 float32", "bfloat16-random bfloat16-random", "int8 uint8"])
@pytest.mark.parametrize("kernel", ["serial", "parallel", "direct"])
def test_a_kernel_shows_no_symbol_without_a_digest(monkeypatch, kernel, states):
    monkeypatch.setattr(_compile.KernelCache, "load_overload", lambda *arguments: None)
    monkeypatch.setattr(_compile.KernelCache, "save_overload", lambda *arguments: None)
    param = "bfloat16" if states.startswith("bfloat16") else "float32"
    spec = fastopt.Adam.with_hyperparameters().spec((param, param, *states.split()))
    make = {"serial": (_compile.sweep, False), "parallel": (_compile.sweep, True), "direct": (_compile.direct,)}
    function, *arguments = make[kernel]
    compiled = function.__wrapped__(spec, *arguments)
    (result,) = compiled.overloads.values()
    contents = compiled.py_func.__qualname__.rpartition("_")[2]
    assert len(contents) == 16
    assert symbols(result.library)
    assert all(contents in name for name in symbols(result.library))


def test_code_around_an_update_shows_no_other_symbol_of_ours():
    first, second = fastopt.jitable(fastopt.Adam), fastopt.jitable(fastopt.Momentum)

    @numba.njit
    def train(p, g, m, v):
        first(p, g, m, v, 1, 0.1)
        second(p, g, m, 1, 0.1)

    train(*np.zeros((4, 3)))
    (result,) = train.overloads.values()
    for name in symbols(result.library):
        assert "test_names" in name or name.startswith("NRT_") or "implementation_" in name


def test_what_the_digest_does_not_see_is_in_the_stamp():
    """Intrinsics are known by name; what they are made of is a list of modules, which is complete."""
    made_of = {name for name, tree in MODULES.items() if "intrinsic" in _used(tree) and name != "_names"}
    todo = list(made_of - {"_cuda.scales", "_cuda.storage"})  # nothing of a GPU is kept on disk
    found = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += imported(name) - {"_names"}
    assert set(_names.SOURCES) == found | {"_compile"}


def _used(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def helper_module(text):
    module = types.ModuleType("helpers")
    exec(text, module.__dict__)
    return module


def rule_with(helpers):
    def rule(s, g, p):
        return (p - helpers.f(g),)

    return rule


def test_functions_reached_through_a_module_count():
    one, other = (rule_with(helper_module(f"def f(x): return {k} * x")) for k in (2, 3))
    same = rule_with(helper_module("def f(x): return 2 * x"))
    assert digest(one) == digest(same) != digest(other)
    inner = [
        rule_with(
            helper_module(f"import types; sub = types.ModuleType('sub'); sub.k = {k}\ndef f(x): return sub.k * x")
        )
        for k in (2, 3)
    ]
    assert digest(inner[0]) != digest(inner[1])


def test_defaults_count():
    def make(k):
        def rule(s, g, p, factor=k, *, other=1.0):
            return (p - factor * other * g,)

        return rule

    assert digest(make(1.0)) == digest(make(1.0)) != digest(make(2.0))
    changed = make(1.0)
    changed.__kwdefaults__ = {"other": 2.0}
    assert digest(changed) != digest(make(1.0))


SCALE = 1.0


def test_globals_of_functions_inside_functions_count(monkeypatch):
    def rule(s, g, p):
        def scaled(x):
            return x * SCALE

        return (scaled(g),)

    before = digest(rule)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert digest(rule) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.arange(5000.0), np.where(np.arange(5000) == 2500, 0, np.arange(5000.0))),  # repr shows the ends alone
        (np.float32(1), np.float64(1)),
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", 1),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        ((1, (2, 3)), ((1, 2), 3)),
        (numba.float32, numba.float64),
        (np.sqrt, np.abs),
        (np.maximum, np.minimum),
        (numba.njit(lambda x: x), numba.njit(lambda x: -x)),
        (numba.njit(lambda x: x), numba.njit(fastmath=True)(lambda x: x)),
    ],
)
def test_constants_count(one, other):
    def make(constant):
        return lambda s, g, p: constant

    assert digest(make(one)) == digest(make(one))
    assert digest(make(one)) != digest(make(other))


def test_what_is_unknown_is_equal_to_nothing_else_and_not_kept():
    class Thing:
        def __repr__(self):
            return "a thing"

    one, other = Thing(), Thing()
    assert digest(one) == digest(one) != digest(other)
    assert digest(one).startswith(UNKNOWN)
    assert not digest(len).startswith(UNKNOWN)


def test_everything_of_ours_is_known_and_the_same_in_every_process():
    script = (
        "import numpy as np, fastopt; from fastopt import _compile; from fastopt._names import digest\n"
        "for name in ('GD', 'Momentum', 'RMSprop', 'Adam', 'AdamW'):\n"
        "    spec = getattr(fastopt, name).with_hyperparameters().plain_spec(np.dtype('f4'))\n"
        "    run = _compile.run(spec.rule, spec.text)\n"
        "    print(digest(run), run.__qualname__)\n"
    )
    runs = [
        subprocess.run([sys.executable, *flags, "-c", script], check=True, capture_output=True, text=True).stdout
        for flags in ([], ["-B"], ["-X", "pycache_prefix=/dev/null/nowhere"])
    ]
    assert runs[0] == runs[1] == runs[2]
    assert UNKNOWN not in runs[0]
    assert len(set(runs[0].split())) == 10
