"""Importing is cheap, imports run one way, and jit flags stand in one place."""

import ast
from pathlib import Path

import pytest

import fastopt

PACKAGE = Path(fastopt.__file__).parent
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix("."): ast.parse(
        file.read_text()
    )
    for file in PACKAGE.rglob("*.py")
}

# The house, from the ground up: a module imports only what stands before it. So the arrows between folders have one
# direction, there is no cycle, and a module that is not listed here fails.
HOUSE = {
    "_version": [],
    "_arrays": ["lazy", "view", "tensors", "checks", "structure", "driver", "headers", "exchange", "gpu"],
    "_storage": ["random_bits", "codecs", "int8", "layout", "formats", "float16", "evaluator"],
    "_kernels": [
        *(
            "symbols",
            "parts",
            "cache",
            "array_tuples",
            "targets",
            "wide",
            "ahead",
            "reduce",
            "access",
            "norms",
            "cpu",
            "cpu_reduce",
            "cuda",
            "cuda_reduce",
            "libraries",
            "toolchain",
            "compiler",
        ),
        "device_reductions",
        "reference",
        "power",
        "trust",
    ],
    "_engine": [
        "scalars",
        "signals",
        "threads",
        "allocation",
        "chunks",
        "streams",
        "results",
        "norms",
        "limit",
        "plan",
        "gpu",
        "single",
        "reduce",
        "extents",
        "gather",
        "arrange",
    ],
    "_api": [
        *(
            "hyperparameters",
            "arguments",
            "tracing",
            "composition",
            "declaration",
            "method",
            "conventions",
            "beside",
            "param_group",
            "saved_groups",
            "checkpoint",
            "functional",
        ),
        *("safetensors", "files", "limits", "selection", "groups", "adding", "optimizer", "scaler", "jitable", "info"),
    ],
    "rules": [],
    "optimizers": sorted(name.removeprefix("optimizers.") for name in MODULES if name.startswith("optimizers.")),
    "schedules": ["base", "constants", "transitions", "decays", "combined"],
    "_minimize": [],
    "": [],
    # Adapters: they import the package, and nothing imports them.
    "torch": [
        "formulas",
        "watch",
        "clocks",
        "memory",
        "shards",
        "states",
        "session",
        "hooks",
        "checkpoint",
        "base",
        "adam",
        "others",
        "link",
        "weights",
        "accepted",
        "offload",
    ],
    "_bench": [
        *("catalog", "article", "measure", "options", "device", "peers", "run", "gpu", "storages", "report", "cli"),
        "command_line",
    ],
    "__main__": [],
}
ORDER = [name for folder, inside in HOUSE.items() for name in (*(f"{folder}.{own}" for own in inside), folder)]


def _at_run_time(tree):
    """Yield the nodes of a module but those in ``if TYPE_CHECKING:``, which import nothing when it runs."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            todo += ast.iter_child_nodes(node)


def imported(module):
    """Return the modules of the package that a module imports, at any place."""
    package = PACKAGE / module.replace(".", "/")
    here = module.split(".") if module else []
    here = here if package.is_dir() else here[:-1]
    found = set()
    for node in _at_run_time(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = here[: len(here) + 1 - node.level]
            source = ".".join([*inside, *(node.module.split(".") if node.module else [])])
            names = [f"{source}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if name in MODULES else source for name in names}
        assert not (isinstance(node, ast.Import) and any(a.name.startswith("fastopt") for a in node.names))
    return found


def test_the_house_is_listed():
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("module", list(MODULES))
def test_arrows(module):
    assert imported(module) - set(ORDER[: ORDER.index(module)]) == set()


def test_nothing_imports_an_adapter():
    for module in MODULES:
        assert module.startswith("torch") or not any(name.startswith("torch") for name in imported(module))


def test_the_arrows_are_looked_at():
    assert imported("optimizers.adam") >= {"_api.optimizer", "rules"}
    assert imported("_engine.plan") >= {"_engine.threads", "_kernels.compiler", "_arrays.checks"}
    assert "_kernels.cuda" in imported("_kernels.compiler")  # within a function


@pytest.mark.parametrize("module", list(MODULES))
def test_jit_flags_stand_in_one_place(module):
    flags = {"fastmath", "error_model", "nogil", "parallel", "boundscheck"}
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.keyword) and node.arg in flags:
            assert module == "_kernels.compiler"
        if isinstance(node, ast.Constant) and node.value in flags:
            assert module == "_kernels.compiler"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("numba.njit", "numba.jit"):
            assert module == "_kernels.compiler"


def test_files_are_readable_in_one_sitting():
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 300, file
        assert "utils" not in file.name


def test_import_loads_nothing_heavy(run_script):
    out = run_script("""
    import sys
    import numba
    before = set(sys.modules)
    import fastopt
    heavy = ("torch", "jax", "cupy", "scipy", "matplotlib", "tqdm", "numba.cuda", "numba_cuda", "optax")
    print(sorted(m for m in set(sys.modules) - before if m.startswith(heavy)))
    """)
    assert out == "[]"


def test_import_starts_no_thread_and_compiles_nothing(run_script):
    out = run_script("""
    import threading
    from pathlib import Path
    import numba, numpy
    from numba.core import event
    from numba.np.ufunc import parallel
    tasks = Path("/proc/self/task")
    def threads():
        return len(list(tasks.iterdir())) if tasks.exists() else 0
    before = threads()
    with event.install_recorder("numba:compile") as recorder:
        import fastopt
    print(len(recorder.buffer), threading.active_count(), threads() - before, parallel._is_initialized)
    """)
    assert out == "0 1 0 False"
