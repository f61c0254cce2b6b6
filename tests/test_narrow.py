"""Parameters and gradients of 16 bits, hidden bits, 8-bit states: whole steps, held to the codecs and to the oracle."""

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._storage import formats

from . import bounds
from .cases import assert_same_bits, call, core_cases_by_ci, first_states, in_turns, random
from .oracles import answer

BF16, F16, F32 = ml_dtypes.bfloat16, np.float16, np.float32
kinds = pytest.mark.parametrize("kind", [BF16, F16])
# What a parameter of 16 bits can be.
MODES = [{}, {"rounding": "stochastic"}, {"rounding": "kahan"}, {"master": "split8"}, {"master": "split16"}]


def make(case, params, **kwargs):
    return getattr(fastopt, case[0])(params, **case[1], **kwargs)


def bits(array):
    return np.asarray(array).view(f"u{array.itemsize}")


def arrays_of(opt):
    """Return all arrays that steps write."""
    return [*opt._arrays, *(a for row in opt._states.values() for a in row if a is not None)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's and ml_dtypes', about NaN and infinity
class TestParametersOf16Bits:
    @kinds
    def test_all_patterns_stay_where_nothing_is_added(self, kind):
        every = np.arange(2**16, dtype=np.uint16).view(kind)
        nan = np.isnan(every)
        modes = [{}, {"rounding": "stochastic"}, {"rounding": "kahan"}]
        for kwargs in modes + [{"master": m} for m in ("split8", "split16") if kind is BF16]:
            p = every.copy()
            fastopt.GD(p, lr=0.0, **kwargs).step(np.zeros(2**16, F32))
            np.testing.assert_array_equal(bits(p)[~nan & (every != 0)], bits(every)[~nan & (every != 0)])
            assert np.isnan(p[nan]).all()

    @kinds
    def test_gradients_of_all_patterns(self, kind):
        every = np.arange(2**16, dtype=np.uint16).view(kind)
        for dtype in (F32, np.float64):
            p = np.zeros(2**16, dtype)
            fastopt.GD(p, lr=1.0).step(every)
            wanted = -every.astype(dtype)
            nan = np.isnan(wanted)
            np.testing.assert_array_equal(np.isnan(p), nan)
            np.testing.assert_array_equal(p[~nan], wanted[~nan])

    @kinds
    def test_rounded_to_the_nearest(self, kind):
        g = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32).view(F32)
        p = np.zeros(len(g), kind)
        fastopt.GD(p, lr=1.0).step(g)
        with np.errstate(over="ignore"):
            wanted = (F32(0) - g).astype(kind)
        nan = np.isnan(wanted)
        np.testing.assert_array_equal(bits(p)[~nan], bits(wanted)[~nan])
        assert np.isnan(p[nan]).all()

    @in_turns("kwargs", MODES, core=True)
    @pytest.mark.parametrize("size", [0, 1, 7, 1025])
    def test_against_the_oracle(self, case, kwargs, size):
        """A weight is off by its roundings in float32 and by what the storage leaves out."""
        p = random(size, F32, 1).astype(BF16)
        opt = make(case, p, **kwargs)
        for step in (1, 2, 3):
            g = random(size, F32, 1 + step)
            old = [opt.decoded("params"), *(opt.decoded(name).copy() for name in opt._state_names)]
            opt.step(g)
            right = answer(case[0], old[0], g, old[1:], step, **case[1])
            for name, exact in zip(opt._state_names, right[1:], strict=True):
                assert np.max(exact.excess(opt.decoded(name)), initial=0) <= 1
            exact = right[0].value
            off = np.abs(opt.decoded("params").astype(np.longdouble) - exact)
            assert (off <= bounds.of_weight(exact, "bfloat16", F32, **kwargs) + right[0].error).all()
            shown = np.abs(p.astype(np.longdouble) - exact)
            most = bounds.STOCHASTIC if kwargs == {"rounding": "stochastic"} else bounds.NEAREST
            assert (shown <= bounds.units(exact, "bfloat16") * most * (1 + 1e-2) + right[0].error).all()

    @core_cases_by_ci
    def test_split16_is_training_in_float32_to_the_bit(self, case):
        p = random(2000, F32, 1).astype(BF16)
        full = p.astype(F32)
        opts = make(case, p, master="split16", reproducible=True), make(case, full)
        for step in range(1, 30):
            g = random(2000, F32, 1 + step)
            for opt in opts:
                opt.step(g)
        assert_same_bits([opts[0].decoded("params")], [full])
        for name in opts[0]._state_names:
            assert_same_bits([opts[0].state[name]], [opts[1].state[name]])
        near = full.astype(BF16)
        tie = (bits(full) & 0xFFFF) == 0x8000
        np.testing.assert_array_equal(bits(p)[~tie], bits(near)[~tie])

    @kinds
    def test_nan_and_infinity(self, kind):
        for kwargs in ({}, {"rounding": "stochastic"}, {"rounding": "kahan"}):
            p, g = np.ones(64, kind), np.ones(64, F32)
            g[:4] = np.nan, np.inf, -np.inf, -np.nan
            fastopt.GD(p, lr=0.5, **kwargs).step(g)
            assert np.isnan(p[[0, 3]]).all()
            assert (p[1], p[2]) == (-np.inf, np.inf)
            assert (p[4:] == 0.5).all()

    def test_small_updates_are_lost_to_the_nearest_and_by_nothing_else(self):
        """A step of a 64th of half a unit."""
        size, steps, lr = 20_000, 300, 2.0**-15
        g = np.ones(size, F32)
        expected = 1 - steps * lr
        for kwargs in MODES:
            p = np.ones(size, BF16)
            opt = fastopt.GD(p, lr=lr, **kwargs)
            opt.bind(g)
            for _ in range(steps):
                opt.step()
            mean = opt.decoded("params").astype(np.float64).mean()
            if kwargs:
                assert abs(mean - expected) < 0.02 * (1 - expected), kwargs
            else:
                assert (p == 1).all()

    def test_seeds_steps_and_elements_choose_how_it_is_rounded(self):
        def rounded(seed=0, steps=1, offset=0):
            p = np.ones(4096 + offset, BF16)
            opt = fastopt.GD(p, lr=2.0**-10, rounding="stochastic", seed=seed)
            for _ in range(steps):
                p[:] = 1
                opt.step(np.ones(len(p), F32))
            return bits(p)

        assert (rounded() == rounded()).all()
        np.testing.assert_array_equal(rounded(offset=5)[:4096], rounded())
        for other in (rounded(seed=1), rounded(seed=2**62), rounded(steps=2)):
            assert 0.1 < (other != rounded()).mean() < 0.9
        share = np.mean([rounded(steps=s) < rounded()[0].dtype.type(0x3F80) for s in range(1, 65)])
        assert abs(share - 2.0**-10 / 2.0**-8) < 0.02

    def test_mixed_formats_in_one_optimizer(self):
        names = {"a": BF16, "b": F32, "c": np.float64, "d": BF16}
        p = {name: np.ones(10, kind) for name, kind in names.items()}
        opt = fastopt.Adam(p, lr=0.5, master="split8", state_dtype={"m": "float32"})
        opt.step({name: np.ones(10, np.float64 if kind is np.float64 else F32) for name, kind in names.items()})
        for name, a in p.items():
            np.testing.assert_allclose(a.astype(float), 0.5, rtol=1e-5)
            assert (opt.state["low"][name] is None) == (names[name] is not BF16)
            assert opt.state["v"][name].dtype == (np.float64 if name == "c" else F32)
        saved = opt.state_dict()
        assert "low/a" in saved
        assert "low/b" not in saved
        opt.load_state_dict(saved)

    def test_bits_of_bfloat16_in_uint16(self):
        shown = np.linspace(-1, 1, 33).astype(BF16)
        raw = shown.view(np.uint16).copy()
        g = np.linspace(1, 2, 33).astype(BF16)
        fastopt.Adam(shown).step(g)
        fastopt.Adam(raw).step(g.view(np.uint16))
        np.testing.assert_array_equal(shown.view(np.uint16), raw)

    def test_gradients_of_every_dtype_and_what_is_refused(self):
        p = [np.ones(5, BF16), np.ones(5, BF16)]
        opt = fastopt.GD(p, lr=0.5)
        for kind in (BF16, F16, F32, BF16):
            opt.step([np.zeros(5, kind)] * 1 + [np.zeros(5, kind)])
        before = [a.copy() for a in p]
        bound = [np.ones(5, F32), np.ones(5, F32)]
        opt.bind(bound)
        for grads, kind in [
            ([np.ones(5, F32), np.ones(5, BF16)], TypeError),
            ([np.ones(5), np.ones(5)], TypeError),
            ([np.ones(5, F16), np.ones(4, F16)], ValueError),
            ([p[0], np.ones(5, BF16)], ValueError),
        ]:
            with pytest.raises(kind, match=r"grads|params"):
                opt.step(grads)
            assert_same_bits([a.view(np.uint16) for a in p], [a.view(np.uint16) for a in before])
        opt.step()  # the bound ones, which are of another dtype than those that failed last
        assert all((a == 0.5).all() for a in p)

    def test_gradients_that_reach_further_at_the_same_address(self):
        memory = np.ones(96, F32)
        p = memory[16:32].view(BF16)
        p[:] = 1
        opt = fastopt.GD(p, lr=0.5)
        opt.step(memory[:16].view(BF16))
        before = memory.copy()
        with pytest.raises(ValueError, match="share memory"):
            opt.step(memory[:32])
        np.testing.assert_array_equal(memory, before)

    @pytest.mark.parametrize(
        ("kind", "kwargs", "error", "words"),
        [
            (
                F32,
                {"rounding": "stochastic"},
                TypeError,
                "rounding='stochastic' is for parameters of 16 bits, got float32",
            ),
            (F32, {"master": "split8"}, TypeError, "master='split8' is for parameters in bfloat16, got float32"),
            (F16, {"master": "split16"}, TypeError, "master='split16' is for parameters in bfloat16, got float16"),
            (BF16, {"rounding": "up"}, ValueError, "rounding must be one of nearest, stochastic, kahan; got 'up'"),
            (BF16, {"master": 8}, ValueError, "master must be None or one of split8, split16; got 8"),
            (BF16, {"master": "split8", "rounding": "kahan"}, ValueError, "has no use with master='split8'"),
            (BF16, {"seed": -1}, ValueError, "seed must be an integer >= 0 and below 2^63, got -1"),
            (BF16, {"seed": 0.5}, TypeError, "seed must be an integer >= 0, got 0.5"),
            (BF16, {"state_dtype": "float64"}, TypeError, "state_dtype of bfloat16 parameters must be one of float32"),
            (
                np.float64,
                {"state_dtype": "int8"},
                TypeError,
                "state_dtype of float64 parameters must be one of float64",
            ),
        ],
    )
    def test_what_is_refused(self, kind, kwargs, error, words):
        with pytest.raises(error) as caught:
            fastopt.Adam(np.ones(3, kind), **kwargs)
        assert words in str(caught.value)


