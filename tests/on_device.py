"""The libraries whose arrays lie on a GPU, under one face; in the simulator, stand-ins for those that need a GPU."""

import contextlib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastopt._arrays import driver
from fastopt._bench import device

from .simulated import libraries

SIMULATED = driver.simulated()
needs_gpu = pytest.mark.skipif(SIMULATED, reason="needs a GPU: the simulator has no graphs, and is slow")


class Numba:
    """numba-cuda's arrays, its streams, and graphs by the driver."""

    def __init__(self):
        self.cuda = driver.module()

    def put(self, array):
        return self.cuda.to_device(array)

    def get(self, array):
        return array.copy_to_host()

    def stream(self):
        return 7 if SIMULATED else self.cuda.stream()

    def on(self, stream):
        return contextlib.nullcontext()

    def capture(self, opt, grads):
        return device.Graph(lambda handle: opt.step(grads, stream=handle))

    def synchronize(self):
        device.synchronize()


class Torch(Numba):
    """PyTorch's tensors, bfloat16 as such; its streams and its graphs."""

    def __init__(self):
        super().__init__()
        self.torch = libraries.torch()

    def put(self, array):
        host = self.torch.from_numpy(array.copy())
        host = host.view(self.torch.bfloat16) if array.dtype == np.uint16 else host
        return libraries.Tensor.of(host) if SIMULATED else host.cuda()

    def get(self, tensor):
        host = tensor.detach().as_subclass(self.torch.Tensor).cpu()
        return (host.view(self.torch.uint16) if host.dtype == self.torch.bfloat16 else host).numpy().copy()

    def stream(self):
        return self.torch.cuda.Stream()

    def on(self, stream):
        return self.torch.cuda.stream(stream)

    def capture(self, opt, grads):
        if SIMULATED:
            return super().capture(opt, grads)
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            opt.step(grads)
        return graph.replay


class Cupy(Numba):
    """CuPy's arrays, its streams and its graphs."""

    def __init__(self):
        super().__init__()
        self.cupy = importlib.import_module("cupy")

    def put(self, array):
        return self.cupy.asarray(array)

    def get(self, array):
        return self.cupy.asnumpy(array)

    def stream(self):
        return self.cupy.cuda.Stream(non_blocking=True)

    def on(self, stream):
        return stream

    def capture(self, opt, grads):
        if SIMULATED:
            return super().capture(opt, grads)
        with self.stream() as stream:
            stream.begin_capture()
            opt.step(grads)
            graph = stream.end_capture()
        return graph.launch


LIBRARIES = {"numba": Numba, "torch": Torch, "cupy": Cupy}


@pytest.fixture
def library(request, monkeypatch):
    """Return the library that a test asks for by name, numba's arrays otherwise."""
    name = getattr(request, "param", "numba")
    if name != "numba":
        if SIMULATED:
            getattr(libraries, f"imitate_{name}")(monkeypatch)
        else:
            found = pytest.importorskip(name, reason=f"needs {name}")
            if name == "torch" and not found.cuda.is_available():
                pytest.skip("this PyTorch has no CUDA")
    return LIBRARIES[name]()


every_library = pytest.mark.parametrize("library", LIBRARIES, indirect=True)


def shifted(library, array):
    """Return an array on the device that begins one element after an address that all loads like."""
    if not array.size:
        return library.put(array)
    return library.put(np.concatenate([array[:1], array]))[1:]


def resources():
    """Return the bytes that are free on the device, and those of the host."""
    from fastopt._bench import measure

    return SimpleNamespace(device=device.room(), host=measure.memory())


#: The tests that compute-sanitizer runs: every codec, aligned and not, counted on the host and on the device.
SANITIZED = "few_storages and Momentum or not_aligned or capturable_has_the_bits"


def sanitize(program, tool):
    """Run some tests for a GPU under a tool of compute-sanitizer, the program at a path; it must find nothing."""
    file = Path(__file__).with_name("test_gpu.py")
    tests = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", SANITIZED, str(file)]
    command = [program, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *tests]
    environment = os.environ | {"FASTOPT_FEW_ELEMENTS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=file.parents[1], env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert re.search(r"SUMMARY: 0 (errors|hazards)", done.stdout), done.stdout[-2000:]
