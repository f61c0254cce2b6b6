"""On a GPU, and with small arrays in the simulator: the CPU's bits, streams, graphs, threads, PyTorch and CuPy."""

import os
import shutil
import threading

import numpy as np
import pytest

import fastopt
from fastopt._arrays import driver
from fastopt._bench.storages import STORAGES
from fastopt._engine import streams

from .cases import (
    CASES,
    DTYPES,
    FEW_STORAGES,
    assert_same_bits,
    assert_same_bits_but_for_nan,
    call,
    every_one_of,
    first_cases,
    first_states,
    make,
    name_of,
    random,
    stored,
)
from .on_device import SIMULATED, every_library, library, needs_gpu, resources, sanitize, shifted
from .oracles import answer

CUDA = driver.describe_devices()
if not CUDA.startswith("yes") and not SIMULATED:
    pytest.skip(f"CUDA: {CUDA}", allow_module_level=True)

__all__ = ["library"]  # a fixture

F32 = np.float32
NESTEROV = {"lr": 0.3, "nesterov": True, "reproducible": True}
RULES = [
    pytest.param("Momentum", NESTEROV, id="Momentum"),
    pytest.param("Adam", {"lr": 1e-2, "weight_decay": 0.1, "reproducible": True}, id="Adam"),
    pytest.param("RMSprop", {"centered": True, "momentum": 0.9, "eps_root": 1e-3, "reproducible": True}, id="RMSprop"),
]
FEW = list(FEW_STORAGES.values())
few_storages = every_one_of(FEW)
# Where each is tested several times, the simulator, which is slow, takes every third.
fewer_storages = every_one_of(FEW[2::3] if SIMULATED else FEW)
every_rule = pytest.mark.parametrize(
    ("name", "hyper", "storage"),
    [
        pytest.param(*rule.values, storage, id=f"{rule.id}-{storage.name}")
        for k, rule in enumerate(RULES)
        for storage in (FEW[k::3] if SIMULATED else FEW)
    ],
)
every_case = pytest.mark.parametrize("case", first_cases(CASES) if SIMULATED else CASES, ids=name_of)
# Both dtypes of every optimizer, the simulator has in tests/simulated/test_matrix.py.
every_dtype = pytest.mark.parametrize("dtype", DTYPES[:1] if SIMULATED else DTYPES)
# Blocks of 1024, chunks of 4096, remainders of both, nothing, one.
LARGE = [] if SIMULATED or "FASTOPT_FEW_ELEMENTS" in os.environ else [2**20 + 3, 70_001]
SIZES = [7, 0, 70] if SIMULATED else [*LARGE, 1, 0, 1023, 1025, 4097]


def cut(cls, kwargs):
    """Return those arguments that an optimizer has: without states there is no format of them."""
    return (
        kwargs if cls.with_hyperparameters().active_states() else {k: v for k, v in kwargs.items() if k[:5] != "state"}
    )


class Twins:
    """One optimizer on the CPU and one on the device, of the same numbers."""

    def __init__(self, library, name, hyper, storage, sizes, put=None, **device_only):
        param, self.grad = storage.param, storage.grad
        cls, self.library, self.sizes, self.put = getattr(fastopt, name), library, sizes, put or library.put
        kwargs = cut(cls, storage.options) | hyper
        self.on_cpu = [stored(random(n, F32, k), param) for k, n in enumerate(sizes)]
        self.on_device = [self.put(p) for p in self.on_cpu]
        self.cpu = cls(self.on_cpu, **kwargs)
        self.device = cls(self.on_device, **kwargs, **device_only)

    def grads(self, step, special=False):
        made = [random(n, F32, 100 * step + k) for k, n in enumerate(self.sizes)]
        if special:
            made[0][-1:] = np.inf
            made[0][:1] = np.nan
        return [stored(g, self.grad) for g in made]

    def step(self, step, special=False, **kwargs):
        grads = self.grads(step, special)
        self.cpu.step(grads)
        self.held = [self.put(g) for g in grads]  # until the next step: a library would use their memory again
        self.device.step(self.held, **kwargs)

    def check(self):
        found = [self.library.get(p) for p in self.on_device]
        assert_same_bits_but_for_nan(found, self.on_cpu)
        one, other = self.device.state_dict(), self.cpu.state_dict()
        assert one.keys() == other.keys()
        assert one["step"] == other["step"]
        arrays = [key for key, value in one.items() if isinstance(value, np.ndarray) and value.ndim]
        assert len(arrays) >= len(self.cpu._state_names) * len(self.sizes)
        given, wanted = ([np.asarray(d[k]) for k in arrays] for d in (one, other))
        given, wanted = ([a.view(np.uint16) if a.dtype.name == "bfloat16" else a for a in x] for x in (given, wanted))
        assert_same_bits_but_for_nan(given, wanted)


