"""States in fewer bytes: every conversion to the bit, every optimizer against the oracle, packed code, checkpoints."""

import itertools

import ml_dtypes
import numba
import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._engine import chunks
from fastopt._kernels import access
from fastopt._kernels.targets import CPU
from fastopt._storage import formats, random_bits
from fastopt._storage.evaluator import Builder, value

from . import bounds
from .cases import CASES, assert_same_bits, by_ci, in_turns, random
from .oracles import answer
from .test_codegen import count, kernel_lines
from .test_codegen import pytestmark as reads_x86

# The name, what NumPy or ml_dtypes calls it, the dtype of the parameters.
FORMATS = [
    ("bfloat16", ml_dtypes.bfloat16, np.float32),
    ("float16", np.float16, np.float32),
    ("float32", np.float32, np.float64),
]
every_format = pytest.mark.parametrize(("name", "kind", "dtype"), FORMATS, ids=[f[0] for f in FORMATS])
STATEFUL = [case for case in CASES if OPTIMIZERS[case[0]].with_hyperparameters(**case[1]).active_states()]
every_stateful_by_ci = by_ci(STATEFUL, core=True)
every_stateful_in_turns = in_turns("name kind dtype", FORMATS, STATEFUL, ids=lambda f: f[0], core=True)


def make(case, params, state_dtype):
    name, kwargs = case
    return getattr(fastopt, name)(params, state_dtype=state_dtype, **kwargs)


