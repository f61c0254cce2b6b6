"""Minutes and tens of GB: more than 2^31 elements, and many steps of many shapes."""

from pathlib import Path

import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS

pytestmark = pytest.mark.slow


def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("use", ["class", "function"])
def test_more_than_2_to_31_elements(use):
    size = 2**31 + 5
    p = np.ones(size, np.float32)
    g = np.full(size, 2, np.float32)
    marks = [0, 1, 2**31 - 2, 2**31 - 1, 2**31, 2**31 + 1, size - 1]
    g[marks] = np.arange(1, len(marks) + 1)
    if use == "class":
        fastopt.GD(p, lr=0.25).step(g)
    else:
        fastopt.gd(p, g, lr=0.25)
    np.testing.assert_array_equal(p[marks], 1 - 0.25 * np.arange(1, len(marks) + 1))
    p[marks] = 0.5
    for start in range(0, size, 2**26):
        assert (p[start : start + 2**26] == 0.5).all()


def test_soak():
    rng = np.random.default_rng(0)
    held = []
    for turn in range(300):
        shapes = [tuple(rng.integers(0, 40, rng.integers(0, 4))) for _ in range(rng.integers(1, 40))]
        shapes.append((int(rng.integers(1, 2**18)),))
        params = [rng.normal(size=s).astype(rng.choice([np.float32, np.float64])) for s in shapes]
        cls = list(OPTIMIZERS.values())[turn % len(OPTIMIZERS)]
        ours, twin = cls(params), cls([p.copy() for p in params])
        for _ in range(20):
            grads = [np.asarray(rng.normal(size=p.shape), p.dtype) for p in params]
            ours.step(grads)
            twin.bind([g.copy() for g in grads])
            twin.step()
        for a, b in zip(ours.params, twin.params, strict=True):
            np.testing.assert_array_equal(a, b)
        held.append(memory())
    assert max(held[200:]) < max(held[:100]) * 1.2
