"""Every optimizer and storage, compiled for a GPU and executed without one: the CPU's results, and no fault."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt._bench import storages
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._engine import streams
from fastopt._kernels import compiler
from fastopt._storage.int8 import BLOCK

from ..cases import (
    CASES,
    assert_same_bits,
    call,
    core_cases_in_turns,
    every_dtype,
    every_one_of,
    in_turns,
    make,
    name_of,
    random,
)
from ..test_cuda import CAPABILITIES
from .check import LAYOUTS, SETTINGS, assert_like_the_cpu, check_against_the_cpu, check_against_the_expression, raw
from .device import arrays_of

BF16, F16, F32, F64 = ml_dtypes.bfloat16, np.float16, np.float32, np.float64


@core_cases_in_turns
def test_every_optimizer(case, dtype, device):
    for layout in LAYOUTS:
        device.reset()
        check_against_the_expression(device, case, dtype, layout)


@in_turns("dtype", [F32, F64], [c for c in CASES if not callable(c[1].get("lr"))], core="alone")
def test_capturable_counts_on_the_device(case, dtype, device):
    check_against_the_expression(device, case, dtype, LAYOUTS[2], capturable=True)


SOME = storages.selected(
    (
        "float32, bfloat16 states",
        "float32, float16 states, bfloat16 gradients",
        "float64, float32 states, float32 gradients",
        "float32, int8 states",
        "bfloat16",
        "float16, stochastic, float32 gradients",
        "bfloat16, stochastic, bfloat16 states, float16 gradients",
        "float16, kahan",
        "bfloat16, kahan, int8 states",
        "split8, int8 states",
        "split16, int8 states, float32 gradients",
    )
)
# With scales the threads of a block work together: in them a barrier matters, and how many states there are.
REDUCED = [("Momentum", s) for s in SOME.values()] + [("Adam", s) for s in SOME.values() if s.states == "int8"]
REDUCED += [("LAMB", SOME["float32, int8 states"])]


def every_pair_of(pairs):
    return pytest.mark.parametrize(("name", "storage"), [pytest.param(*p, id=f"{p[0]}-{p[1].name}") for p in pairs])


@every_pair_of(REDUCED)
def test_every_storage(name, storage, device):
    for layout in LAYOUTS:
        device.reset()
        check_against_the_cpu(device, name, storage, layout)


SEEDED = ("float32, int8 states", "bfloat16, stochastic, bfloat16 states, float16 gradients")


@every_one_of(SOME[name] for name in SEEDED)
def test_capturable_in_storages(storage, device):
    """The step number on the device decides on random bits too."""
    check_against_the_cpu(device, "Momentum", storage, LAYOUTS[4], capturable=True)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [c for c in CAPABILITIES if c != (9, 0)], ids=str)
@every_pair_of([*REDUCED, ("AdamW", storages.STORAGES["float32"]), ("RMSprop", storages.STORAGES["float64"])])
def test_other_devices(name, storage, capability, device):
    with device.of(capability):
        for layout in LAYOUTS:
            device.reset()
            check_against_the_cpu(device, name, storage, layout)


@pytest.mark.slow
@every_pair_of(
    (name, storage)
    for name, storage in itertools.product(SETTINGS, storages.STORAGES.values())
    if OPTIMIZERS[name].states or "state_dtype" not in storage.options
)
def test_every_storage_of_every_optimizer(name, storage, device):
    for layout in LAYOUTS:
        device.reset()
        check_against_the_cpu(device, name, storage, layout)


@pytest.mark.parametrize("case", [("Momentum", {}), ("AdamW", {})], ids=name_of)
@every_dtype
@pytest.mark.parametrize("shifts", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 3, 3)], ids=str)
def test_functions_are_the_classes(case, dtype, shifts, device):
    """Whatever is not aligned to 16 bytes; the caller makes the states."""
    size = BLOCK + 5
    p, g = random(size, dtype, 1), random(size, dtype, 2)
    ours, aligned = device.array(p, "p", shifts[0]), device.array(p, "params")
    opt = make(case, aligned)
    states = {name: device.array(np.zeros(size, dtype), name, shifts[2]) for name in opt.active_states()}
    for step in (1, 2):
        opt.step(device.array(g, "grads", writable=False))
        assert call(case, ours, device.array(g, "g", shifts[1], writable=False), states, step) is ours
    expected = [aligned.array, *(row[0] for row in arrays_of(opt))]
    assert_same_bits([ours.array, *(s.array for s in states.values())], expected)


@pytest.mark.parametrize("kind", [BF16, F16])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_every_number_of_16_bits(kind, rounding, device):
    """As a parameter and as a gradient."""
    p = np.arange(2**16, dtype=np.uint16).view(kind)
    g = np.random.default_rng(1).permutation(p.view(np.uint16)).view(kind)
    ours = device.array(raw(p), "params")
    settings = {"lr": 1.0, "rounding": rounding} | ({"seed": 3} if rounding == "stochastic" else {})
    opt, cpu = fastopt.GD(ours, **settings), fastopt.GD(p, **settings)
    with np.errstate(all="ignore"):
        cpu.step(g)
    opt.step(device.array(raw(g), "grads", writable=False))
    assert_like_the_cpu([ours], opt, [p], cpu)


@pytest.mark.parametrize("shifts", [(0, 0, 0), (1, 0, 0), (0, 3, 0), (0, 0, 2)], ids=str)
def test_functions_in_16_bits(shifts, device):
    p, g = random(BLOCK + 6, F32, 1).astype(BF16), random(BLOCK + 6, F32, 2).astype(F16)
    v = np.zeros(p.size, F16)
    ours = [device.array(raw(a), "array", shift, a is not g) for a, shift in zip((p, g, v), shifts, strict=True)]
    settings = SETTINGS["Momentum"] | {"rounding": "stochastic", "seed": 3}
    for step in (1, 2):
        fastopt.momentum(p, g, v, **settings, step=step)
        fastopt.momentum(*ours, **settings, step=step)
    assert_same_bits([a.array for a in ours], [raw(a) for a in (p, g, v)])


def test_several_dtypes(device):
    """A launch for each, and states that only some of the parameters have."""
    twins = [random(n, F64, n).astype(kind) for n, kind in ((9, F32), (BLOCK + 2, BF16), (5, F64), (300, BF16))]
    params = [device.array(raw(p), "params") for p in twins]
    settings = SETTINGS["Adam"] | {"rounding": "kahan"}
    opt, cpu = fastopt.Adam(list(params), **settings), fastopt.Adam(twins, **settings)
    for step in (1, 2, 3):
        grads = [random(p.size, F64, 10 * step).astype(p.dtype) for p in twins]
        opt.step([device.array(raw(g), "grads", writable=False) for g in grads])
        cpu.step(grads)
        assert_like_the_cpu(params, opt, twins, cpu)
    assert device.launches == 3 * 3


@pytest.mark.parametrize("start", [2**31 - 4 * BLOCK, 2**31, 2**32, 5 * 2**32 + 12 * BLOCK])
def test_elements_beyond_32_bits(start, device):
    """A chunk so far into a tensor that offsets and random bits need 64 bits; what would be before it is not there."""
    size, seed, step = BLOCK + 3, 2**40 + 11, 2**31 + 7
    method = OPTIMIZERS["Momentum"].with_hyperparameters(**SETTINGS["Momentum"])
    spec = method.spec(("bfloat16", "bfloat16-stochastic", "int8"))
    scalars = np.array(method.values(step), F32)
    twins = [raw(random(size, F32, k).astype(BF16)) for k in (2, 1)] + [np.zeros(size, np.uint8), np.zeros(2, np.int16)]
    assert [a.dtype for a in twins] == list(spec.layout.dtypes)
    ours = [device.array(a, f"array {k}", writable=k > 0) for k, a in enumerate(twins)]
    # A scale belongs to a block of elements.
    before = np.array([a.itemsize * (start // (BLOCK if k == 3 else 1)) for k, a in enumerate(twins)])
    chunk = np.array([[0, start, size]])
    table = device.array(np.array([a.address for a in ours]) - before, "table", writable=False)
    chunks = device.array(chunk, "chunks", writable=False)
    kernel = compiler.device_sweep(spec, False, False, 0)
    launch = streams.launcher(kernel, 1, compiler.device_threads(spec, streams.threads()), 0)
    launch(np.uint64(table.address), 1, np.uint64(chunks.address), 1, np.uint64(0), tuple(scalars), seed, step)
    addresses = (np.array([a.ctypes.data for a in twins]) - before).astype(np.uint64)
    compiler.sweep(spec, False)(
        addresses[:, None], np.array([0, 1]), chunk, np.zeros(1, np.int64), scalars[None], seed, step
    )
    assert_same_bits([a.array for a in ours], twins)
    assert twins[3].all()
