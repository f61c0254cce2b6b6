"""float16 on processors without instructions for it: by integer operations, to the same bits."""

import numpy as np
import pytest
from llvmlite import ir

from fastopt._storage import float16
from fastopt._storage.codecs import FLOAT, HALF
from fastopt._storage.evaluator import Builder, value

from .test_codecs import PATTERNS, float32s

WITHOUT = [
    {"NUMBA_CPU_NAME": "generic"},
    {"NUMBA_CPU_NAME": "sandybridge", "NUMBA_CPU_FEATURES": ""},
]
pytestmark = [pytest.mark.internals, pytest.mark.filterwarnings("ignore::RuntimeWarning")]
without = pytest.mark.parametrize("environment", WITHOUT, ids=lambda e: e["NUMBA_CPU_NAME"])


def test_widening_all_65536_patterns():
    given = PATTERNS["float16"].view(np.uint16)
    found = float16.widened(Builder(), value(given.astype(np.uint32))).array
    right = PATTERNS["float16"].astype(np.float32).view(np.uint32)
    # A processor makes a NaN quiet; NumPy leaves it as it is.
    np.testing.assert_array_equal(found, np.where(np.isnan(PATTERNS["float16"]), right | 0x400000, right))


def test_narrowing():
    given = float32s()
    found = float16.narrowed(Builder(), value(given.view(np.uint32))).array.astype(np.uint16)
    right = given.astype(np.float16).view(np.uint16)
    nan = np.isnan(given)
    np.testing.assert_array_equal(found[~nan], right[~nan])
    np.testing.assert_array_equal(found[nan] & 0xFE00, right[nan] & 0xFC00 | 0x200)


def test_only_what_is_of_float16_is_converted():
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(FLOAT, [HALF, FLOAT]), "f")
    plain = ir.IRBuilder(function.append_basic_block())
    b = float16.Float16Builder(plain)
    half, number = function.args
    wide = b.fpext(b.fptrunc(b.fadd(b.fpext(half, FLOAT), number), HALF), ir.DoubleType())
    b.ret(b.fptrunc(wide, FLOAT))
    text = str(module)
    assert text.count("fpext") == text.count("fptrunc") == 1  # between float and double
    assert "half" in text


@pytest.mark.ci
@without
def test_a_process_without_the_instructions_steps_to_the_same_bits(run_script, environment):
    """p - 1 * g is exact in float32, so that the only rounding is that to float16."""
    out = run_script(
        """
    import numpy as np
    import fastopt
    from fastopt._storage import float16
    p = np.arange(2**16, dtype=np.uint16).view(np.float16)
    p = np.concatenate([p[np.isfinite(p)], np.array([np.inf, -np.inf, np.nan], np.float16)])
    g = (np.random.default_rng(0).normal(size=p.size) * np.abs(p.astype("f4"))).astype("f4")
    g[-3:] = 1
    np.seterr(all="ignore")
    right = (p.astype("f4") - g).astype("f2")
    for options in ({}, {"rounding": "kahan"}):
        q = p.copy()
        fastopt.GD(q, lr=1.0, **options).step(g)
        print(np.array_equal(q, right, equal_nan=True), end=" ")
    q = p.copy()
    fastopt.GD(q, rounding="stochastic").step(g * 0)
    print(np.array_equal(q, p, equal_nan=True), end=" ")
    wide = np.zeros(p.size)
    fastopt.GD(wide, lr=1.0).step(p)
    print(np.array_equal(-wide, p.astype("f8"), equal_nan=True), float16.native(), end=" ")
    opt = fastopt.GD(np.zeros(2**15), clip_norm=1.0)
    opt.step(p[: 2**15])
    exact = sum(int(n) ** 2 for n in p[: 2**15].astype("f8") * 2.0**24)  # all are multiples of 2^-24
    print(abs(opt.grad_norm * 2**24 / float(exact) ** 0.5 - 1) < 1e-14)
    """,
        **environment,
    )
    assert out == "True True True True False True"
