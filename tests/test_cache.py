"""The disk cache: hit in a second process, missed after an edit, never one kernel for another."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

import fastopt

STEP = """
    import numpy as np
    import fastopt
    from fastopt._kernels import compiler
    p = np.zeros({size})
    {call}
    print(p[0])
    kernels = [compiler.sweep(fastopt.GD(p).plain_spec(p.dtype), {size} > 2**15)]
    print(*(sum(k.stats.cache_hits.values()) for k in kernels), *(sum(k.stats.cache_misses.values()) for k in kernels))
"""


@pytest.mark.internals
@pytest.mark.parametrize("size", [10, 2**17])
def test_a_second_process_compiles_nothing(run_script, tmp_path, size):
    script = STEP.format(size=size, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")
    cache = tmp_path / "cache"
    assert run_script(script, cache=cache, NUMBA_NUM_THREADS=2).split() == ["-1.0", "0", "1"]
    for _ in range(2):
        assert run_script(script, cache=cache, NUMBA_NUM_THREADS=2).split() == ["-1.0", "1", "0"]


@pytest.mark.internals
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
    edit(copied / "optimizers" / "gd.py", "return p - s.lr * g", "return p - s.lr * g - s.lr * g")
    assert run() == ["-2.0", "0", "1"]
    assert run() == ["-2.0", "1", "0"]


@pytest.mark.ci
def test_an_edited_helper_that_a_rule_reaches_through_a_module_is_noticed(run_script, tmp_path):
    (tmp_path / "helpers.py").write_text("import numba\n@numba.njit\ndef f(g, factor=2.0): return factor * g\n")
    (tmp_path / "own.py").write_text("""
from typing import NamedTuple
import fastopt
import helpers

class Scalars(NamedTuple):
    lr: float

class Own(fastopt.Optimizer):
    @staticmethod
    def scalars(step, lr) -> Scalars:
        return Scalars(lr=lr)

    @staticmethod
    def rule(s, g, p):
        return p - s.lr * helpers.f(g)
""")
    script = """
    import numpy as np
    import own
    p = np.zeros(3)
    own.Own(p, lr=1.0).step(np.ones(3))
    print(p[0])
    """

    def run():
        return run_script(script, cache=tmp_path / "cache", PYTHONPATH=tmp_path, PYTHONDONTWRITEBYTECODE=1)

    assert run() == run() == "-2.0"
    edit(tmp_path / "helpers.py", "factor * g", "factor * g * 2.0")
    assert run() == "-4.0"
    edit(tmp_path / "helpers.py", "factor=2.0", "factor=1.0")
    assert run() == "-2.0"


@pytest.mark.ci
def test_an_edit_of_what_kernels_are_made_of_is_noticed(run_script, copied):
    """One edit after the other, as each is compiled for the one before."""
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")

    def run():
        return run_script(script, PYTHONPATH=copied.parent).split()

    run()
    for name in ("compiler.py", "access.py", "int8.py"):
        (file,) = copied.rglob(name)
        file.write_text(file.read_text() + "\n# edited\n")
        assert run() == ["-1.0", "0", "1"], name
    assert run() == ["-1.0", "1", "0"]


def test_a_new_optimizer_is_one_file_and_one_line(run_script, copied):
    (copied / "optimizers" / "sign.py").write_text(
        '''"""Sign descent."""
from typing import NamedTuple
import numpy as np
from .._api.functional import as_function
from .._api.optimizer import Optimizer
from ..rules import rate, state
__all__ = ["Sign", "sign"]
class Scalars(NamedTuple):
    lr: float
class Sign(Optimizer):
    """Sign descent."""
    lr = rate(0.5)
    last = state()
    @staticmethod
    def scalars(step, lr) -> Scalars:
        return Scalars(lr=lr)
    @staticmethod
    def rule(s, g, p, last):
        return p - s.lr * np.sign(g), g
sign = as_function(Sign)
'''
    )
    with (copied / "optimizers" / "__init__.py").open("a") as file:
        file.write("from .sign import *\n")
    script = """
    import io, contextlib
    import numpy as np
    import fastopt, fastopt._bench.command_line
    p = np.zeros(3)
    opt = fastopt.Sign(p, weight_decay=0.5)
    opt.step(np.array([-2.0, 0.0, 3.0]))
    fastopt.sign(p, np.array([-2.0, 0.0, 3.0]), np.zeros(3), lr=1.0)
    fastopt.jitable(fastopt.Sign)(p, np.array([-2.0, 0.0, 3.0]), np.zeros(3), 1, 1.0)
    print(p, opt.state, "Sign" in fastopt.__all__, "sign" in fastopt.__all__)
    """
    out = run_script(script, PYTHONPATH=copied.parent)
    assert out == "[ 2.5  0.  -2.5] {'last': array([-2.,  0.,  3.])} True True"


@pytest.mark.ci
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


SEVERAL = """
    import numpy as np
    import fastopt
    from fastopt._kernels import compiler
    for size in (10, 2**17):
        p = np.zeros(size)
        fastopt.GD(p, lr=1.0).step(np.ones(size))
        print(p[0], p[-1])
    kernels = [compiler.sweep(fastopt.GD(p).plain_spec(p.dtype), parallel) for parallel in (False, True)]
    print([sum(k.stats.cache_hits.values()) for k in kernels])
