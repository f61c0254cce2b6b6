"""Importing is cheap, imports run one way, and jit flags stand in one place."""

import ast
from pathlib import Path

import pytest

import fastopt

PACKAGE = Path(fastopt.__file__).parent
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(file.read_text())
    for file in PACKAGE.rglob("*.py")
}

# Who may import whom inside the package. What is not named here may import anything of it: the faces
# that users see (_cli, _info, _minimize, ...).
ALLOWED = {
    "_names": set(),
    "_cache": {"_names"},
    "_array_tuples": {"_cache"},
    "_float16": {"_codecs"},
    "_noise": set(),
    "_codecs": {"_noise"},
    "_scaled": {"_codecs", "_noise"},
    "_layout": {"_codecs", "_noise", "_scaled"},
    "_evaluate": {"_codecs"},
    "_storage": {"_codecs", "_float16", "_layout", "_noise"},
    "_blocks": {"_codecs", "_layout", "_noise", "_scaled", "_storage"},
    "_hyper": set(),
    "_conventions": set(),
    "_headers": {"_storage"},
    "_loops": set(),
    "_pairs": {"_codecs", "_layout", "_noise", "_storage"},
    "_loops.cpu": {"_blocks", "_pairs", "_headers", "_layout", "_names", "_scaled", "_storage"},
    "_loops.reference": set(),
    "_arrays": set(),
    "_structure": {"_arrays"},
    "_loops.cuda": {"_scaled"},
    "_cuda.toolchain": {"_arrays", "_cuda"},
    "_cuda.scales": {"_codecs", "_layout", "_noise"},
    "_cuda.storage": {"_codecs", "_cuda", "_layout", "_noise"},
    "_cuda.simulated": {"_arrays", "_codecs", "_evaluate", "_layout", "_noise", "_scaled"},
    "_cuda.arrays": {"_arrays", "_cuda"},
    "_cuda.plan": {"_arrays", "_compile", "_cuda", "_method", "_plan", "_signals", "_threads"},
    "_compile": {"_cache", "_loops", "_headers", "_layout", "_names", "_cuda", "_scaled"},
    "_threads": {"_compile"},
    "_method": {"_compile", "_hyper", "_names"},
    "_power": {"_compile", "_names"},
    "_plan": {"_compile", "_threads", "_arrays", "_method", "_structure"},
    "_place": {"_arrays"},
    "_gather": {"_arrays", "_compile", "_cuda", "_headers", "_plan", "_structure"},
    "_signals": set(),
    "_formats": {"_arrays"},
    "_arrange": {
        *("_arrays", "_cache", "_cuda", "_formats", "_gather", "_layout", "_method", "_place", "_plan", "_scaled"),
        *("_structure", "_threads"),
    },
    "_checkpoint": {"_arrays", "_codecs", "_cuda", "_evaluate", "_formats", "_layout", "_optimizer", "_scaled"},
    "_optimizer": {
        *("_arrange", "_arrays", "_checkpoint", "_cuda", "_formats", "_gather", "_method", "_plan", "_structure"),
    },
    "_catalog": {"_optimizer", "optimizers"},
    "_functions": {"_cache", "_compile", "_cuda", "_threads", "_arrays", "_formats", "_loops", "_method", "_plan"},
    "optimizers": {"optimizers"},
    "optimizers.*": {"_functions", "_hyper", "_optimizer", "_power"},
}


def imported(module):
    """Return the modules of the package that a module imports, by the first part of their names."""
    depth = module.count(".") + (1 if (PACKAGE / module.replace(".", "/")).is_dir() else 0)
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = module.split(".")[: max(depth + 1 - node.level, 0)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join([*inside, name]).split(".")[0] for name in names}
    return found


def allowed(module):
    return ALLOWED.get(module, ALLOWED["optimizers.*"] if module.startswith("optimizers.") else None)


@pytest.mark.parametrize("module", [m for m in MODULES if allowed(m) is not None])
def test_arrows(module):
    assert imported(module) <= allowed(module)


def test_every_module_was_looked_at():
    assert set(ALLOWED) - {"optimizers.*"} <= set(MODULES)
    assert imported("_plan") == ALLOWED["_plan"]
    assert imported("optimizers.adam") == ALLOWED["optimizers.*"]


@pytest.mark.parametrize("module", list(MODULES))
def test_jit_flags_stand_in_one_place(module):
    flags = {"fastmath", "error_model", "nogil", "parallel", "boundscheck"}
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.keyword) and node.arg in flags:
            assert module == "_compile"
        if isinstance(node, ast.Constant) and node.value in flags:
            assert module == "_compile"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("numba.njit", "numba.jit"):
            assert module == "_compile"


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
