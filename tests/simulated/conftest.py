"""What runs with NUMBA_ENABLE_CUDASIM=1, in a process of its own; tests/test_cuda.py starts it."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        for item in items:
            if "simulated" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="tests/test_cuda.py runs it, in the simulator"))
