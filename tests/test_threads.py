"""Threads, forks, affinity, and what must not be touched; each on every threading layer, in a process of its own."""

import os

import numba
import numpy as np
import pytest

import fastopt
from fastopt._api import info as _info
from fastopt._engine import threads

pytestmark = pytest.mark.internals

LAYERS = ["omp", "workqueue", "tbb"]

SETUP = """
    import os, sys, threading
    import numba, numpy as np
    import fastopt
    from fastopt._engine import threads

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

    def run(script, setup=SETUP, **environment):
        return run_script(setup + script, NUMBA_THREADING_LAYER=name, **({"NUMBA_NUM_THREADS": 2} | environment))

    return run


@pytest.fixture
def layer_alone(layer):
    """Return a function that runs a script that does not begin with loading fastopt."""
    return lambda script: layer(script, setup="")


needs_two = pytest.mark.skipif(threads.affinity() < 2, reason="needs two processors")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_two
def test_many_python_threads_at_once(layer):
    out = layer("""
    expected = [serially(seed) for seed in range(8)]
    results = {}
    def work(seed):
        results[seed] = run(seed)
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for t in workers: t.start()
    for t in workers: t.join()
    assert threads.budget() == 2
    print([results[seed] == expected[seed] for seed in range(8)])
    """)
    assert out == str([True] * 8)


@needs_fork
@pytest.mark.parametrize("before", ["", "run(0); assert threads.budget() > 1 or threads.affinity() == 1"])
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
@needs_two
@pytest.mark.parametrize("first", ["parent", "child"])
def test_a_forked_child_that_loads_fastopt_itself_can_step(layer_alone, first):
    """Where the parent ran a parallel kernel of its own; or the child did, and then nothing is in the way."""
    out = layer_alone(f"""
    import os, time, warnings
    import numba, numpy as np
    warnings.simplefilter("ignore", DeprecationWarning)

    @numba.njit(parallel=True)
    def count(a):
        for i in numba.prange(a.size):
            a[i] += 1

    time.sleep(0.2)  # a fork comes later than the loading of Numba by at least so much
    if {first == "parent"}:
        count(np.zeros(100))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        if {first == "child"}:
            count(np.zeros(100))
        import fastopt
        p = np.zeros(2**17)
        fastopt.GD(p, lr=1.0).step(np.ones(2**17))
        os.write(write, f"{{(p == -1).all()}} {{fastopt.info()['threading_layer']}}".encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    import fastopt
    print(status, fastopt.info()["threads"], os.read(read, 100).decode())
    """)
    assert out.startswith("0 2 True serial: the process was forked")


@needs_fork
def test_a_fork_waits_until_another_thread_has_compiled(run_script):
    """The child would have Numba's lock, and nobody to release it."""
    out = run_script("""
    import os, signal, threading, time, warnings
    import numpy as np
    from numba.core.compiler_lock import global_compiler_lock
    import fastopt
    warnings.simplefilter("ignore", DeprecationWarning)
    held = threading.Event()

    def compile():
        with global_compiler_lock:
            held.set()
            time.sleep(0.5)

    thread = threading.Thread(target=compile)
    thread.start()
    held.wait()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # not for ever
        p = np.zeros(3)
        fastopt.RMSprop(p, centered=True).step(np.ones(3))
        os._exit(int(not (p < 0).all()))
    waited = time.monotonic() - start
    _, status = os.waitpid(child, 0)
    thread.join()
    fastopt.Momentum(np.zeros(3)).step(np.ones(3))  # the parent goes on
    print(status, waited > 0.3)
    """)
    assert out == "0 True"


@needs_fork
@pytest.mark.parametrize("size", [10, 2**16])
def test_children_forked_while_a_thread_begins_can_begin_too(layer, size):
    """With its first kernels, masked arrays, or the launch of Numba's threads: nobody is left with a lock of theirs."""
    out = layer(f"""
    import signal, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    states = []
    for round in range(6):
        p, g = np.zeros({size}, [np.float32, np.float64][round % 2]), np.ones({size})
        g = g.astype(p.dtype)
        make = [fastopt.GD, fastopt.Momentum, fastopt.RMSprop][round // 2]
        thread = threading.Thread(target=lambda: make(p).step(g))
        thread.start()
        time.sleep([0, 0.001, 0.01, 0.05, 0.1, 0.2][round])
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # not for ever
            q = np.zeros({size}, np.float32)
            fastopt.Adam(q, lr=1.0).step(np.ones({size}, np.float32))
            os._exit(int(not np.allclose(q, -1)))
        thread.join()
        states.append(os.waitpid(child, 0)[1])
    print(states)
    """)
    assert out == str([0] * 6)


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
    print(before, kept, numba.get_num_threads(), threads.budget(), a == b)
    """)
    assert out == "2 1 2 2 True"


@needs_two
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_an_affinity_that_narrows_later_is_followed(layer):
    out = layer("""
    expected = run(3)
    wide = threads.budget()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(wide, threads.budget(), run(3) == expected, numba.get_num_threads())
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
    assert threads.budget() == 2
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
    assert threads.budget() == 2
    print(torch.get_num_threads())
    """)
    assert out == "1"


def test_a_thread_in_the_workqueue_makes_a_step_serial(monkeypatch):
    used = []
    monkeypatch.setattr(threads.numba, "threading_layer", lambda: "workqueue")
    monkeypatch.setattr(threads.Kernels, "in_parallel", lambda *arguments: used.append("parallel"), raising=False)
    monkeypatch.setattr(threads, "budget", lambda: 2)
    monkeypatch.setattr(threads._layer, "_get_num_threads", lambda: 2, raising=False)
    p, g = np.zeros(2**16), np.ones(2**16)
    opt = fastopt.GD(p, lr=1.0)
    threads._workqueue["taken by"] = "another step"
    opt.step(g)
    assert (p == -1).all()
    assert used == []
    assert threads._workqueue.pop("taken by") == "another step"
    opt.step(g)
    assert used == ["parallel"]
    assert not threads._workqueue


def test_info():
    info = fastopt.info()
    assert info["fastopt"] == fastopt.__version__
    assert info["numba"] == numba.__version__
    assert 1 <= info["threads"] <= numba.config.NUMBA_NUM_THREADS
    assert info["simd_bits"] in (128, 256, 512)
    assert info["cuda"].startswith("no: ")
    assert info["array_headers"] == "read directly"


@pytest.mark.parametrize(
    ("features", "machine", "bits"),
    [
        ({}, "aarch64", 128),
        ({"neon": True}, "arm64", 128),
        ({"sse2": True}, "AMD64", 128),
        ({"avx": True, "avx2": True}, "x86_64", 256),
        ({"avx2": True, "avx512f": True}, "x86_64", 512),
        ({"avx512f": False, "avx2": True}, "x86_64", 256),
        ({}, "riscv64", 64),
    ],
)
def test_simd_bits(features, machine, bits):
    assert _info._simd_bits(features, machine) == bits


def test_a_large_step_enters_no_lock_of_numbas(monkeypatch):
    """An interrupt between taking it and the body of its `with` would leave it taken."""
    p, g = np.zeros(2**17), np.ones(2**17)
    opt = fastopt.GD(p, lr=1.0, clip_norm=1e9)
    opt.step(g)

    class Lock:
        def __enter__(self):
            raise KeyboardInterrupt

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(threads._layer, "_backend_init_process_lock", Lock())
    opt.step(g)
    assert (p == -2).all()


@needs_fork
def test_a_child_works_out_what_a_thread_was_working_out(run_script):
    """A lock of the property, as functools.cached_property has one in Python 3.11, would be held there for ever."""
    out = run_script("""
    import os, signal, threading, warnings
    from fastopt._arrays.lazy import lazy
    warnings.simplefilter("ignore", DeprecationWarning)
    begun, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    class Thing:
        @lazy
        def value(self):
            if os.getpid() == parent:
                begun.set()
                go_on.wait()
            return object()

    thing, found = Thing(), []
    thread = threading.Thread(target=lambda: found.append(thing.value))
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # not for ever
        os._exit(thing.value is not thing.value)
    status = os.waitpid(child, 0)[1]
    go_on.set()
    thread.join()
    print(status, found[0] is thing.value)
    """)
    assert out == "0 True"