"""


@pytest.mark.ci
@pytest.mark.parametrize("first", [False, True])
def test_serial_and_parallel_kernels_of_two_processes(run_script, tmp_path, first):
    """Each compiled in a process of its own, in both orders; a third one finds both."""
    one = """
    import numpy as np
    import fastopt
    from fastopt._kernels import compiler
    compiler.sweep(fastopt.GD(np.zeros(3)).plain_spec(np.dtype(float)), {})
    """
    for parallel in (first, not first):
        run_script(one.format(parallel), cache=tmp_path, NUMBA_NUM_THREADS=2)
    assert len(list(tmp_path.rglob("*.nbc"))) == 2
    assert not list(tmp_path.rglob("*.nbi"))  # an index for both is what could mix them up
    out = run_script(SEVERAL, cache=tmp_path, NUMBA_NUM_THREADS=2).splitlines()
    assert out == ["-1.0 -1.0", "-1.0 -1.0", "[1, 1]"]


@pytest.mark.ci
@pytest.mark.internals
def test_narrow_states_do_not_depend_on_what_was_loaded_first(run_script, tmp_path):
    """The loops for blocks with and without infinities had one name; the second kernel loaded ran the first one's."""
    script = """
    import sys
    import numpy as np
    import fastopt
    import numba
    found = []
    for threads in {order}:
        numba.set_num_threads(threads)
        p, g = np.zeros(2**16, np.float32), np.ones(2**16, np.float32)
        opt = fastopt.Adam(p, state_dtype="int8")
        opt.step(g)
        g[5] = np.inf
        opt.step(g)
        g[5] = 1
        opt.step(g)
        found.append((p.tobytes(), *(a.tobytes() for a in opt.state.values()), opt.decoded("m")[5]))
    print(found[0] == found[1], found[0][-1])
    """
    for order in ((1, 2), (2, 1), (1, 2)):
        out = run_script(script.format(order=order), cache=tmp_path, NUMBA_NUM_THREADS=2)
        assert out == "True inf"


@pytest.mark.parametrize("call", ["fastopt.Adam(p)", "fastopt.gd(p, p * 0)"])
def test_without_a_writable_folder_there_is_one_warning_and_no_failure(run_script, tmp_path, call):
    script = f"""
    import warnings
    import numpy as np
    import fastopt
    p = np.zeros(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            {call}
            opt = fastopt.GD(p, lr=1.0)
            opt.step(np.ones(3))
    print([(w.category.__name__, w.filename) for w in caught], "NUMBA_CACHE_DIR" in str(caught[0].message))
    print(p[0].round(1), "Not a directory" in fastopt.info()["kernel_cache"])
    """
    out = run_script(script, cache="/dev/null/nowhere").splitlines()
    assert out == ["[('RuntimeWarning', '<string>')] True", "-2.0 True"]


@pytest.mark.parametrize("fault", ["a path that is too long", "a folder that cannot be searched"])
def test_whatever_is_wrong_with_the_folders_is_a_warning(run_script, tmp_path, fault):
    script = """
    import warnings
    import numpy as np
    import fastopt
    from pathlib import Path
    def refuse(*arguments, **keywords):
        raise PermissionError("not to be searched")
    if {search}:
        Path.mkdir = Path.glob = refuse
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt = fastopt.GD(np.zeros(3))
        opt.step(np.ones(3))
    print(len(caught), opt.step_count, fastopt.info()["kernel_cache"] != "on")
    """
    cache = tmp_path / ("x" * 300) if "long" in fault else tmp_path / "x"
    assert run_script(script.format(search="searched" in fault), cache=cache) == "1 1 True"


def test_info_says_where_kernels_cannot_be_kept(run_script):
    out = run_script("import fastopt; print(fastopt.info()['kernel_cache'])", cache="/dev/null/nowhere")
    assert "Not a directory" in out