@every_case
@every_dtype
@pytest.mark.parametrize("size", [7] if SIMULATED else [0, 1, 7, 1023, 1025, 2**20 + 3])
@pytest.mark.parametrize("shift", [1] if SIMULATED else [0, 1])
def test_against_the_oracle(case, dtype, size, shift, library):
    name, kwargs = case
    whole = library.put(random(size + shift, dtype, 1))
    p = whole[shift:]
    opt = make(case, p)
    for step in (1, 2, 3):
        g = random(size, dtype, 1 + step)
        old = [library.get(a) for a in (p, *opt.state.values())]
        opt.step(library.put(g))
        right = answer(name, old[0], g, old[1:], step, **kwargs)
        for new, exact in zip([p, *opt.state.values()], right, strict=True):
            assert np.max(exact.excess(library.get(new)), initial=0) <= 1
    assert_same_bits([library.get(whole)[:shift]], [random(size + shift, dtype, 1)[:shift]])


@every_case
@every_dtype
def test_functions_and_capturable_steps_are_the_classes(case, dtype, library):
    name, kwargs = case
    size = 21 if SIMULATED else 1000
    p, g = random(size, dtype, 1), library.put(random(size, dtype, 2))
    one, two, three = (library.put(p.copy()) for _ in range(3))
    opt = make(case, one)
    states = {key: library.put(a) for key, a in first_states(opt, p).items()}
    for step in (1, 2, 3):
        opt.step(g)
        call(case, two, g, states, step)
    assert_same_bits([library.get(one)], [library.get(two)])
    if not callable(kwargs.get("lr")):
        counted = getattr(fastopt, name)(three, capturable=True, **kwargs)
        for _ in range(3):
            counted.step(g)
        assert counted.step_count == 3
        np.testing.assert_allclose(library.get(three), library.get(one), rtol=1e-5, atol=1e-7)


@every_case
@every_dtype
def test_every_optimizer_has_the_bits_of_the_cpu(case, dtype, library):
    p, sizes = None, SIZES[:3]
    for size in sizes:
        p = random(size, dtype, 1)
        q = library.put(p.copy())
        cpu, opt = make(case, p), make(case, q)
        for step in (1, 2, 3):
            g = random(size, dtype, 1 + step)
            cpu.step(g)
            opt.step(library.put(g))
        found = [library.get(a) for a in (q, *opt.state.values())]
        assert_same_bits(found, [p, *cpu.state.values()])


@every_rule
def test_few_storages_have_the_bits_of_the_cpu(name, hyper, storage, library):
    twins = Twins(library, name, hyper, storage, SIZES)
    for step in (1, 2, 3):
        twins.step(step, special=step == 2)
    twins.check()


@pytest.mark.slow
@every_one_of(STORAGES.values())
def test_every_storage_has_the_bits_of_the_cpu(storage, library):
    name, hyper = RULES[0].values
    twins = Twins(library, name, hyper, storage, SIZES)
    for step in (1, 2, 3):
        twins.step(step, special=step == 2)
    twins.check()


@few_storages
def test_capturable_has_the_bits_of_the_cpu(storage, library):
    twins = Twins(library, "Momentum", NESTEROV, storage, SIZES, capturable=True)
    for step in (1, 2, 3):
        twins.step(step)
    assert twins.device.step_count == 3
    twins.check()


