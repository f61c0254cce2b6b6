"""What LLVM made of the sweeps: packed arithmetic, no wider type, one loop."""

import platform
import re

import llvmlite.binding as llvm
import numpy as np
import pytest

from fastopt._bench.catalog import OPTIMIZERS
from fastopt._kernels import compiler

from .cases import in_turns, slow_operations
from .oracles import has_norms

features = llvm.get_host_cpu_features()
pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not features.get("avx2"),
    reason="reads x86-64 assembly with AVX2",
)


def assembly(case, dtype, parallel, monkeypatch):
    """Return the instructions of a freshly compiled sweep: one from the disk cache has no text."""
    name, kwargs = case
    return kernel_lines(
        OPTIMIZERS[name].with_hyperparameters(**kwargs).plain_spec(np.dtype(dtype)), parallel, monkeypatch
    )


_lines = {}  # one text for all tests that read it


def kernel_lines(spec, parallel, monkeypatch):
    """Return the same for a given spec."""
    if (spec, parallel) not in _lines:
        _lines[spec, parallel] = _compiled_lines(spec, parallel, monkeypatch)
    return _lines[spec, parallel]


def _compiled_lines(spec, parallel, monkeypatch):
    monkeypatch.setattr(compiler.KernelCache, "load_overload", lambda *arguments: None)
    monkeypatch.setattr(compiler.KernelCache, "save_overload", lambda *arguments: None)
    kernel = compiler.sweep.__wrapped__(spec, parallel)
    (text,) = kernel.inspect_asm().values()
    return re.findall(r"^\s+(v?[a-z]\w+)\s+(.*)$", text, re.MULTILINE)


def count(lines, instruction, registers=""):
    return sum(bool(re.fullmatch(instruction, op)) and registers in operands for op, operands in lines)


@in_turns("dtype packed scalar", [("float32", "ps", "ss"), ("float64", "pd", "sd")], ids=lambda p: p[0], core=True)
def test_the_loop_is_packed(case, dtype, packed, scalar, monkeypatch):
    lines = assembly(case, dtype, False, monkeypatch)
    wide = count(lines, rf"v(mul|add|sub|fn?m(add|sub)\d+){packed}", "%zmm") + count(
        lines, rf"v(mul|add|sub|fn?m(add|sub)\d+){packed}", "%ymm"
    )
    assert wide > 0
    for op, times in slow_operations(case[0]).items():
        assert (count(lines, f"v{op}{packed}") > 0) == (times > 0)
        # One scalar remainder and no second version of the loop for arrays that might overlap. A trust ratio is one for
        # all elements of a tensor.
        assert count(lines, f"v{op}{scalar}") <= times + (op == "div" and has_norms(case[0], **case[1]))


@in_turns("parallel", [False, True], core=True)
def test_float32_stays_float32(case, parallel, monkeypatch):
    lines = assembly(case, "float32", parallel, monkeypatch)
    assert len(lines) > 50
    assert count(lines, r"v?cvts[sd]2s[sd]|v?cvtp[sd]2p[sd]") == 0
    assert count(lines, r"v?(sqrt|div|mul|add|sub)[sp]d") == 0


@in_turns("dtype", ["float32", "float64"], core=True)
def test_the_loop_asks_ahead(case, dtype, monkeypatch):
    """For four lines of each array, the gradient, the parameter and the states."""
    spec = OPTIMIZERS[case[0]].with_hyperparameters(**case[1]).plain_spec(np.dtype(dtype))
    lines = kernel_lines(spec, False, monkeypatch)
    assert count(lines, "prefetch.*") == 4 * len(spec.codecs)


def test_the_count_sees_what_it_should():
    lines = [("vsqrtps", "%zmm1, %zmm2"), ("vcvtss2sd", "%xmm0, %xmm1"), ("vfmadd213ps", "%ymm0, %ymm1, %ymm2")]
    assert count(lines, "vsqrtps") == count(lines, r"v?cvts[sd]2s[sd]") == 1
    assert count(lines, r"v(mul|add|sub|fn?m(add|sub)\d+)ps", "%ymm") == 1
