"""Kernels executed without a GPU; in a process that has one, it is out of the way only while these tests run."""

import importlib.util
import os

import pytest

from .device import Device


@pytest.fixture(scope="package")
def installed():
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("compiles kernels for a GPU: needs the extra `cuda-check`")
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        pytest.skip("compiles kernels for a GPU, which the simulator does not")
    with pytest.MonkeyPatch.context() as monkeypatch, Device().install(monkeypatch) as device:
        yield device


@pytest.fixture
def device(installed):
    installed.reset()
    return installed