@fewer_storages
def test_clipped_steps_have_the_bits_of_the_cpu(storage, library):
    """The second is skipped."""
    clipping = {"grad_scale": 3.0, "clip_value": 0.5, "clip_norm": 1.0, "nonfinite": "skip"}
    twins = Twins(library, "Momentum", NESTEROV | clipping, storage, SIZES)
    for step in (1, 2, 3):
        twins.step(step, special=step == 2)
        np.testing.assert_array_equal(twins.device.grad_norm, twins.cpu.grad_norm)
    assert twins.device.skipped == twins.cpu.skipped == 1
    assert twins.device.step_count == twins.cpu.step_count == 2
    twins.check()


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("hyper", [{"clip_norm": 1.0}, {"clip_norm": 2.0, "grad_scale": 3.0}, {"nonfinite": "skip"}])
def test_a_norm_that_is_not_waited_for(hyper, capturable, library, monkeypatch):
    """The second step has an infinity, after which the settings change."""
    if not capturable and "nonfinite" in hyper:
        pytest.skip("needs a GPU that is waited for")
    twins = Twins(library, "Momentum", NESTEROV | hyper, STORAGES["float32"], SIZES, capturable=capturable)
    assert twins.device.grad_norm is None
    for step in (1, 2, 3, 4):
        with monkeypatch.context() as patch:
            patch.setattr(driver, "copy_to_host", None)  # which waits
            twins.step(step, special=step == 2)
        if step == 2:
            for opt in (twins.device, twins.cpu):
                opt.grad_scale = opt.grad_scale and 0.5
        np.testing.assert_array_equal(twins.device.grad_norm, twins.cpu.grad_norm)
    assert twins.device.skipped == twins.cpu.skipped == ("nonfinite" in hyper)
    assert twins.device.step_count == twins.cpu.step_count
    twins.check()


def test_skipped_steps_stay_counted(library):
    p, bad = library.put(np.zeros(3, F32)), library.put(np.full(3, np.inf, F32))
    opt = fastopt.GD(p, capturable=True, nonfinite="skip")
    opt.step(bad)
    opt.nonfinite = "propagate"
    assert opt.skipped == 1
    opt.clip_norm, opt.nonfinite = 1.0, "skip"
    opt.step(bad)
    opt.maximize = True  # another kernel
    opt.step(bad)
    assert (opt.skipped, opt.step_count, opt.grad_norm) == (3, 0, np.inf)
    assert (library.get(p) == 0).all()


def test_the_norm_of_the_last_step_that_took_it(library):
    """However it was taken, and whatever is asked of steps since then."""
    p, g = library.put(np.zeros(2, F32)), library.put(np.array([3, 4], F32))
    opt = fastopt.GD([p], nonfinite="raise")
    opt.step([g])
    opt.nonfinite, opt.clip_norm = "propagate", 1e9
    assert opt.grad_norm == 5
    opt.step([library.put(np.array([6, 8], F32))])
    opt.clip_norm = None
    assert opt.grad_norm == 10
    opt.add_params([library.put(np.zeros(1, F32))])
    assert opt.grad_norm == 10


def test_what_a_graph_cannot_hold_is_refused(library):
    p, q = library.put(np.zeros(3, F32)), library.put(np.zeros(3))
    opt = fastopt.GD(p, capturable=True)
    for refused, make_it in (
        ("nonfinite='raise' waits", lambda: fastopt.GD(p, capturable=True, nonfinite="raise")),
        ("nonfinite='raise' waits", lambda: setattr(opt, "nonfinite", "raise")),
        ("zero_grads=True", lambda: fastopt.GD(p, capturable=True, nonfinite="skip", zero_grads=True)),
        ("parameters of one dtype", lambda: fastopt.GD([p, q], capturable=True, clip_norm=1.0)),
        ("parameters of one dtype", lambda: setattr(fastopt.GD([p, q], capturable=True), "clip_norm", 1.0)),
    ):
        with pytest.raises(TypeError, match=refused):
            make_it()
    assert opt.nonfinite == "propagate"


@few_storages
def test_arrays_that_are_not_aligned_to_what_is_loaded_at_once(storage, library):
    twins = Twins(library, "Momentum", NESTEROV, storage, SIZES, put=lambda array: shifted(library, array))
    for step in (1, 2, 3):
        twins.step(step)
    twins.check()


