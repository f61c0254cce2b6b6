"""CUDA without a GPU: the simulator, the errors where there is none, and what the compiler made of each kernel."""

import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt
from fastopt._arrays import driver
from fastopt._bench import device
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._bench.storages import selected
from fastopt._kernels import compiler, toolchain

from .cases import core_cases_alone_in_turns, core_cases_by_ci, every_one_of, slow_operations
from .on_device import SANITIZED, sanitize
from .simulated.device import Device, Packed

HERE = Path(__file__).parent


def simulate(file, *arguments, **environment):
    """Run tests in the simulator, and return how many passed, and why others did not run."""
    run = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(HERE / file)]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"} | environment
    done = subprocess.run(
        [*run, *arguments], check=False, env=environment, capture_output=True, text=True, cwd=HERE.parent
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    reasons = [
        reason
        for count, reason in re.findall(r"^SKIPPED \[(\d+)\] \S+ (.*)$", done.stdout, re.MULTILINE)
        for _ in range(int(count))
    ]
    return int(re.search(r"(\d+) passed", done.stdout)[1]), reasons


# What runs in one process, and how many tests there are at least.
TOGETHER = [
    ("test_bench.py test_documents.py test_narrow.py", 31),
    ("test_arrays.py test_matrix.py test_turns.py", 300),
]


@pytest.mark.ci
@pytest.mark.parametrize(("files", "least"), TOGETHER, ids=str)
def test_everything_in_the_simulator(files, least):
    first, *others = files.split()
    passed, reasons = simulate(f"simulated/{first}", *(str(HERE / "simulated" / other) for other in others))
    peers = {"torch": "needs PyTorch", "optax": "needs Optax"}
    assert set(reasons) <= {why for peer, why in peers.items() if importlib.util.find_spec(peer) is None}
    assert passed + len(reasons) >= least


@pytest.mark.ci
def test_the_tests_for_a_gpu_run_in_the_simulator():
    """So that a mistake in them does not wait for a GPU; what is skipped says that it needs one."""
    passed, reasons = simulate("test_gpu.py")
    assert passed >= 150
    allowed = ("needs a GPU", "needs PyTorch")
    assert [reason for reason in reasons if not reason.startswith(allowed)] == []


@pytest.mark.ci
@pytest.mark.parametrize("summary", ["ERROR SUMMARY: 0 errors", "ERROR SUMMARY: 2 errors"])
def test_the_command_line_of_the_sanitizer(summary, tmp_path, monkeypatch):
    """A stand-in takes its options, runs tests and tells of errors: the summary counts, not the status alone.

    All that it would run have run in the simulator already; here it is the last of them.
    """
    program = tmp_path / "compute-sanitizer"
    script = f"""#!{sys.executable}
import subprocess, sys
options, command = sys.argv[1:7], sys.argv[7:]
assert options == ["--tool", "memcheck", "--error-exitcode", "9", "--target-processes", "all"], options
clean = " 0 errors" in "{summary}"
status = subprocess.run([*command, "-k", "capturable_has_the_bits"]).returncode if clean else print("1 passed")
print("========= {summary}")
sys.exit(status)
"""
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    with nullcontext() if " 0 errors" in summary else pytest.raises(AssertionError, match="2 errors"):
        sanitize(program, "memcheck")
    source = (HERE / "test_gpu.py").read_text()
    for name in re.findall(r"[a-z]+_[a-z_]+", SANITIZED):
        assert re.search(rf"def test_\w*{name}", source)


def test_all_files_of_the_simulator_are_run():
    every = {file.name for file in (HERE / "simulated").glob("test_*.py")}
    assert {file for files, _ in TOGETHER for file in files.split()} == every


class TestWithoutAGpu:
    @pytest.fixture(autouse=True)
    def _fresh(self):
        driver.why_not.cache_clear()
        yield
        driver.why_not.cache_clear()

    def test_a_missing_package_is_named_with_its_extra(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        for use in (fastopt.Adam, lambda p: fastopt.gd(p, p)):
            with pytest.raises(driver.CudaUnavailableError, match=r"numba-cuda is not installed.*fastopt\[cuda13\]"):
                use(Device(np.ones(3)))
        assert "fastopt[cuda13]" in fastopt.info()["cuda"]

    def test_a_driver_that_is_missing_or_too_old(self, monkeypatch):
        pytest.importorskip("numba_cuda", reason="needs the extra `cuda-check`")
        from numba import cuda

        monkeypatch.setattr(cuda, "is_available", lambda: False)
        monkeypatch.setattr(cuda, "cuda_error", lambda: "no\ndriver library")
        with pytest.raises(driver.CudaUnavailableError, match="the driver cannot be used: no driver library"):
            fastopt.Adam(Packed(np.ones(3)))
        driver.why_not.cache_clear()
        monkeypatch.setattr(cuda, "is_available", lambda: True)
        monkeypatch.setattr(cuda, "is_supported_version", lambda: False)
        assert "too old" in fastopt.info()["cuda"]
        assert "fastopt[cuda12]" in fastopt.info()["cuda"]

    def test_a_stream_on_the_cpu_is_refused(self):
        p, g = np.ones((2, 3))
        opt = fastopt.GD(p)
        with pytest.raises(TypeError, match="params is on the CPU, where a step takes no stream; got 0"):
            opt.step(g, stream=0)
        with pytest.raises(TypeError, match="p is on the CPU"):
            fastopt.gd(p, g, stream=0)
        assert (p == 1).all()
        assert opt.step_count == 0
        assert not opt.capturable

    def test_capturable_is_for_gpus(self):
        with pytest.raises(TypeError, match=r"capturable=True needs all arrays on GPUs; params\[0\] is on the CPU"):
            fastopt.GD([np.ones(3)], capturable=True)


class Driver:
    """A stand-in for the CUDA driver: it has the functions of the real bindings, and writes down what is called."""

    def __init__(self, real):
        self._real, self.calls = real, []

    def __getattr__(self, name):
        real = getattr(self._real, name)
        if not name.startswith("cu"):
            return real

        def function(*given):
            self.calls.append((name, *given))
            made = {"cuStreamCreate": 5, "cuStreamEndCapture": 6, "cuGraphInstantiate": 8}
            return (0, made[name]) if name in made else (0,)

        return function


class Event:
    def __init__(self, calls):
        self._calls = calls

    def record(self):
        self._calls.append("record")

    def synchronize(self):
        self._calls.append("wait")

    def elapsed_time(self, end):
        assert isinstance(end, Event)
        return 6.0


class TestMeasuring:
    """What only a GPU's driver can do, on a stand-in: which functions are called, with what, in which order."""

    @pytest.fixture
    def driver(self, monkeypatch):
        bindings = pytest.importorskip("cuda.bindings", reason="needs the extra `cuda-check`")
        from cuda.bindings import driver as real

        stand_in = Driver(real)
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", stand_in)
        monkeypatch.setattr(bindings, "driver", stand_in)
        module = SimpleNamespace(
            event=lambda: Event(stand_in.calls),
            synchronize=lambda: stand_in.calls.append("synchronize"),
            gpus=[nullcontext()],
            device_array=lambda count, dtype: Device(np.empty(count, dtype)),
            current_context=lambda: SimpleNamespace(get_memory_info=lambda: (1000, 2000)),
        )
        monkeypatch.setattr(driver, "module", lambda: module)
        return stand_in

    def test_graphs(self, driver):
        enqueued = []
        graph = device.Graph(enqueued.append)
        assert enqueued == [5]
        graph()
        graph.replay(7)
        names = [call if isinstance(call, str) else call[0] for call in driver.calls]
        assert names[:4] == ["synchronize", "cuStreamCreate", "cuStreamBeginCapture", "cuStreamEndCapture"]
        assert driver.calls[4:] == [("cuGraphInstantiate", 6, 0), ("cuGraphLaunch", 8, 0), ("cuGraphLaunch", 8, 7)]

    def test_a_capture_ends_where_it_fails(self, driver):
        def refuse(handle):
            raise RuntimeError("not in a graph")

        with pytest.raises(RuntimeError, match="not in a graph"):
            device.Graph(refuse)
        assert driver.calls[-1] == ("cuStreamEndCapture", 5)

    def test_times_are_those_between_events(self, driver):
        step = lambda: driver.calls.append("step")  # noqa: E731
        assert device.call(step, 3) == 0.002
        assert driver.calls == ["synchronize", "record", "step", "step", "step", "record", "wait"]
        driver.calls.clear()
        assert device.call(device.OwnStreams(step), 1) == 0.006
        assert driver.calls == ["synchronize", "record", "step", "synchronize", "record", "wait"]

    def test_copies(self, driver, monkeypatch):
        monkeypatch.setattr(device, "_PIECE", 8)
        copy = device.Copy(46)
        copy()
        to, from_ = (a.array.ctypes.data for a in copy._arrays)
        assert driver.calls == [("cuMemcpyDtoDAsync", to, from_, n, 0) for n in (8, 8, 7)]
        assert device.room() == 900

    def test_what_the_driver_refuses_is_an_error(self):
        assert device.checked((0, 5)) == (5,)
        with pytest.raises(RuntimeError, match="the CUDA driver answered 719"):
            device.checked((719,))


def ptxas():
    """Return the assembler of the extra `cuda-check`, of the same release as the compiler."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for file in Path(folder).glob("cu13/bin/ptxas*"):
            return str(file)
    return None


CAPABILITIES = [(7, 5), (8, 0), (9, 0), (10, 0)]
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def compiled():
    """Return a function that compiles a kernel to PTX for devices that are not here: one text for each capability."""
    if importlib.util.find_spec("numba_cuda") is None or ptxas() is None:
        pytest.skip("needs the extra `cuda-check`")
    return texts


def texts(function, signature, capabilities=CAPABILITIES, *, once=True):
    """Return what a kernel is compiled to for each compute capability.

    `once`: Numba infers types and makes LLVM's code once for all of them, as no code here asks for the capability;
    that takes most of the time. What NVIDIA's compiler makes of it, it makes for each.
    """
    from numba import cuda
    from numba.cuda import compiler as numba_compiler
    from numba.cuda import dispatcher

    toolchain.complete()
    flags = {name: value for name, value in compiler.DEVICE.items() if name != "lto"}  # PTX is what it returns
    found = {}
    with pytest.MonkeyPatch.context() as m, toolchain.unfused():
        if once and (lowered := getattr(numba_compiler, "_compile_pyfunc_with_fixup", None)):
            kept = []

            def lower(*given, **named):
                if not kept:
                    kept.append(lowered(*given, **named))
                return kept[0]

            m.setattr(numba_compiler, "_compile_pyfunc_with_fixup", lower)
        for capability in capabilities:
            device = SimpleNamespace(compute_capability=capability)
            m.setattr(dispatcher, "get_current_device", lambda device=device: device)
            found[capability], _ = cuda.compile(function, signature, device=False, abi="numba", cc=capability, **flags)
    return found


@functools.cache
def texts_of(spec, on_device):
    """Return the same for the kernel of a spec, which several cases may have."""
    return texts(*compiler.device_kernel(spec, on_device, on_device))


def instructions(ptx):
    """Return how often each instruction stands in a kernel."""
    return Counter(re.findall(r"^\s+(?:@!?%p\d+\s+)?([a-z][\w.]+)\s[^;]*;", ptx, re.MULTILINE))


def separate(found):
    """Say whether every product and sum is rounded by itself: ptxas fuses what has no `.rn` in its name."""
    arithmetic = {op for op in found if re.fullmatch(r"(fma|mul|add|sub)\.(\w+\.)*f(16|32|64)(x2)?", op)}
    return bool(arithmetic) and all(re.fullmatch(r"(mul|add|sub)\.rn\.f(32|64)(\.b?f16)?", op) for op in arithmetic)


def assemble(ptx, capability, tmp_path):
    """Return registers, bytes of stack and bytes of spills of a kernel."""
    file = tmp_path / "kernel.ptx"
    file.write_text(ptx)
    run = [ptxas(), "-v", f"-arch=sm_{capability[0]}{capability[1]}", str(file), "-o", str(tmp_path / "kernel.cubin")]
    done = subprocess.run(run, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stack, stores, loads = map(
        int,
        re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr).groups(),
    )
    return int(re.search(r"Used (\d+) registers", done.stderr)[1]), stack, stores + loads


@core_cases_alone_in_turns
@pytest.mark.usefixtures("compiled")
def test_the_sweep(case, dtype, tmp_path):
    """16 bytes at a time, no double precision in a float32 kernel, no calls, no local memory, few registers."""
    name, kwargs = case
    spec = OPTIMIZERS[name].with_hyperparameters(**kwargs).plain_spec(np.dtype(dtype))
    for on_device in (False, True):
        for capability, ptx in texts_of(spec, on_device).items():
            check_sweep(name, spec, on_device, capability, ptx, tmp_path)


def check_sweep(name, spec, on_device, capability, ptx, tmp_path):
    found = instructions(ptx)
    single_precision = spec.compute == np.float32
    lanes, bits = (4, 32) if single_precision else (2, 64)
    packed = {
        kind: sum(n for op, n in found.items() if re.fullmatch(rf"{kind}\.global\.v{lanes}\.[fb]{bits}", op))
        for kind in ("ld", "st")
    }
    assert packed == {"ld": len(spec.codecs), "st": len(spec.codecs) - 1}
    # The remainder: one element at a time, once.
    single = sum(n for op, n in found.items() if re.fullmatch(rf"st\.global\.[fb]{bits}", op))
    assert single == len(spec.codecs) - 1
    assert not [op for op in found if op.startswith(("call", "ld.local", "st.local"))]
    assert separate(found)
    if single_precision:
        assert ".f64" not in ptx
    for op, times in slow_operations(name).items():
        ratio = 2 * (op == "div" and spec.measured > 0)  # one before each loop at most
        assert (lanes + 1) * times + bool(ratio) <= found[f"{op}.rn.f{bits}"] <= (lanes + 1) * times + ratio, op
    registers, stack, spills = assemble(ptx, capability, tmp_path)
    assert (stack, spills) == (0, 0)
    # Four or three blocks of 256 threads on a processor, of its 65536 registers; two where six arrays in float64 are
    # read, of which they have as much in flight as three blocks have of four.
    most = 64 if single_precision and not on_device else 80
    if not single_precision and len(spec.codecs) >= 6:
        most = 96
    assert registers <= most


STORAGES = selected(
    (
        "float32, bfloat16 states",
        "float32, float16 states",
        "float32, int8 states",
        "bfloat16",
        "float16, stochastic",
        "bfloat16, stochastic, int8 states",
        "bfloat16, kahan, bfloat16 states",
        "split8, int8 states",
        "split16, int8 states",
    )
)


@every_one_of(STORAGES.values())
@pytest.mark.ci
@pytest.mark.usefixtures("compiled")
def test_every_storage(storage, tmp_path):
    """Four elements of every array at a time, no double precision, no calls, no local memory."""
    spec = OPTIMIZERS["Adam"].with_hyperparameters().spec(storage.codecs())
    for on_device in (False, True):
        for capability, ptx in texts_of(spec, on_device).items():
            check_storage(spec, capability, ptx, tmp_path)


def check_storage(spec, capability, ptx, tmp_path):
    widths = {1: r"(v4\.[bu]8|[bu]32)", 2: r"(v4\.[bu]16|v2\.[bu]32|[bu]64)", 4: r"v4\.[fbu]32"}
    fields = [spec.layout.dtypes[k] for k in spec.layout.fields]
    found = instructions(ptx)
    for size, width in widths.items():
        for kind, arrays in (("ld", fields), ("st", fields[1:])):
            wide = sum(n for op, n in found.items() if re.fullmatch(rf"{kind}\.global\.{width}", op))
            assert wide >= sum(d.itemsize == size for d in arrays), (kind, size)
    assert not [op for op in found if op.startswith(("call", "ld.local", "st.local"))]
    assert separate(found)
    assert ".f64" not in ptx
    shared = bool(spec.layout.scales)
    assert (found["bar.sync"] + found["barrier.sync"] > 0) == shared
    # From CUDA 13.5 on, sm_100 and later have the order and the scope in the name.
    assert any(re.match(r"atom\.(relaxed\.\w+\.)?shared\.max\.", op) for op in found) == shared
    registers, stack, spills = assemble(ptx, capability, tmp_path)
    assert (stack, spills) == (0, 0)
    assert registers <= 96


@core_cases_by_ci
def test_the_kernel_that_counts(case, compiled, tmp_path):
    """A capturable step works its scalars out in double precision, once."""
    name, kwargs = case
    method = OPTIMIZERS[name].with_hyperparameters(**kwargs | {"lr": 0.1})
    spec = method.plain_spec(np.dtype(np.float32))
    for capability, ptx in compiled(*compiler.device_counter_kernel(method.compiled_values(), spec)).items():
        check_counter(spec, capability, ptx, tmp_path)


def check_counter(spec, capability, ptx, tmp_path):
    found = instructions(ptx)
    assert sum(n for op, n in found.items() if re.fullmatch(r"st\.global\.[fbu]32", op)) == spec.scalars
    assert sum(n for op, n in found.items() if re.fullmatch(r"st\.global\.[ubs]64", op)) == 1  # the step number
    _, _, spills = assemble(ptx, capability, tmp_path)
    assert spills == 0


@every_one_of([STORAGES["bfloat16, stochastic, int8 states"], STORAGES["bfloat16, kahan, bfloat16 states"]])
def test_kernels_are_lowered_alike_for_all_capabilities(storage, compiled):
    """So that to do it once, as above, leaves nothing out: here it is done for each."""
    function, signature = compiler.device_kernel(
        OPTIMIZERS["Adam"].with_hyperparameters().spec(storage.codecs()), True, True
    )
    once, each = (compiled(function, signature, once=once) for once in (True, False))
    plain = lambda text: re.sub(r"_Z\w+|_smem_\d+", "name", text)  # noqa: E731  in which Numba counts what it compiles
    assert {cc: plain(text) for cc, text in once.items()} == {cc: plain(text) for cc, text in each.items()}
    assert len({plain(text) for text in once.values()}) == len(CAPABILITIES)


def test_the_checks_see_what_they_should(compiled):
    """A kernel with double precision, an approximate root, or one element at a time is told from a good one."""

    def rule(s, g, p):
        return (np.float32(p - 0.1 * np.sqrt(g)),)

    spec = compiler.Spec(rule, 1, ("float32", "float32"))
    (ptx,) = compiled(*compiler.device_kernel(spec, False, False), [(9, 0)]).values()
    assert ".f64" in ptx
    assert instructions("  ld.global.v4.f32 \t{%f1, %f2}, [%rd1];\n  @%p1 bra \tL;\n")["ld.global.v4.f32"] == 1
