"""The disk cache: hit in a second process, missed after an edit, never one kernel for another."""

import shutil
from pathlib import Path

import pytest

import fastopt

STEP = """
    import numpy as np
    import fastopt
    from fastopt import _compile
    p = np.zeros({size})
    {call}
    print(p[0])
    kernels = [_compile.sweep(fastopt.GD(p).plain_spec(p.dtype), {size} > 2**15)]
    print(*(sum(k.stats.cache_hits.values()) for k in kernels), *(sum(k.stats.cache_misses.values()) for k in kernels))
"""


@pytest.mark.parametrize("size", [10, 2**17])
def test_a_second_process_compiles_nothing(run_script, tmp_path, size):
    script = STEP.format(size=size, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")
    cache = tmp_path / "cache"
    assert run_script(script, cache=cache, NUMBA_NUM_THREADS=2).split() == ["-1.0", "0", "1"]
    for _ in range(2):
        assert run_script(script, cache=cache, NUMBA_NUM_THREADS=2).split() == ["-1.0", "1", "0"]


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("fastopt.Adam(p).step(np.ones_like(p))", "class"),
        ("fastopt.adam(p, np.ones_like(p), p + 0, p + 0, step=1)", "function"),
    ],
)
def test_no_llvm_in_a_second_process(run_script, tmp_path, call, what):
    script = f"""
    import numpy as np
    from numba.core import event
    import fastopt
    with event.install_recorder("numba:compile") as recorder:
        p = np.zeros(100)
        {call}
    print(len(recorder.buffer) > 0)
    """
    assert run_script(script, cache=tmp_path) == "True"
    assert run_script(script, cache=tmp_path) == "False"


@pytest.fixture
def copied(tmp_path):
    """Return a copy of the package in a folder of its own, which becomes the first to be imported."""
    shutil.copytree(Path(fastopt.__file__).parent, tmp_path / "fastopt", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "fastopt"


def edit(file, old, new):
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("size", [10, 2**17])
def test_an_edited_rule_is_compiled_anew(run_script, copied, size):
    script = STEP.format(size=size, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")

    def run():
        return run_script(script, PYTHONPATH=copied.parent, NUMBA_NUM_THREADS=2).split()

    assert run() == ["-1.0", "0", "1"]
    assert run() == ["-1.0", "1", "0"]
    edit(copied / "optimizers" / "gd.py", "return (p - lr * g,)", "return (p - lr * g - lr * g,)")
    assert run() == ["-2.0", "0", "1"]
    assert run() == ["-2.0", "1", "0"]


@pytest.mark.parametrize("name", ["_compile.py", "_storage.py", "_headers.py", "_loops/cpu.py"])
def test_an_edit_of_what_kernels_are_made_of_is_noticed(run_script, copied, name):
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")

    def run():
        return run_script(script, PYTHONPATH=copied.parent).split()

    run()
    assert run() == ["-1.0", "1", "0"]
    file = copied / name
    file.write_text(file.read_text() + "\n# edited\n")
    assert run() == ["-1.0", "0", "1"]


def test_a_new_optimizer_is_one_file_and_one_line(run_script, copied):
    (copied / "optimizers" / "sign.py").write_text(
        '''"""Sign descent."""
import numpy as np
from .._functions import as_function
from .._hyper import rate
from .._optimizer import Optimizer
__all__ = ["Sign", "sign"]
class Sign(Optimizer):
    """Sign descent."""
    states = ("last",)
    lr = rate(0.5)
    @staticmethod
    def scalars(step, lr):
        return (lr,)
    @staticmethod
    def make():
        def rule(s, g, p, last):
            return p - s[0] * np.sign(g), g
        return rule
sign = as_function(Sign)
'''
    )
    with (copied / "optimizers" / "__init__.py").open("a") as file:
        file.write("from .sign import *\n")
    script = """
    import io, contextlib
    import numpy as np
    import fastopt, fastopt._cli
    p = np.zeros(3)
    opt = fastopt.Sign(p, weight_decay=0.5)
    opt.step(np.array([-2.0, 0.0, 3.0]))
    fastopt.sign(p, np.array([-2.0, 0.0, 3.0]), np.zeros(3), lr=1.0)
    fastopt.jitable(fastopt.Sign)(p, np.array([-2.0, 0.0, 3.0]), np.zeros(3), 1, 1.0)
    print(p, opt.state, "Sign" in fastopt.__all__, "sign" in fastopt.__all__)
    """
    out = run_script(script, PYTHONPATH=copied.parent)
    assert out == "[ 2.5  0.  -2.5] {'last': array([-2.,  0.,  3.])} True True"


def test_kernels_of_two_processes_do_not_take_each_others_place(run_script, tmp_path):
    """Compiled as the first of their process, both had one symbol; a third process ran one for the other."""
    one = """
    import numpy as np
    import fastopt
    fastopt.{name}(np.zeros({size})).step(np.ones({size}))
    """
    both = """
    import numpy as np
    import fastopt
    for name, expected in (("Momentum", -0.001), ("RMSprop", -0.0316227743)):
        p = np.zeros({size})
        getattr(fastopt, name)(p).step(np.ones({size}))
        print(bool(np.allclose(p, expected, rtol=1e-7, atol=0)), end=" ")
    """
    for size in (10, 2**17):
        for name in ("Momentum", "RMSprop"):
            run_script(one.format(name=name, size=size), cache=tmp_path, NUMBA_NUM_THREADS=2)
        assert run_script(both.format(size=size), cache=tmp_path, NUMBA_NUM_THREADS=2) == "True True"


def test_serial_and_parallel_kernels_have_entries_of_their_own(run_script, tmp_path):
    script = """
    import numpy as np
    import fastopt
    from fastopt import _compile
    spec = fastopt.GD(np.zeros(3)).plain_spec(np.dtype(float))
    _compile.sweep(spec, False)
    kernel = _compile.sweep(spec, True)
    print(sum(kernel.stats.cache_misses.values()), "numba_parallel_for" in "".join(kernel.inspect_llvm().values()))
    """
    assert run_script(script, cache=tmp_path, NUMBA_NUM_THREADS=2) == "1 True"


def test_without_a_writable_folder_there_is_one_warning_and_no_failure(run_script, copied):
    script = """
    import warnings
    import numpy as np
    import fastopt
    from numba.core import caching
    class Nowhere:
        @classmethod
        def from_function(cls, function, file):
            return None
    caching.CompileResultCacheImpl._locator_classes = [Nowhere]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("GD", "Adam"):
            p = np.zeros(3)
            getattr(fastopt, name)(p, lr=1.0).step(np.ones(3))
            print(p[0].round(6), end=" ")
    print([w.category.__name__ for w in caught], "NUMBA_CACHE_DIR" in str(caught[0].message))
    print(fastopt.info()["kernel_cache"] != "on")
    """
    out = run_script(script, PYTHONPATH=copied.parent).splitlines()
    assert out == ["-1.0 -1.0 ['RuntimeWarning'] True", "True"]


def test_a_damaged_file_is_compiled_anew(run_script, tmp_path):
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")
    run_script(script, cache=tmp_path)
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    assert run_script(script, cache=tmp_path).split() == ["-1.0", "0", "1"]
