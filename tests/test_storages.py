"""Every way to store parameters and states: the same bits however the work is cut, resumed, packed, and its bytes."""

import itertools

import numba
import numpy as np
import pytest

import fastopt
from fastopt._bench import measure, storages
from fastopt._engine import chunks
from fastopt._storage import formats
from fastopt._storage.int8 import BLOCK

from .cases import assert_same_bits, dtype_of, random
from .test_codegen import count, kernel_lines
from .test_codegen import pytestmark as reads_x86
from .test_narrow import BF16, F16, F32, arrays_of, bits

SOME = [
    *storages.selected(("float32, bfloat16 states", "float32, int8 states")).values(),
    storages.STORAGES["float32"]._replace(states={"m": "bfloat16", "v": "int8"}),
    *storages.selected(
        (
            "bfloat16",
            "bfloat16, stochastic",
            "float16, stochastic, float16 states",
            "float16, kahan",
            "bfloat16, kahan, bfloat16 states",
            "split8, int8 states",
            "split16, int8 states",
        )
    ).values(),
]


def unpacked(chosen):
    """Return a mark that runs a test with the dtype of the parameters and gradients of each, and its options."""
    given = [pytest.param(dtype_of(s.param), s.options | {"seed": 3}, id=s.name) for s in chosen]
    return pytest.mark.parametrize(("kind", "kwargs"), given)


every_storage = unpacked(SOME)


def test_the_list_has_all_that_is_accepted():
    """And nothing else; each by a name of its own, with options that say it."""
    accepted = set()
    grads = {grad: np.dtype(np.uint16 if grad == "bfloat16" else grad) for grad in storages.FORMATS.values()}
    roundings, masters = [*formats.ROUNDINGS, "down"], [None, *formats.MASTERS, "split4"]
    for param, rounding, master in itertools.product(grads, roundings, masters):
        for states in ("float64", "float32", "bfloat16", "float16", "int8"):
            try:
                opt = fastopt.Adam(np.ones(2, dtype_of(param)), state_dtype=states, rounding=rounding, master=master)
            except (TypeError, ValueError):
                continue
            (group,) = opt._groups
            for grad, dtype in grads.items():
                if group.use_dtype(dtype):
                    accepted.add(storage := storages.Storage(param, grad, states, rounding, master))
                    assert storages.STORAGES[storage.name] == storage
                    assert group.codecs == storage.codecs()
                    assert fastopt.Adam(np.ones(2, dtype_of(param)), **storage.options)._codecs == [
                        storage.codecs()[1:]
                    ]
    assert accepted == set(storages.STORAGES.values())
    assert len(storages.STORAGES) == len(accepted)


def test_a_storage_with_states_in_formats_of_their_own():
    storage = SOME[2]
    assert storage.name == "float32, m in bfloat16, v in int8"
    assert storage.codecs() == ("float32", "float32", "bfloat16-stochastic", "uint8")
    assert storages.STORAGES["float16"].codecs(fastopt.GD) == ("float16", "float16")


@every_storage
def test_the_same_bits_for_any_threads_and_chunks(kind, kwargs, monkeypatch):
    size = 2**16 + 1000
    start = [random(size, F32, 1).astype(kind), random(3, F32, 2).astype(kind)]
    grads = [[random(a.size, F32, k + 3).astype(kind) for a in start] for k in range(4)]
    results = []
    before = numba.get_num_threads()
    for threads, chunk in itertools.product({1, before}, [chunks.CHUNK, BLOCK, 1 << 20]):
        monkeypatch.setattr(chunks.chunks_of, "__defaults__", (chunk,))
        numba.set_num_threads(threads)
        try:
            opt = fastopt.Adam([a.copy() for a in start], **kwargs)
            for g in grads:
                opt.step(g)
        finally:
            numba.set_num_threads(before)
        results.append([bits(a) for a in arrays_of(opt)])
    for other in results[1:]:
        assert_same_bits(results[0], other)


@unpacked([*(s for s in SOME if "int8" not in s.name), storages.STORAGES["bfloat16, bfloat16 states"]])
def test_an_element_does_not_see_how_many_there_are(kind, kwargs):
    """The last few of an array, which may be updated one by one, are as they are in the middle of a longer one."""

    def run(size):
        opt = fastopt.Adam(random(200, F32, 1)[:size].astype(kind), **kwargs)
        for step in range(3):
            opt.step(random(200, F32, 2 + step)[:size].astype(kind))
        return [bits(a) for a in arrays_of(opt)]

    every = run(200)
    for size in (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127):
        assert_same_bits(run(size), [a[:size] for a in every])


@pytest.mark.parametrize("kinds", list(itertools.permutations([F32, BF16, np.float64])), ids=str)
@pytest.mark.parametrize("kwargs", [{"rounding": "kahan"}, {"master": "split8"}, {"master": "split16"}], ids=str)
def test_parameters_of_several_formats(kwargs, kinds):
    """Some have arrays beside them that others lack; each is updated as it would be alone, whichever comes first."""
    start = [random(3000, F32, k).astype(kind) for k, kind in enumerate(kinds)]
    grads = [[random(3000, F32, 10 * step + k).astype(kind) for k, kind in enumerate(kinds)] for step in range(3)]
    together = fastopt.Adam([p.copy() for p in start], **kwargs)
    for g in grads:
        together.step(g)
    for t, p in enumerate(start):
        alone = fastopt.Adam(p, **(kwargs if kinds[t] is BF16 else {}))
        for g in grads:
            alone.step(g[t])
        found = [together.params[t], *(row[t] for row in together.state.values() if row[t] is not None)]
        names = {name for name, row in together.state.items() if row[t] is not None}
        assert names == set(alone.state)
        right = [p, *(alone.state[name] for name in together.state if name in names)]
        assert_same_bits([bits(a) for a in found], [bits(a) for a in right])


