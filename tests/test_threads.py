"""Threads, forks, affinity, and what must not be touched; each on every threading layer, in a process of its own."""

import os

import numba
import numpy as np
import pytest

import fastopt
from fastopt import _threads

LAYERS = ["omp", "workqueue", "tbb"]

SETUP = """
    import os, sys, threading
    import numba, numpy as np
    import fastopt
    from fastopt import _threads

    N = 2**17

    def run(seed, steps=20):
        rng = np.random.default_rng(seed)
        p, g = rng.random((2, N), np.float32)
        opt = [fastopt.Adam, fastopt.RMSprop, fastopt.Momentum, fastopt.AdamW][seed % 4](p)
        for _ in range(steps):
            opt.step(g)
        return p.tobytes()

    def serially(seed):
        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            return run(seed)
        finally:
            numba.set_num_threads(before)
"""


@pytest.fixture(params=LAYERS)
def layer(request, run_script):
    """Return a function that runs a script on one threading layer."""
    name = request.param
    probe = """
        import numba
        try:
            numba.get_num_threads()
            print(numba.threading_layer())
        except ValueError:
            print("missing")
    """
    if run_script(probe, NUMBA_THREADING_LAYER=name, NUMBA_NUM_THREADS=2) != name:
        pytest.skip(f"the threading layer {name} cannot be loaded here")

    def run(script, **environment):
        return run_script(SETUP + script, NUMBA_THREADING_LAYER=name, **({"NUMBA_NUM_THREADS": 2} | environment))

    return run


needs_two = pytest.mark.skipif(_threads.affinity() < 2, reason="needs two processors")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_two
def test_many_python_threads_at_once(layer):
    out = layer("""
    expected = [serially(seed) for seed in range(8)]
    results = {}
    def work(seed):
        results[seed] = run(seed)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert _threads.budget() == 2
    print([results[seed] == expected[seed] for seed in range(8)])
    """)
    assert out == str([True] * 8)


@needs_fork
@pytest.mark.parametrize("before", ["", "run(0); assert _threads.budget() > 1 or _threads.affinity() == 1"])
def test_a_forked_child_can_step(layer, before):
    # Python 3.12 and later warn of any fork in a process with threads, which is what is tried here.
    out = layer(f"""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    expected = serially(1)
    {before}
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(run(1) == expected).encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert run(1) == expected  # and the parent goes on
    print(os.read(read, 10).decode(), status)
    """)
    assert out == "True 0"


@needs_fork
def test_a_child_of_a_parallel_parent_says_that_it_is_serial(layer):
    out = layer("""
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    fastopt.info()
    child = os.fork()
    if child == 0:
        info = fastopt.info()
        print(info["threads"], info["threading_layer"], flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    """)
    assert out.startswith("1 serial")


@needs_two
def test_the_number_of_threads_is_the_users(layer):
    out = layer("""
    run(0)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    a = run(2)
    kept = numba.get_num_threads()
    numba.set_num_threads(before)
    b = run(2)
    print(before, kept, numba.get_num_threads(), _threads.budget(), a == b)
    """)
    assert out == "2 1 2 2 True"


@needs_two
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_an_affinity_that_narrows_later_is_followed(layer):
    out = layer("""
    expected = run(3)
    wide = _threads.budget()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(wide, _threads.budget(), run(3) == expected, numba.get_num_threads())
    """)
    assert out == "2 1 True 2"


def test_one_thread_means_that_none_is_launched(layer):
    out = layer(
        """
    from numba.np.ufunc import parallel
    run(0)
    print(parallel._is_initialized, fastopt.info()["threads"], fastopt.info()["threading_layer"])
    """,
        NUMBA_NUM_THREADS=1,
    )
    assert out == "False 1 serial: NUMBA_NUM_THREADS is 1"


@needs_two
def test_the_runtime_of_others_keeps_its_setting(layer):
    out = layer("""
    import ctypes
    try:
        omp = ctypes.CDLL("libgomp.so.1")
    except OSError:
        print("none")
        raise SystemExit
    omp.omp_set_num_threads(1)
    run(0)
    assert _threads.budget() == 2
    print(omp.omp_get_max_threads())
    """)
    if out == "none":
        pytest.skip("no libgomp.so.1 here")
    assert out == "1"


@needs_two
def test_pytorch_keeps_its_setting(layer):
    pytest.importorskip("torch", reason="needs the extra `peers`")
    out = layer("""
    import torch
    torch.set_num_threads(1)
    run(0)
    assert _threads.budget() == 2
    print(torch.get_num_threads())
    """)
    assert out == "1"


def test_a_thread_in_the_workqueue_makes_a_step_serial(monkeypatch):
    used = []
    monkeypatch.setattr(_threads.numba, "threading_layer", lambda: "workqueue")
    monkeypatch.setattr(_threads, "_parallel", lambda *arguments: used.append("parallel"))
    monkeypatch.setattr(_threads, "budget", lambda: 2)
    p, g = np.zeros(2**16), np.ones(2**16)
    opt = fastopt.GD(p, lr=1.0)
    with _threads._workqueue:
        opt.step(g)
    assert (p == -1).all()
    assert used == []
    opt.step(g)
    assert used == ["parallel"]
    assert not _threads._workqueue.locked()


def test_info():
    info = fastopt.info()
    assert info["fastopt"] == fastopt.__version__
    assert info["numba"] == numba.__version__
    assert 1 <= info["threads"] <= numba.config.NUMBA_NUM_THREADS
    assert info["simd_bits"] in (64, 128, 256, 512)
    assert info["cuda"].startswith("no: ")
    assert info["array_headers"] == "read directly"