class TestFunctions:
    @in_turns("kind state", [(BF16, F32), (BF16, BF16), (F16, F16), (F32, BF16), (np.float64, F32)], core="alone")
    def test_they_are_the_classes(self, case, kind, state):
        p, grads = random(700, F32, 1).astype(kind), [random(700, F32, k).astype(kind) for k in (2, 3)]
        q = p.copy()
        names = OPTIMIZERS[case[0]].with_hyperparameters(**case[1]).active_states()
        opt = make(case, p, state_dtype=state if names else None)
        states = first_states(opt, np.empty(700, state))
        for step, g in enumerate(grads, 1):
            opt.step(g)
            if "step" in call.__code__.co_varnames:
                name, kwargs, lr = case[0], dict(case[1]), case[1].get("lr", opt.lr)
                kwargs["lr"] = lr(step) if callable(lr) else lr
                assert getattr(fastopt, name.lower())(q, g, **states, step=step, **kwargs) is q
        assert_same_bits([bits(a) for a in (p, *opt.state.values())], [bits(a) for a in (q, *states.values())])

    def test_stochastic_rounding_needs_the_step(self):
        p, q, g = np.ones(500, BF16), np.ones(500, BF16), np.full(500, 0.3, F32)
        opt = fastopt.GD(p, lr=0.01, rounding="stochastic", seed=7)
        for step in (1, 2, 3):
            opt.step(g)
            fastopt.gd(q, g, lr=0.01, rounding="stochastic", seed=7, step=step)
        np.testing.assert_array_equal(bits(p), bits(q))
        before = q.copy()
        with pytest.raises(TypeError, match="step must be given"):
            fastopt.gd(q, g, lr=0.01, rounding="stochastic")
        with pytest.raises(ValueError, match="rounding must be nearest or stochastic, got 'kahan'"):
            fastopt.gd(q, g, rounding="kahan")
        with pytest.raises(TypeError, match="rounding='stochastic' is for parameters of 16 bits, got float32"):
            fastopt.gd(np.ones(3, F32), np.ones(3, F32), rounding="stochastic", step=1)
        with pytest.raises(TypeError, match="v must have one of the dtypes float64, float32"):
            fastopt.momentum(np.ones(3), np.ones(3), np.zeros(3, F16))
        np.testing.assert_array_equal(bits(before), bits(q))

    def test_large_arrays_and_chunks(self):
        size = 2**17 + 5
        p, g = random(size, F32, 1).astype(BF16), random(size, F32, 2).astype(BF16)
        q, v = p.copy(), np.zeros(size, BF16)
        opt = fastopt.Momentum(p, state_dtype="bfloat16")
        opt.step(g)
        fastopt.momentum(q, g, v, step=1)
        assert_same_bits([bits(p), bits(opt.state["v"])], [bits(q), bits(v)])


def test_formats_have_names():
    assert formats.rows_of("bfloat16-kahan") == ("compensation",)
    assert formats.rows_of("bfloat16-split8") == ("low",)
    assert formats.rows_of("float32") == ()