@every_storage
def test_resume_from_a_file_without_pickle(kind, kwargs, tmp_path):
    p, grads = random(1300, F32, 1).astype(kind), [random(1300, F32, k).astype(kind) for k in range(2, 8)]
    opt = fastopt.Adam({"w": p}, **kwargs)
    for g in grads[:3]:
        opt.step({"w": g})
    np.savez(tmp_path / "a.npz", **opt.state_dict())
    q = p.copy()
    again = fastopt.Adam({"w": q}, **kwargs | {"seed": 99})  # the checkpoint knows better
    again.load_state_dict(np.load(tmp_path / "a.npz", allow_pickle=False))
    for g in grads[3:]:
        opt.step({"w": g})
        again.step({"w": g})
    assert_same_bits([bits(a) for a in arrays_of(opt)], [bits(a) for a in arrays_of(again)])
    assert again.state_dict()["seed"] == opt.state_dict()["seed"] != 99
    with pytest.raises((TypeError, ValueError)):
        fastopt.Adam({"w": np.ones(1300)}).load_state_dict(opt.state_dict())


@every_storage
def test_a_failed_step_leaves_everything_as_it_was(kind, kwargs):
    p = random(600, F32, 1).astype(kind)
    opt = fastopt.Adam(p, **kwargs)
    g = random(600, F32, 2).astype(kind)
    opt.step(g)
    before = [bits(a).copy() for a in arrays_of(opt)]
    for bad in (g[:-1], g.astype(np.float64), g.astype(np.int16), None if opt._plan.arrays.bound else "grads"):
        with pytest.raises((TypeError, ValueError)):
            opt.step(bad)
    opt.lr = 1e300
    with pytest.raises(ValueError, match="too large for float32"):
        opt.step(g)
    assert_same_bits(before, [bits(a) for a in arrays_of(opt)])
    assert opt.step_count == 1


@pytest.mark.parametrize(
    ("name", "theory"),
    [
        ("float32", 28),
        ("float32, bfloat16 states", 20),
        ("float32, int8 states", 16 + 2 * 2 * 2 / BLOCK),
        ("split8, int8 states", 12 + 2 * 2 * 2 / BLOCK),
        ("split16, int8 states", 14 + 2 * 2 * 2 / BLOCK),
        ("bfloat16, stochastic, int8 states", 10 + 2 * 2 * 2 / BLOCK),
        ("bfloat16, kahan, float32 gradients", 28),
    ],
)
def test_bytes_an_element(name, theory):
    """The gradient is read; all else is read and written."""
    n, storage = 64 * BLOCK, storages.STORAGES[name]
    p, g = np.ones(n, dtype_of(storage.param)), np.ones(n, dtype_of(storage.grad))
    opt = fastopt.Adam(p, **storage.options)
    opt.step(g)
    written = sum(a.nbytes for a in arrays_of(opt))
    found = measure.bytes_of(storage.codecs())
    assert found == measure.bytes_of(opt._groups[0].codecs) == ((g.nbytes + written) / n, written / n)
    assert found.moved == theory


@every_storage
def test_what_is_shown(kind, kwargs):
    opt = fastopt.Adam(np.asfortranarray(np.ones((7, 90), kind)), **kwargs)
    opt.step(np.asfortranarray(np.full((7, 90), 0.5, kind)))
    for name in ("params", "m", "v"):
        assert opt.decoded(name).dtype == F32
        assert opt.decoded(name).shape == (7, 90)
    np.testing.assert_allclose(opt.decoded("m"), 0.05, rtol=0.13)
    np.testing.assert_allclose(opt.decoded("v"), 0.00025, rtol=0.13)
    with pytest.raises(ValueError, match="name must be one of params, m, v; got 'u'"):
        opt.decoded("u")


@reads_x86
@every_storage
def test_the_loop_is_packed(kind, kwargs, monkeypatch):
    """Arithmetic and conversions in whole registers; at most the remainder one by one."""
    opt = fastopt.Adam(np.ones(3, kind), **kwargs)
    group = opt._groups[0]
    assert group.use_dtype(np.dtype(kind))
    lines = kernel_lines(opt.spec(group.codecs), False, monkeypatch)
    for instruction in (r"v(mul|fn?m(add|sub)\d+)ps", "vsqrtps", "vdivps"):
        assert any(count(lines, instruction, wide) for wide in ("%zmm", "%ymm")), instruction
    layout = opt.spec(group.codecs).layout
    assert layout.narrow == (kind is BF16 and kwargs.get("state_dtype") == "bfloat16")
    loops = 2 if layout.scales else 3 if layout.narrow else 1  # with marked blocks; pairs, and the last one
    assert count(lines, "vsqrtss") <= loops
    assert count(lines, "vdivss") <= loops
    assert not [
        operands for op, operands in lines if op.startswith("call") and ("trunc" in operands or "ext" in operands)
    ]
    # Two at a time, bfloat16 are widened and narrowed by shifts or, where a processor is quicker at it, permuted.
    moves = (r"vpslld|vpermw", r"vpsrld|vpermw") if layout.narrow else (r"vpmovzxwd", r"vpsrld")
    names = {BF16: moves, F16: (r"vcvtph2psx?", r"vcvtps2phx?")}.get(kind, ())
    if "int8" in str(kwargs):
        names = (*names, r"vpmovzxbd", r"vpmaxu?[sd]d?")
    for instruction in names:
        assert any(count(lines, instruction, wide) for wide in ("%zmm", "%ymm")), instruction
