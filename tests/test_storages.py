"""Every way to store parameters and states: the same bits however the work is cut, resumed, packed, and its bytes."""

import itertools

import numba
import numpy as np
import pytest

import fastopt
from fastopt._engine import plan
from fastopt._storage.int8 import BLOCK

from .cases import assert_same_bits, random
from .test_codegen import count, kernel_lines
from .test_codegen import pytestmark as reads_x86
from .test_narrow import BF16, F16, F32, arrays_of, bits

STORAGES = [
    (F32, {"state_dtype": "bfloat16"}),
    (F32, {"state_dtype": "int8"}),
    (F32, {"state_dtype": {"m": "bfloat16", "v": "int8"}}),
    (BF16, {}),
    (BF16, {"rounding": "stochastic", "seed": 3}),
    (F16, {"rounding": "stochastic", "state_dtype": "float16"}),
    (F16, {"rounding": "kahan"}),
    (BF16, {"rounding": "kahan", "state_dtype": "bfloat16"}),
    (BF16, {"master": "split8", "state_dtype": "int8"}),
    (BF16, {"master": "split16", "state_dtype": "int8"}),
]
every_storage = pytest.mark.parametrize(("kind", "kwargs"), STORAGES, ids=str)


@every_storage
def test_the_same_bits_for_any_threads_and_chunks(kind, kwargs, monkeypatch):
    size = 2**16 + 1000
    start = [random(size, F32, 1).astype(kind), random(3, F32, 2).astype(kind)]
    grads = [[random(a.size, F32, k + 3).astype(kind) for a in start] for k in range(4)]
    results = []
    before = numba.get_num_threads()
    for threads, chunk in itertools.product({1, before}, [plan.CHUNK, BLOCK, 1 << 20]):
        monkeypatch.setattr(plan.chunks_of, "__defaults__", (chunk,))
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


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [own for own in STORAGES if "int8" not in str(own)] + [(BF16, {"state_dtype": "bfloat16"})],
    ids=str,
)
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
    ("kind", "kwargs", "theory"),
    [
        (F32, {}, 28),
        (F32, {"state_dtype": "bfloat16"}, 20),
        (F32, {"state_dtype": "int8"}, 16 + 2 * 2 * 2 / BLOCK),
        (BF16, {"master": "split8", "state_dtype": "int8"}, 12 + 2 * 2 * 2 / BLOCK),
        (BF16, {"master": "split16", "state_dtype": "int8"}, 14 + 2 * 2 * 2 / BLOCK),
        (BF16, {"rounding": "stochastic", "state_dtype": "int8"}, 10 + 2 * 2 * 2 / BLOCK),
    ],
)
def test_bytes_an_element(kind, kwargs, theory):
    """The gradient is read; all else is read and written."""
    n = 64 * BLOCK
    p, g = np.ones(n, kind), np.ones(n, kind)
    opt = fastopt.Adam(p, **kwargs)
    opt.step(g)
    assert g.nbytes + 2 * sum(a.nbytes for a in arrays_of(opt)) == theory * n


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
    assert group.take(np.dtype(kind))
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
