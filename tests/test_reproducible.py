"""The same bits everywhere: those of NumPy's expressions, on every processor; and what `reproducible` says."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numba
import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._bench.storages import selected
from fastopt._kernels import power as _power
from fastopt._kernels.power import power

from .cases import CASES, assert_same_bits, dtype_of, every_case, every_dtype, every_one_of, make, name_of, random
from .expressions import expression
from .expressions import power as nearest
from .test_codegen import count, features, kernel_lines
from .test_codegen import pytestmark as reads_x86

BF16, F32 = ml_dtypes.bfloat16, np.float32
STORAGES = selected(
    (
        "float32",
        "float64",
        "float32, bfloat16 states",
        "float32, int8 states",
        "bfloat16, stochastic, float16 states",
        "bfloat16, kahan, bfloat16 states",
        "split8, int8 states",
        "split16",
    )
)
FEW = [case for case in CASES if case[0] in ("Momentum", "AdamW") and "maximize" in case[1]]  # with everything around


def numbers(size, dtype, seed):
    """Return random numbers of many sizes, some of them not finite."""
    rng = np.random.default_rng(seed)
    a = (rng.normal(size=size) * 2.0 ** rng.integers(-60, 20, size)).astype(dtype)
    a[::97] = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40], len(a[::97])).astype(dtype)
    return a


@every_case
@every_dtype
@pytest.mark.parametrize("draw", [random, numbers])
def test_every_optimizer_is_its_expression_to_the_bit(case, dtype, draw):
    """Also where LLVM has packed loops: 1031 elements are many registers and a remainder."""
    name, kwargs = case
    p = random(1031, dtype, 1)
    opt = make(case, p)
    arrays = [p, *opt.state.values()]
    for step in range(1, 13):
        g = draw(1031, dtype, 1 + step)
        wanted = expression(name, arrays[0].copy(), g, [a.copy() for a in arrays[1:]], step, **kwargs)
        opt.step(g)
        for given, right in zip(arrays, wanted, strict=True):
            nan = np.isnan(right)
            np.testing.assert_array_equal(np.isnan(given), nan)
            assert_same_bits([given[~nan]], [right[~nan]])


def digests(cases):
    """Return what each of `cases`, in each storage, comes to, as text."""
    lines = []
    for case in cases:
        for chosen in STORAGES.values():
            kind, storage = dtype_of(chosen.param), chosen.options | {"seed": 3}
            if "state_dtype" in storage and not OPTIMIZERS[case[0]].with_hyperparameters(**case[1]).active_states():
                continue
            p = random(2500, F32, 1).astype(kind)
            opt = make(case, p, **storage, reproducible=True)
            for step in range(6):
                g = random(2500, F32, 2 + step)
                g[7] = np.inf if step == 3 else g[7]
                opt.step(g)
            written = [p, *opt.state.values()]
            # What a NaN looks like is not said.
            plain = [a.view(np.uint16) if a.dtype == BF16 else a for a in written]
            plain = [np.nan_to_num(a, nan=0.5) if a.dtype.kind == "f" else a for a in plain]
            if kind is BF16:
                plain[0][np.isnan(written[0].astype(F32))] = 0
            digest = hashlib.sha256(b"".join(a.tobytes() for a in plain)).hexdigest()[:16]
            lines.append(f"{name_of(case)} {kind.__name__} {storage} {digest}")
    return "\n".join(lines)


#: And what they must have that is here.
PROCESSORS = {"haswell": "fma", "skylake-avx512": "avx512bw", "generic": "sse2"}


def run_on(processor, cases):
    if not features.get(PROCESSORS[processor]):
        pytest.skip(f"this processor has no {PROCESSORS[processor]}")
    script = f"""
from numba.core.registry import cpu_target
from tests.test_reproducible import *
assert cpu_target.target_context.codegen().magic_tuple()[1] == {processor!r}
print(digests({cases}))
"""
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    run = [sys.executable, "-c", script]
    done = subprocess.run(
        run, check=False, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@reads_x86
@pytest.mark.parametrize(
    "processor",
    [pytest.param(name, marks=pytest.mark.slow if k else pytest.mark.ci) for k, name in enumerate(PROCESSORS)],
)
def test_the_same_bits_on_every_processor(processor):
    """Their instructions have fused operations and 4 to 16 numbers in a register, or none and 4."""
    assert run_on(processor, "FEW") == digests(FEW)


@reads_x86
@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_all_cases_on_every_processor(processor):
    assert run_on(processor, "CASES") == digests(CASES)


def fused(instructions):
    return count(instructions, r"vf(n?m)(add|sub)\w*p[sd]")


@reads_x86
@every_one_of(STORAGES.values())
def test_operations_are_fused_where_that_is_allowed(storage, monkeypatch):
    """Which they are in the package's own code: otherwise the tests above would say nothing."""
    p = random(4000, F32, 1).astype(dtype_of(storage.param))
    opt = fastopt.Adam(p, **storage.options)
    opt.step(random(4000, F32, 2))
    plain = storage.name in ("float32", "float64")
    for reproducible in (None, True, False):
        opt.reproducible = reproducible
        (group,) = opt._groups
        spec = opt.spec(group.codecs)
        assert spec.reproducible == (plain if reproducible is None else reproducible)
        assert (fused(kernel_lines(spec, False, monkeypatch)) == 0) == spec.reproducible


