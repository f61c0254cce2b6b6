"""What compiled code is called: equal names for equal contents, in every process, and for nothing else."""

import ast
import subprocess
import sys
import types

import numba
import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._kernels import access, compiler
from fastopt._kernels.symbols import SOURCES, UNKNOWN, _describe, digest
from fastopt._kernels.targets import CPU

from .test_imports import MODULES, imported

pytestmark = pytest.mark.internals


def symbols(library):
    """Return the names of the functions that a compiled module shows to others."""
    return [f.name for f in library.get_defined_functions() if f.linkage.name not in ("internal", "private")]


@pytest.mark.parametrize("states", ["float32 float32", "bfloat16-stochastic bfloat16-stochastic", "int8 uint8"])
@pytest.mark.parametrize("kernel", ["serial", "parallel", "direct"])
def test_a_kernel_shows_no_symbol_without_a_digest(monkeypatch, kernel, states):
    monkeypatch.setattr(compiler.KernelCache, "load_overload", lambda *arguments: None)
    monkeypatch.setattr(compiler.KernelCache, "save_overload", lambda *arguments: None)
    param = "bfloat16" if states.startswith("bfloat16") else "float32"
    spec = fastopt.Adam.with_hyperparameters().spec((param, param, *states.split()))
    make = {"serial": (compiler.sweep, False), "parallel": (compiler.sweep, True), "direct": (compiler.direct,)}
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
    """Intrinsics are known by what is said of them: what they are made of is in two folders, all of it in the stamp.

    So is what hands in what is compiled in the place of a function.
    """
    uses = {name: {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} for name, tree in MODULES.items()}
    made = {name for name, used in uses.items() if used & {"intrinsic", "overload"}}
    inside = {name for name in MODULES if f"fastopt.{name}".rpartition(".")[0] in SOURCES}
    typed = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "typing" and "overload" in {a.name for a in node.names}
    }
    # The intrinsics of headers, that of exchange and the update of `jitable` are closures, whose contents are a part of
    # their digests.
    assert made - inside - typed == {"_arrays.headers", "_arrays.exchange", "_api.jitable"}
    for name in inside:
        assert all(other in inside | {name} or other.startswith("_arrays") for other in imported(name) if other)


def test_operations_on_memory_are_told_apart():
    """By layout, by what they do, and by each of what they were made for."""
    pair, wide = "float32 float32", "float64 float64"
    made = [
        access.of(CPU, pair, lanes, scalars, nonfinite)
        for lanes in (1, 2)
        for scalars in (0, 1)
        for nonfinite in (0, 1)
    ]
    made.append(access.of(CPU, wide))
    found = [digest(getattr(memory, name)) for memory in made for name in ("load", "store", "load_scalars", "key")]
    assert len(set(found)) == len(found) == 36
    assert not any(text.startswith(UNKNOWN) for text in found)
    assert digest(access.Access(CPU, wide, 1, 0, nonfinite=True).key) == digest(access.of(CPU, wide).key)


def test_what_others_say_of_their_intrinsics_does_not_count():
    def typing(typingctx, x):
        return None

    typing.contents = "cpu 'float32 float32'"
    one = numba.extending.intrinsic(typing)
    assert typing.contents not in _describe(one, {})


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


def with_helpers(text):
    """Return a rule that uses the `f` that is defined in `text`."""
    module = types.ModuleType("helpers")
    exec(f"import enum, collections, numba, numpy as np\n{text}", module.__dict__)
    f = module.f

    def rule(s, g, p):
        return (f(g),)

    return rule


LOOKING_ALIKE = {
    "vectorize": ("@numba.vectorize\ndef f(x): return x * 2", "@numba.vectorize\ndef f(x): return x * 3"),
    "order of arguments": ("def f(x, y): return x - y", "def f(y, x): return y - x"),
    "functions of one factory": (
        "def make(k):\n    def g(x): return x * k\n    return g\na, b = make(2), make(3)\nf = (a, b, a)",
        "def make(k):\n    def g(x): return x * k\n    return g\na, b = make(2), make(3)\nf = (a, b, b)",
    ),
    "enum": ("class f(enum.Enum): A = 2", "class f(enum.Enum): A = 3"),
    "member of an enum": (
        "class E(enum.Enum):\n    A = 2\n    B = 3\nf = E.A",
        "class E(enum.Enum):\n    A = 2\n    B = 3\nf = E.B",
    ),
    "fields": (
        "f = collections.namedtuple('T', 'a b')(1.0, 2.0)",
        "f = collections.namedtuple('T', 'b a')(1.0, 2.0)",
    ),
    "kind of tuple": ("f = collections.namedtuple('T', 'a b')(1.0, 2.0)", "f = (1.0, 2.0)"),
    "options": (
        "@numba.njit(fastmath=True, nogil=False)\ndef f(x): return x",
        "@numba.njit(fastmath=False, nogil=True)\ndef f(x): return x",
    ),
    "fields of an array": (
        "f = np.zeros(1, [('a', 'f8'), ('b', 'f8')])",
        "f = np.zeros(1, [('b', 'f8'), ('a', 'f8')])",
    ),
    "overload": tuple(
        "from numba.extending import overload\ndef f(x): raise NotImplementedError\n"
        f"@overload(f)\ndef over(x): return lambda x: x * {k}"
        for k in (2, 3)
    ),
    "ufunc of one's own": tuple(f"f = np.frompyfunc(lambda x: x * {k}, 1, 1)" for k in (2, 3)),
}


@pytest.mark.parametrize("pair", LOOKING_ALIKE)
def test_things_that_look_alike_are_told_apart(pair):
    one, same, other = (with_helpers(LOOKING_ALIKE[pair][k]) for k in (0, 0, 1))
    assert digest(one) != digest(other)
    assert digest(one) == digest(same) or digest(one).startswith(UNKNOWN)


JITCLASS = """
from numba.experimental import jitclass
@jitclass([("x", numba.float64)])
class f:
    def __init__(self): self.x = 1.0
"""


@pytest.mark.parametrize("text", [JITCLASS, "class f: x = 1.0", "f = np.array([object()])", "f = [].append"])
def test_what_says_nothing_of_its_contents_is_unknown(text):
    assert digest(with_helpers(text)).startswith(UNKNOWN)


@pytest.mark.parametrize("pair", ["vectorize", "order of arguments", "enum", "fields", "options", "overload"])
def test_what_numba_compiles_is_known(pair):
    assert not digest(with_helpers(LOOKING_ALIKE[pair][0])).startswith(UNKNOWN)


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
        "import numpy as np, fastopt; from fastopt._kernels import compiler\n"
        "from fastopt._kernels.symbols import digest\n"
        "from fastopt._bench.catalog import OPTIMIZERS\n"
        "for cls in OPTIMIZERS.values():\n"
        "    spec = cls.with_hyperparameters().plain_spec(np.dtype('f4'))\n"
        "    run = compiler.run(spec.rule, spec.text, True)\n"
        "    print(digest(run), run.__qualname__)\n"
    )
    runs = [
        subprocess.run([sys.executable, *flags, "-c", script], check=True, capture_output=True, text=True).stdout
        for flags in ([], ["-B"], ["-X", "pycache_prefix=/dev/null/nowhere"])
    ]
    assert runs[0] == runs[1] == runs[2]
    assert UNKNOWN not in runs[0]
    assert len(set(runs[0].split())) == 2 * len(OPTIMIZERS)