def numbers(dtype, count=400_000):
    """Return numbers of every size, NaN, infinities, subnormals, and those halfway between two of a narrower format."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 ** (8 * dtype().itemsize), count, np.dtype(f"u{dtype().itemsize}"))
    drop = {4: (0xFFFF, 0x8000), 8: (0x1FFFFFFF, 0x10000000)}[dtype().itemsize]
    halves = (bits & ~bits.dtype.type(drop[0])) | bits.dtype.type(drop[1])
    f16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(dtype)
    near = np.concatenate(
        [f16, np.nextafter(f16, dtype(np.inf)), np.nextafter(f16, dtype(-np.inf)), (f16 + np.roll(f16, 1)) / 2]
    )
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)
    return np.concatenate([bits.view(dtype), halves.view(dtype), near, special])


@every_format
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_narrowing_is_that_of_numpy_and_ml_dtypes(name, kind, dtype):
    """With beta = 0 and no dampening the velocity is the gradient."""
    g = numbers(dtype)
    opt = fastopt.Momentum(np.zeros_like(g), beta=0.0, dampening=0.0, state_dtype=name)
    opt.step(g)
    given, wanted = opt.state["v"], (g + dtype(0)).astype(kind)  # 0 * v + g: no negative zero
    if kind == np.float32:
        small = np.abs(g) < np.finfo(kind).smallest_normal
        wanted[small] = np.copysign(kind(0), wanted[small])
    assert given.dtype == kind
    nan = np.isnan(wanted)
    assert nan.any()
    assert np.isnan(given[nan]).all()
    if name == "bfloat16":  # rounded at random: to one of the two that the number lies between, or to itself
        wide, exact = given.astype(np.float64), g.astype(np.float64)
        below = np.where(wide <= exact, given, np.nextafter(given, kind(-np.inf))).astype(np.float64)
        above = np.where(wide >= exact, given, np.nextafter(given, kind(np.inf))).astype(np.float64)
        assert ((below <= exact) & (exact <= above))[~nan].all()
        same = exact == wanted.astype(np.float64)
        np.testing.assert_array_equal(given[same & ~nan], wanted[same & ~nan])
        given, wanted, nan, g = given[nan], wanted[nan], nan[nan], g[nan]
    np.testing.assert_array_equal(raw(given[~nan]), raw(wanted[~nan]))
    np.testing.assert_array_equal(np.signbit(given[nan]), np.signbit(g[nan]))


@pytest.mark.parametrize(("name", "kind"), [("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)])
def test_widening_of_all_65536_patterns(name, kind):
    """With beta = 1/2, dampening = 1 and lr = 2 the parameter becomes the negative of the state."""
    every = np.arange(2**16, dtype=np.uint16).view(kind)
    p = np.zeros(2**16, np.float32)
    opt = fastopt.Momentum(p, lr=2.0, beta=0.5, dampening=1.0, state_dtype=name)
    opt.state["v"][...] = every
    opt.step(np.zeros_like(p))
    wanted = -every.astype(np.float32)
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(p), nan)
    np.testing.assert_array_equal(p[~nan], wanted[~nan])


def raw(array):
    return array.view(f"u{array.itemsize}")


@every_stateful_in_turns
@pytest.mark.parametrize("size", [0, 1, 7, 1025])
def test_against_the_oracle(case, name, kind, dtype, size):
    """The parameter is off by its roundings; a state also by half a unit of its own format, or a unit at random."""
    p = random(size, dtype, 1)
    opt = make(case, p, name)
    for step in (1, 2, 3):
        g = random(size, dtype, 1 + step)
        old = [p.copy(), *(a.astype(dtype) for a in opt.state.values())]
        opt.step(g)
        right = answer(case[0], old[0], g, old[1:], step, **case[1])
        assert np.max(right[0].excess(p), initial=0) <= 1
        for new, exact in zip(opt.state.values(), right[1:], strict=True):
            assert new.dtype == kind
            off = np.abs(new.astype(np.longdouble) - exact.value)
            assert (off <= bounds.of_state(exact.value, name, dtype) + exact.error).all()


@every_format
def test_some_states_only(name, kind, dtype):
    p, g = random(100, dtype, 1), random(100, dtype, 2)
    opt = fastopt.Adam(p, state_dtype={"m": name})
    opt.step(g)
    assert opt.state["m"].dtype == kind
    assert opt.state["v"].dtype == dtype
    q = random(100, dtype, 1)
    full = fastopt.Adam(q)
    full.step(g)
    assert_same_bits([opt.state["v"], p], [full.state["v"], q])  # the first step reads zeros
    if name != "bfloat16":
        np.testing.assert_array_equal(raw(opt.state["m"]), raw(full.state["m"].astype(kind)))


@every_format
def test_the_same_bits_however_it_is_cut(name, kind, dtype, monkeypatch):
    p, grads = random(2**17 + 5, dtype, 1), [random(2**17 + 5, dtype, k) for k in (2, 3)]
    results = []
    before = numba.get_num_threads()
    cuts = [[], [3, 70_000], [1, 2, 3, 4, 5, 100_001]]
    if name == "bfloat16":
        cuts = cuts[:1]  # what is rounded at random depends on the tensor and the place in it, and on nothing else
    for threads, cut, chunk in itertools.product({1, before}, cuts, [chunks.CHUNK, 64, 1 << 20]):
        monkeypatch.setattr(chunks.chunks_of, "__defaults__", (chunk,))
        numba.set_num_threads(threads)
        try:
            pieces = np.split(p.copy(), cut)
            opt = fastopt.Adam(pieces, state_dtype=name)
            for g in grads:
                opt.step(np.split(g, cut))
        finally:
            numba.set_num_threads(before)
        results.append([np.concatenate(row) for row in (pieces, *opt.state.values())])
    for other in results[1:]:
        assert_same_bits(results[0], other)


@every_format
def test_checkpoints_hold_the_exact_state_without_pickle(name, kind, dtype, tmp_path):
    p, grads = random(50, dtype, 1), [random(50, dtype, k) for k in range(4)]
    opt = fastopt.Adam({"w": p}, state_dtype=name)
    for g in grads[:2]:
        opt.step({"w": g})
    np.savez(tmp_path / "a.npz", **opt.state_dict())
    q = p.copy()
    again = fastopt.Adam({"w": q}, state_dtype=name)
    again.load_state_dict(np.load(tmp_path / "a.npz", allow_pickle=False))
    for g in grads[2:]:
        opt.step({"w": g})
        again.step({"w": g})
    states = [(a["w"], b["w"]) for a, b in zip(opt.state.values(), again.state.values(), strict=True)]
    assert_same_bits([p, *(a for a, _ in states)], [q, *(b for _, b in states)])
    shown = opt.state_dict()
    shown |= {f"{s}/w": opt.state[s]["w"].copy() for s in ("m", "v")}  # as the user sees them, bfloat16 by name
    again.load_state_dict(shown)
    with pytest.raises(TypeError, match=f"dtype (of the state, )?float{8 * p.itemsize}"):
        fastopt.Adam({"w": q}).load_state_dict(opt.state_dict())
    with pytest.raises(TypeError, match=r"m/w must have (the dtype of the state|dtype float32 or float64)"):
        again.load_state_dict(shown | {"m/w": p.astype(np.longdouble)})


def test_orders_shapes_and_empty_arrays():
    for order, shape in itertools.product("CF", [(), (0,), (3, 4), (2, 1, 5)]):
        p = np.asarray(random(shape, np.float32, 1), order=order)
        g = np.asarray(random(shape, np.float32, 2), order=order)
        opt = fastopt.Adam(p, state_dtype="float16")
        opt.step(g)
        m = opt.state["m"]
        assert m.shape == p.shape
        assert m.flags.f_contiguous == p.flags.f_contiguous
        np.testing.assert_array_equal(m, (g * np.float32(1 - 0.9)).astype(np.float16))


class TestRoundingAtRandom:
    def rounded(self, value, size=4096, steps=1, tensors=1):
        """Return what bfloat16 makes of a value, as (steps, tensors, size)."""
        g = [np.full(size, value, np.float32) for _ in range(tensors)]
        opt = fastopt.Momentum([np.zeros_like(a) for a in g], beta=0.0, dampening=0.0, state_dtype="bfloat16")
        found = []
        for _ in range(steps):
            opt.step(g)
            found.append([a.astype(np.float32) for a in opt.state["v"]])
        return np.array(found)

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
    def test_up_as_often_as_it_is_near(self, share):
        up = self.rounded(1 + share * 2**-7, size=256, steps=400, tensors=3) > 1
        trials = up.shape[0]
        spread = np.sqrt(share * (1 - share) / trials)
        assert abs(up.mean() - share) < 0.01
        for axis in ((1, 2), (0, 1), (0, 2)):  # in each step, for each element, in each tensor
            assert np.abs(up.mean(axis=axis) - share).max() < 5 * spread
        assert np.abs(up.mean(axis=0) - share).max() < 5.5 * spread

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
    def test_over_steps_and_elements_more_evenly_than_by_chance(self, share):
        up = self.rounded(1 + share * 2**-7, size=256, steps=400, tensors=3) > 1
        for axis in (0, 2):
            counts = np.diff(np.cumsum(up, axis=axis).take(range(0, up.shape[axis], 50), axis=axis), axis=axis)
            assert np.abs(counts - 50 * share).max() <= 5
            assert counts.std() < 0.5 * np.sqrt(50 * share * (1 - share))
        assert not (up[:, 0] == up[:, 1]).all()  # tensors start at different places

    def test_an_average_that_would_stand_still_moves(self):
        """0.999 of it is nearer to itself than to the next bfloat16: rounded to the nearest it would stay for ever."""
        size, steps = 10_000, 1000
        opt = fastopt.Momentum(np.zeros(size, np.float32), beta=0.999, state_dtype="bfloat16")
        opt.state["v"][...] = 1
        for _ in range(steps):
            opt.step(np.zeros(size, np.float32))
        left = opt.state["v"].astype(np.float64)
        assert ml_dtypes.bfloat16(0.999) == 1
        unit = 2.0**-9  # of numbers between 1/4 and 1/2
        assert abs(left.mean() - 0.999**steps) < unit
        assert np.abs(left - 0.999**steps).max() < 8 * unit

    def test_the_elements_beyond_2_to_the_32(self):
        """The key of a chunk changes with the upper half of its start."""

        key_of = access.of(CPU, "float32 float32").key

        @numba.njit
        def keys(seed, step, tensor, first):
            return key_of(seed, step, tensor, first)

        every = itertools.product((0, 1, 2**32), (0, 1), (0, 1), (0, 2**32, 2**33))
        found = [(numbers, keys(*numbers)) for numbers in every]
        assert len({key for _, key in found}) == 36
        for numbers, key in found:
            assert key == int(random_bits.key(Builder(), *(value(np.int64(n)) for n in numbers)).array)
        assert keys(0, 3, 0, 5) == keys(0, 3, 0, 2**32 - 1)


def test_two_dtypes_at_once():
    p = [random(5, np.float32, 1), random(5, np.float64, 1)]
    opt = fastopt.Momentum(p, state_dtype="float32")
    opt.step([np.ones(5, np.float32), np.ones(5)])
    assert [a.dtype for a in opt.state["v"]] == [np.float32, np.float32]
    with pytest.raises(
        TypeError, match="state_dtype of float64 parameters must be one of float64, float32; got bfloat16"
    ):
        fastopt.Momentum(p, state_dtype="bfloat16")


@pytest.mark.parametrize(
    ("cls", "state_dtype", "words"),
    [
        ("Adam", np.int16, "state_dtype must be one of"),
        ("Adam", 3, "state_dtype must be one of"),
        ("Adam", object(), "state_dtype must be one of"),
        (
            "Adam",
            "float64",
            "state_dtype of float32 parameters must be one of float32, bfloat16, float16, int8; got float64",
        ),
        ("Adam", {"u": "bfloat16"}, "state_dtype names the state 'u'; Adam has m, v"),
        ("Adam", {"m": "bf16"}, "got 'bf16'"),
        ("GD", "bfloat16", "GD with these hyperparameters has no states"),
    ],
)
def test_what_is_refused(cls, state_dtype, words):
    with pytest.raises(TypeError) as caught:
        getattr(fastopt, cls)(np.ones(3, np.float32), state_dtype=state_dtype)
    assert words in str(caught.value)


def test_ways_to_name_a_format():
    for given in ("bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)):
        assert formats.name_of(given) == "bfloat16"
    assert [formats.name_of(d) for d in (np.float16, "float32", np.dtype("f8"))] == ["float16", "float32", "float64"]


def test_without_ml_dtypes_the_bits_are_shown(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    opt = fastopt.Momentum(np.ones(3, np.float32), beta=0.0, state_dtype="bfloat16")
    opt.step(np.ones(3, np.float32))
    assert opt.state["v"].dtype == np.uint16
    assert (opt.state["v"] == 0x3F80).all()


def test_the_memory_is_what_it_says():
    n = 10_000
    sizes = {}
    for name in (None, "bfloat16"):
        opt = fastopt.Adam(np.ones(n, np.float32), state_dtype=name)
        sizes[name] = sum(a.nbytes for a in opt.state.values())
    assert sizes == {None: 8 * n, "bfloat16": 4 * n}


@reads_x86
@in_turns("name kind dtype", FORMATS, STATEFUL, ids=lambda f: f[0], core="alone")
def test_the_loop_is_packed(case, name, kind, dtype, monkeypatch):
    """Conversions and arithmetic in whole registers; no calls for conversions, at most the remainder one by one."""
    opt = make(case, np.ones(3, dtype), name)
    lines = kernel_lines(opt.spec(opt._groups[0].codecs), False, monkeypatch)
    suffix = "ps" if dtype is np.float32 else "pd"
    assert any(count(lines, rf"v(mul|fn?m(add|sub)\d+){suffix}", wide) for wide in ("%zmm", "%ymm"))
    widen, narrow = {
        "bfloat16": (r"vpslld", r"vpsrld"),
        "float16": (r"vcvtph2psx?", r"vcvtps2phx?"),
        "float32": (r"vcvtps2pd", r"vcvtpd2ps"),
    }[name]
    for instruction in (widen, narrow):
        assert any(count(lines, instruction, wide) for wide in ("%zmm", "%ymm")), instruction
    assert not [operands for op, operands in lines if op.startswith("call") and "trunc" in operands]