@pytest.mark.parametrize("storage", [{}, {"state_dtype": "bfloat16"}], ids=str)
def test_it_is_a_hyperparameter(storage):
    """In the repr and in checkpoints; the default is for each array by what is stored, and is not written."""
    opt = fastopt.Adam(np.ones(5, F32), **storage)
    assert opt.reproducible is None
    assert "reproducible=None" in repr(opt)
    assert "reproducible" not in opt.state_dict()
    other = fastopt.Adam(np.ones(5, F32), **storage, reproducible=False)
    assert "reproducible=False" in repr(other)
    assert other.state_dict()["reproducible"] is False
    opt.load_state_dict(other.state_dict())
    assert opt.reproducible is False


def test_functions_and_compiled_code_take_it():
    g = random(1031, F32, 2)
    bits = {}
    for reproducible in (True, False):
        update = fastopt.jitable(fastopt.Adam, reproducible=reproducible)

        @numba.njit
        def train(p, g, m, v, update=update):
            for step in range(1, 9):
                update(p, g, m, v, step, 0.1)

        p, q, r = (random(1031, F32, 1) for _ in range(3))
        states, others = ([np.zeros_like(p), np.zeros_like(p)] for _ in range(2))
        opt = fastopt.Adam(r, lr=0.1, reproducible=reproducible)
        for step in range(1, 9):
            fastopt.adam(p, g, *states, step=step, lr=0.1, reproducible=reproducible)
            opt.step(g)
        train(q, g, *others)
        assert_same_bits([p, p], [q, r])
        bits[reproducible] = p
    if features.get("fma"):
        assert (bits[True] != bits[False]).any()


@pytest.mark.parametrize("reproducible", [True, False])
def test_scalars_in_compiled_code_are_never_fused(reproducible):
    """Powers, corrections and decay have the bits that Python gives them, whatever becomes of the elements."""
    settings = {"weight_decay": 0.0137, "reproducible": reproducible}
    update = fastopt.jitable(fastopt.AdamW, **settings)

    @numba.njit
    def step_once(p, g, m, v, step, lr):
        update(p, g, m, v, step, lr)

    x, g = random(257, np.float64, 1), random(257, np.float64, 2)
    for step in range(1, 3000, 7):
        lr = 0.3 / (1 + step % 37)
        arrays, others = ([x.copy(), np.zeros_like(x), np.zeros_like(x)] for _ in range(2))
        fastopt.adamw(arrays[0], g, *arrays[1:], step=step, lr=lr, **settings)
        step_once(others[0], g, *others[1:], step, lr)
        assert_same_bits(arrays, others)


BASES = [0.9, 0.999, 0.5, 0.99999, 0.0, 1e-3, float(np.nextafter(1, 0))]
EXPONENTS = [*range(1, 40), 255, 256, 257, 511, 512, 1000, 12345, 65535, 65536, 99999]


def test_powers_are_the_nearest_float64():
    for base in BASES:
        for exponent in EXPONENTS:
            assert power(base, exponent) == nearest(base, exponent), (base, exponent)


def test_powers_have_the_same_bits_in_compiled_code():
    @numba.njit
    def compiled(bases, exponents, out):
        for k in range(len(bases)):
            out[k] = power(bases[k], float(exponents[k]))

    rng = np.random.default_rng(0)
    exponents = [*EXPONENTS, *map(int, 2.0 ** rng.uniform(0, 52, 300))]
    bases = [*(BASES * len(exponents))[: len(exponents)]]
    out = np.zeros(len(exponents))
    compiled(np.array(bases), np.array(exponents), out)
    assert out.tolist() == [power(b, n) for b, n in zip(bases, exponents, strict=True)]


def test_no_more_powers_are_kept_than_are_of_use():
    for base in np.linspace(0, 0.99, 100).tolist():
        assert power(base, 1) == base
    for high in range(100):
        power(0.5, high << 8)
    assert len(_power._rows) <= _power._MOST + 1
    assert all(len(rows) <= _power._MOST + 1 for rows in _power._rows.values())