@pytest.mark.parametrize("param", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@every_library
def test_functions_have_the_bits_of_the_cpu(param, rounding, library):
    """Of every state that they take, also with arrays that are not aligned."""
    wide = param == "float64"
    if rounding == "stochastic" and param in ("float64", "float32"):
        with pytest.raises(TypeError, match="16 bits"):
            fastopt.gd(library.put(np.ones(3, param)), library.put(np.ones(3, param)), rounding=rounding, step=1)
        return
    for state in ("float64", "float32") if wide else ("float32", "bfloat16", "float16"):
        for put in (library.put, lambda array: shifted(library, array)):
            host = [stored(random(SIZES[-1], F32, k), f) for k, f in enumerate((param, param, state))]
            host[2][:] = 0
            device = [put(a) for a in host]
            for step in (1, 2):
                for p, g, v in (host, device):
                    fastopt.momentum(p, g, v, **NESTEROV, step=step, rounding=rounding, seed=3)
            assert_same_bits([library.get(a) for a in device], host)


@fewer_storages
@pytest.mark.parametrize("capturable", [False, True])
def test_checkpoints_go_from_one_to_the_other(storage, capturable, library):
    """Two steps on each, then each goes on from the other's checkpoint: as if nothing had been."""
    twins = Twins(library, "Momentum", NESTEROV, storage, SIZES, capturable=capturable)
    for step in (1, 2):
        twins.step(step)
    saved = twins.cpu.state_dict(), twins.device.state_dict()
    other = Twins(library, "Momentum", NESTEROV, storage, SIZES, capturable=capturable)
    for p, new, q, there in zip(other.on_cpu, twins.on_cpu, other.on_device, twins.on_device, strict=True):
        p[...] = new
        copy_to(library, q, library.get(there))
    other.device.load_state_dict(saved[0])
    other.cpu.load_state_dict(saved[1])
    for step in (3, 4):
        twins.step(step)
        other.step(step)
    assert other.device.step_count == 4
    twins.check()
    other.check()
    assert_same_bits(other.on_cpu, twins.on_cpu)


def copy_to(library, array, values):
    library.synchronize()
    if values.size:
        address = array.data_ptr() if hasattr(array, "data_ptr") else driver.address_of(array)
        driver.copy_to_device(address, np.ascontiguousarray(values))


@every_library
@fewer_storages
def test_arrays_of_a_library(storage, library):
    """With the states that it makes, which are its own."""
    twins = Twins(library, "Momentum", NESTEROV, storage, SIZES)
    for step in (1, 2, 3):
        twins.step(step)
    twins.check()
    module = type(twins.on_device[0]).__module__.partition(".")[0]
    for state in twins.device.state.values():
        for array in state:
            assert array is None or type(array).__module__.partition(".")[0] == module


@every_library
def test_two_streams(library):
    """Two optimizers step in turn, each on a stream of its own; a third uses both, each after the other is done."""
    streams = [library.stream() for _ in range(2)]
    storage = FEW[5] if SIMULATED else FEW[7]
    twins = [Twins(library, "Momentum", NESTEROV, storage, SIZES) for _ in range(3)]
    library.synchronize()  # what was made on the default stream
    for step in range(1, 3 if SIMULATED else 6):
        for pair, stream in zip(twins, streams, strict=False):
            pair.step(step, stream=stream)
        twins[2].step(step, stream=streams[step % 2])
        library.synchronize()
    for pair in twins:
        pair.check()


@every_library
def test_a_step_is_on_the_stream_that_the_library_uses(library):
    """A gradient is written there after long work, and the parameter read there: nothing is waited for."""
    stream, n = library.stream(), 5 if SIMULATED else 2**24
    with library.on(stream):
        p, g = library.put(np.zeros(n, F32)), library.put(np.zeros(n, F32))
        opt = fastopt.GD(p, lr=1.0)
        device_stream = stream if type(library).__name__ == "Numba" else None
        opt.step(g, stream=device_stream)
        library.synchronize()
        if device_stream is None:
            for _ in range(50):
                g += 1
            opt.step(g)
            g -= 25
            opt.step(g)
        else:
            ones = library.put(np.ones(n, F32))
            for _ in range(50):
                fastopt.gd(g, ones, lr=1.0, maximize=True, stream=stream)
            opt.step(g, stream=stream)
            fastopt.gd(g, ones, lr=25.0, stream=stream)
            opt.step(g, stream=stream)
    library.synchronize()
    assert (library.get(p) == -75).all()


@pytest.fixture
def one_kernel_at_a_time(monkeypatch):
    """Serialize launches in the simulator, which runs one kernel at a time and says so; a GPU's streams do that."""
    if not SIMULATED:
        return
    lock, launcher = threading.Lock(), streams.launcher

    def locked(*given):
        kernel = launcher(*given)

        def launch(*arguments):
            with lock:
                kernel(*arguments)

        return launch

    monkeypatch.setattr(streams, "launcher", locked)


@pytest.mark.usefixtures("one_kernel_at_a_time")
def test_two_threads_on_one_stream(library):
    """Each with an optimizer and with calls of functions, which share a table of addresses."""
    steps, size, failed = 3 if SIMULATED else 100, SIZES[-1], []
    storage = FEW[2] if SIMULATED else FEW[3]
    twins = [Twins(library, "Momentum", NESTEROV, storage, [size]) for _ in range(2)]
    alone = [(random(size, F32, 50 + k), random(size, F32, 60 + k), np.zeros(size, F32)) for k in range(2)]
    there = [[library.put(a.copy()) for a in arrays] for arrays in alone]
    grads = [[library.put(g) for g in pair.grads(1)] for pair in twins]
    start = threading.Barrier(2)

    def work(k):
        try:
            start.wait()
            for step in range(1, steps + 1):
                twins[k].device.step(grads[k])
                fastopt.momentum(*there[k], **NESTEROV, step=step)
        except BaseException as error:  # noqa: BLE001  of the other thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for pair, arrays, device in zip(twins, alone, there, strict=True):
        for step in range(1, steps + 1):
            pair.cpu.step(pair.grads(1))
            fastopt.momentum(*arrays, **NESTEROV, step=step)
        pair.check()
        assert_same_bits([library.get(a) for a in device], arrays)


@every_library
@fewer_storages
def test_replayed_graphs_have_the_bits_of_the_cpu(storage, library):
    """One step to compile, one captured, three replays; a replay sees a new lr."""
    twins = Twins(library, "Momentum", NESTEROV, storage, SIZES, capturable=True)
    grads = twins.grads(1)
    there = [library.put(g) for g in grads]
    twins.device.step(there)
    library.synchronize()
    replay = library.capture(twins.device, there)
    library.synchronize()
    for _ in range(3):
        replay()
    library.synchronize()
    assert twins.device.step_count == 4
    twins.device.lr = twins.cpu.lr = 0.5
    replay()
    library.synchronize()
    twins.cpu.lr = NESTEROV["lr"]
    for _ in range(4):
        twins.cpu.step(grads)
    twins.cpu.lr = 0.5
    twins.cpu.step(grads)
    twins.check()


@needs_gpu
def test_a_graph_holds_no_step_that_is_counted_on_the_host(library):
    p, g = library.put(np.zeros(5, F32)), library.put(np.ones(5, F32))
    opt = fastopt.Adam(p)
    opt.step(g)
    with pytest.raises(RuntimeError, match="capturable=True"):
        library.capture(opt, g)
    assert opt.step_count == 1


@pytest.mark.parametrize("size", [pytest.param(2**31 + 5, marks=[pytest.mark.slow, needs_gpu]), 1029])
@pytest.mark.parametrize("use", ["class", "function"])
def test_more_than_2_to_31_elements(size, use, library):
    from fastopt._bench import device

    needed, there = 2 * 4 * size, resources()
    if there.device < needed + 2**28 or there.host < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB on the GPU and on the host; there are {there}")
    middle = min(2**31, size - 5)
    marks = [0, 1, middle - 2, middle - 1, middle, middle + 1, size - 1]
    ones = np.ones(min(2**26, size), F32)
    p, g = device.put(ones, size), device.put(2 * ones, size)
    for k, mark in enumerate(marks, 1):
        g[mark : mark + 1].copy_to_device(library.put(np.full(1, k, F32)))
    if use == "class":
        fastopt.GD(p, lr=0.25).step(g)
    else:
        fastopt.gd(p, g, lr=0.25)
    found = np.array([library.get(p[mark : mark + 1])[0] for mark in marks])
    np.testing.assert_array_equal(found, 1 - 0.25 * np.arange(1, len(marks) + 1))
    for mark in marks:
        p[mark : mark + 1].copy_to_device(library.put(np.full(1, 0.5, F32)))
    for start in range(0, size, ones.size):
        assert (library.get(p[start : start + ones.size]) == 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer(tool):
    """Every codec, aligned and not, counted on the host and on the device: no access outside, no race."""
    program = os.environ.get("FASTOPT_COMPUTE_SANITIZER") or shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer, of the CUDA toolkit, is neither on PATH nor in FASTOPT_COMPUTE_SANITIZER")
    sanitize(program, tool)