def test_where_warnings_are_errors_a_step_does_not_raise_that_of_the_cache(run_script):
    script = """
    import numpy as np
    import fastopt
    p = np.zeros(3)
    try:
        fastopt.GD(p)
    except RuntimeWarning as warning:
        print("kernels on disk" in str(warning), end=" ")
    opt = fastopt.GD(p, lr=1.0)
    opt.step(np.ones(3))
    print(p[0], opt.step_count)
    """
    assert run_script(script, cache="/dev/null/nowhere") == "True -1.0 1"


DAMAGED = {
    "truncated": lambda contents: contents[:100],
    "empty": lambda contents: b"",
    "one bit": lambda contents: contents[:-1000] + bytes([contents[-1000] ^ 1]) + contents[-999:],
    "another file": lambda contents: b"not a kernel" * 1000,
    "a pickle that fails": lambda contents: (
        contents[:17] + hashlib.sha256(b"cnumpy\nno\n.").digest() + b"cnumpy\nno\n."
    ),
}


@pytest.mark.ci
@pytest.mark.internals
def test_a_damaged_file_is_compiled_anew(run_script, tmp_path):
    """And replaced: each kind of damage in turn, to what was left before, which is read and compiled."""
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")
    assert run_script(script, cache=tmp_path).split() == ["-1.0", "0", "1"]
    damage = f"""
    from pathlib import Path
    import numpy as np
    import fastopt
    from fastopt._kernels import cache, compiler
    from tests.test_cache import DAMAGED
    (file,) = Path({str(tmp_path)!r}).rglob("sweep*.nbc")
    spec = fastopt.GD(np.zeros(3)).plain_spec(np.dtype("f8"))
    for name, damaged in DAMAGED.items():
        file.write_bytes(damaged(file.read_bytes()))
        compiler.sweep.cache_clear()
        stats = compiler.sweep(spec, False).stats
        print(name, len(stats.cache_hits), len(stats.cache_misses), sep=": ")
        cache._read(file)  # raises for one that is damaged
    """
    found = run_script(damage, cache=tmp_path, PYTHONPATH=Path(__file__).parents[1])
    assert found.splitlines() == [f"{name}: 0: 1" for name in DAMAGED]
    assert run_script(script, cache=tmp_path).split() == ["-1.0", "1", "0"]


def test_whatever_fails_in_reading_or_writing_does_not_fail_a_step(run_script, tmp_path):
    script = """
    import numpy as np
    import fastopt
    from fastopt._kernels import cache as _cache
    def fail(*arguments):
        raise AttributeError("of a pickle from elsewhere")
    _cache._read = _cache._write = fail
    p = np.zeros(3)
    fastopt.GD(p, lr=1.0).step(np.ones(3))
    print(p[0], fastopt.info()["kernel_cache"])
    """
    assert run_script(script, cache=tmp_path) == "-1.0 of a pickle from elsewhere"


def test_a_folder_that_cannot_be_written_to_is_read(run_script, copied):
    """Such as that of an image, made by another user: here the package's own, without any warning."""
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")
    refuse = """
    import tempfile
    from pathlib import Path
    def refuse(*arguments, **keywords):
        raise PermissionError("read-only")
    tempfile.TemporaryFile = Path.write_bytes = refuse
    """
    nowhere = {"PYTHONPATH": copied.parent, "XDG_CACHE_HOME": "/dev/null/nowhere"}
    assert run_script(script, **nowhere).split() == ["-1.0", "0", "1"]
    assert list((copied / "__pycache__").glob("*.nbc"))
    assert run_script(refuse + script, **nowhere).split() == ["-1.0", "1", "0"]


@pytest.mark.ci
def test_when_a_file_was_written_says_nothing(run_script, copied):
    """Tools that pack and unpack images cut times to seconds, or set them all to one."""
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p))")
    run_script(script, PYTHONPATH=copied.parent)
    for file in copied.rglob("*.py"):
        os.utime(file, (1, 1))
    assert run_script(script, PYTHONPATH=copied.parent).split() == ["-1.0", "1", "0"]


@pytest.mark.ci
def test_from_a_zip_file(run_script, copied, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", copied.parent, "fastopt")
    shutil.rmtree(copied)
    script = STEP.format(size=10, call="fastopt.GD(p, lr=1.0).step(np.ones_like(p)); print(fastopt.__file__)")
    for expected in (["0", "1"], ["1", "0"]):
        out = run_script(script, PYTHONPATH=archive, XDG_CACHE_HOME=tmp_path / "cache").split()
        assert out == [f"{archive}/fastopt/__init__.py", "-1.0", *expected]
