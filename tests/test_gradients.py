"""What is done to gradients in the pass of a step: scaled, clipped by value and by norm, and judged."""

import math

import ml_dtypes
import numba
import numpy as np
import pytest
from numba.core import event

import fastopt
from fastopt._bench.catalog import OPTIMIZERS

from .cases import assert_same_bits, by_ci, random

F32 = np.float32
SIZES = [7, 0, 70_001, 1]


def arrays(dtype=F32, first=0):
    return [random(n, dtype, first + k) for k, n in enumerate(SIZES)]


def everything(opt):
    return [*opt.params, *(a for row in opt.state.values() for a in row)]


def copies(opt):
    return [a.copy() for a in everything(opt)]


DECAY = {"weight_decay": 0.1, "maximize": True}


@by_ci([*((name, {}) for name in OPTIMIZERS), ("GD", DECAY), ("AdamW", DECAY)], core=True)
def test_the_bits_of_a_pass_of_its_own(case):
    """Scaled, then clipped by value, then all that a step does else."""
    name, hyper = case
    one = OPTIMIZERS[name](arrays(), grad_scale=3.0, clip_value=0.25, **hyper)
    two = OPTIMIZERS[name](arrays(), **hyper)
    for step in (1, 2):
        grads = arrays(first=10 * step)
        before = [g.copy() for g in grads]
        one.step(grads)
        assert_same_bits(grads, before)
        two.step([np.clip(g * F32(1 / 3.0), F32(-0.25), F32(0.25)) for g in grads])
    assert_same_bits(everything(one), everything(two))


@pytest.mark.parametrize(("scale", "bound"), [(3.0, None), (None, 0.25)])
def test_each_alone(scale, bound):
    one, two = fastopt.GD(arrays(), grad_scale=scale, clip_value=bound), fastopt.GD(arrays())
    one.step(arrays(first=9))
    factor = F32(1 if scale is None else 1 / scale)
    limit = F32(np.inf if bound is None else bound)
    two.step([np.clip(g * factor, -limit, limit) for g in arrays(first=9)])
    assert_same_bits(one.params, two.params)


def test_functions_and_compiled_code_do_the_same():
    import numba

    hyper = {"beta": 0.5, "grad_scale": 3.0, "clip_value": 0.25, "weight_decay": 0.1}
    p, g = random(100, F32, 1), random(100, F32, 2)
    opt = fastopt.Momentum(p.copy(), lr=0.1, **hyper)
    opt.step(g)
    q, v = p.copy(), np.zeros_like(p)
    fastopt.momentum(q, g, v, lr=0.1, **hyper)
    assert_same_bits([q, v], [opt.params, opt.state["v"]])
    update = fastopt.jitable(fastopt.Momentum, **hyper)

    @numba.njit
    def run(p, g, v):
        update(p, g, v, 1, 0.1)

    q, v = p.copy(), np.zeros_like(p)
    run(q, g, v)
    assert_same_bits([q, v], [opt.params, opt.state["v"]])


def test_a_number_that_changes_compiles_nothing():
    opt = fastopt.Adam(random(50, F32, 1), grad_scale=2.0, clip_value=1.0, clip_norm=1.0)
    g = random(50, F32, 2)
    opt.step(g)
    with event.install_recorder("numba:compile") as recorder:
        for k in range(1, 4):
            opt.grad_scale, opt.clip_value, opt.clip_norm = 2.0**k, 1.0 / k, 0.1 * k
            opt.step(g)
    assert recorder.buffer == []


@pytest.mark.parametrize("scale", [None, 8.0])
@pytest.mark.parametrize("limit", [0.5, 1e9, math.inf])
def test_the_norm_of_all_tensors(scale, limit):
    """Of several dtypes, which are two launches; to the bit the step with gradients times clip_norm / norm."""
    params = [*arrays(), random(33, np.float64, 5)]
    grads = [*arrays(first=20), random(33, np.float64, 6)]
    one = fastopt.Adam([p.copy() for p in params], clip_norm=limit, grad_scale=scale)
    assert one.grad_norm is None
    one.step(grads)
    norm = math.sqrt(math.fsum(float(x) ** 2 for g in grads for x in g)) / (scale or 1)
    assert one.grad_norm == pytest.approx(norm, rel=1e-14)
    factor = 1 / (scale or 1) * (limit / one.grad_norm if one.grad_norm > limit else 1)
    two = fastopt.Adam([p.copy() for p in params])
    two.step([g * g.dtype.type(factor) for g in grads])
    assert_same_bits(everything(one), everything(two))


def test_bound_gradients_and_any_number_of_threads():
    from numba import get_num_threads, set_num_threads

    found, threads = [], get_num_threads()
    for count in (1, threads):
        set_num_threads(count)
        try:
            params, grads = [random(200_001, F32, 1)], [random(200_001, F32, 2)]
            opt = fastopt.AdamW(params, clip_norm=1.0, nonfinite="skip")
            opt.bind(grads)
            for _ in range(3):
                opt.step()
                grads[0] *= F32(1.5)
            found.append([*copies(opt), np.array(opt.grad_norm)])
        finally:
            set_num_threads(threads)
    assert_same_bits(*found)


def test_gradients_of_16_bits_are_scaled_in_the_dtype_of_the_arithmetic():
    p, g = random(100, np.float16, 1), random(100, np.float16, 2)
    one, two = fastopt.GD(p.copy(), lr=1.0, grad_scale=1024.0, master=None), fastopt.GD(p.copy(), lr=1.0)
    one.step(g)
    two.step(g.astype(F32) * F32(1 / 1024))
    assert_same_bits([one.params], [two.params])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
class TestNonfinite:
    def test_skip_leaves_all_as_it_was(self, bad):
        opt = fastopt.Adam(arrays(), nonfinite="skip")
        opt.step(arrays(first=5))
        before, norm = copies(opt), opt.grad_norm
        grads = arrays(first=9)
        grads[2][69_999] = bad
        opt.step(grads)
        assert_same_bits(everything(opt), before)
        assert (opt.skipped, opt.step_count) == (1, 1)
        assert not math.isfinite(opt.grad_norm)
        opt.step(arrays(first=5))
        assert (opt.skipped, opt.step_count, opt.grad_norm) == (1, 2, norm)

    def test_raise_names_the_gradient(self, bad):
        opt = fastopt.Momentum(arrays(), nonfinite="raise", clip_norm=1.0)
        before = copies(opt)
        grads = arrays(first=9)
        grads[3][0] = bad
        with pytest.raises(FloatingPointError, match=r"^grads\[3\] has a NaN or an infinity.*nothing has been written"):
            opt.step(grads)
        assert_same_bits(everything(opt), before)
        assert (opt.skipped, opt.step_count, opt.grad_norm) == (0, 0, None)

    def test_set_later(self, bad):
        opt, g = fastopt.GD(np.zeros(3)), np.full(3, bad)
        opt.nonfinite = "skip"
        opt.step(g)
        opt.nonfinite = "raise"
        with pytest.raises(FloatingPointError, match="grads has"):
            opt.step(g)
        opt.nonfinite = "propagate"
        opt.step(g)
        assert (opt.skipped, opt.step_count) == (1, 1)

    def test_propagate_is_what_the_equation_gives(self, bad):
        """Of a norm that is infinite, gradients times 0; of a NaN, NaN for all: as PyTorch."""
        opt = fastopt.GD(arrays(), lr=1.0, clip_norm=1.0)
        before = copies(opt)
        grads = arrays(first=9)
        grads[2][5] = bad
        opt.step(grads)
        assert opt.step_count == 1
        assert np.isnan(opt.params[2][5])
        others = np.concatenate([*opt.params[:2], opt.params[2][:5], opt.params[2][6:], opt.params[3]])
        if math.isnan(bad):
            assert np.isnan(others).all()
        else:
            assert_same_bits([others], [np.concatenate([*before[:2], before[2][:5], before[2][6:], before[3]])])

    def test_a_bound_keeps_a_nan(self, bad):
        p, g = np.zeros(9, F32), np.ones(9, F32)
        g[4] = bad
        fastopt.gd(p, g, lr=1.0, clip_value=0.5)
        wanted = np.full(9, -0.5, F32)
        wanted[4] = -np.clip(bad, -0.5, 0.5)
        np.testing.assert_array_equal(p, wanted)


def test_a_norm_beyond_float64_counts_as_infinite():
    grads = [np.ones(3), np.full(3, 1e200)]
    opt = fastopt.GD([np.zeros(3), np.zeros(3)], nonfinite="raise")
    with pytest.raises(FloatingPointError, match=r"^the norm of grads is beyond float64"):
        opt.step(grads)
    opt.nonfinite = "skip"
    opt.step(grads)
    assert (opt.skipped, opt.grad_norm) == (1, math.inf)


def test_a_norm_that_overflows_though_no_gradient_is_large():
    opt = fastopt.GD([np.zeros(1) for _ in range(3)], nonfinite="raise")
    with pytest.raises(FloatingPointError, match=r"^the norm of grads is beyond float64"):
        opt.step([np.ones(1), np.full(1, 1.2e154), np.full(1, 1.2e154)])


def test_what_becomes_infinite_when_it_is_unscaled():
    params = [np.zeros(3, F32), np.zeros(3)]
    opt = fastopt.GD(params, nonfinite="skip", grad_scale=1e-10)
    opt.step([np.ones(3, F32), np.full(3, 1e40)])  # which float64 holds
    assert (opt.skipped, opt.step_count) == (0, 1)
    opt.step([np.full(3, 1e30, F32), np.ones(3)])
    assert (opt.skipped, opt.step_count) == (1, 1)
    opt.nonfinite = "raise"
    with pytest.raises(FloatingPointError, match=r"^grads\[0\] has .* when it is divided by grad_scale"):
        opt.step([np.full(3, 1e30, F32), np.ones(3)])
    assert np.isfinite(params[0]).all()


def test_an_infinite_limit_clips_nothing():
    one, two = (fastopt.GD(arrays(), lr=1.0, clip_norm=limit) for limit in (math.inf, None))
    grads = arrays(first=9)
    grads[0][1] = np.nan
    for opt in (one, two):
        opt.step(grads)
    assert math.isnan(one.grad_norm)
    np.testing.assert_array_equal(np.concatenate(one.params), np.concatenate(two.params))


@pytest.mark.parametrize("name", ["grad_scale", "clip_value", "clip_norm", "nonfinite"])
def test_the_names_are_taken(name):
    from fastopt.rules import nonnegative

    with pytest.raises(TypeError, match=f"Own has a hyperparameter '{name}', which all optimizers have"):
        type("Own", (fastopt.GD,), {name: nonnegative(0.0)})


def test_an_interrupt_leaves_no_kernel_of_another_dtype(monkeypatch):
    from fastopt._engine import reduce

    p = np.zeros(5, F32)
    opt = fastopt.GD(p, clip_norm=1e9)
    opt.step(np.ones(5, F32))

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reduce.threads, "Kernels", interrupt)
        with pytest.raises(KeyboardInterrupt):
            opt._plan.reduction._parts[0].launches(opt._groups[0].found, "float16")
    g = np.full(5, 2.0, np.float16)
    opt.step(g)
    assert opt.grad_norm == math.sqrt(20)


def test_against_pytorch():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    params = arrays()
    theirs = [torch.nn.Parameter(torch.tensor(p.astype(np.float64))) for p in params]
    ours = fastopt.AdamW([p.astype(np.float64) for p in params], clip_norm=0.7)
    adamw = torch.optim.AdamW(theirs)
    for step in range(5):
        grads = [g.astype(np.float64) * 10.0 ** (step - 3) for g in arrays(first=7 * step)]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.7)
        adamw.step()
        ours.step(grads)
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-12)
    for p, q in zip(ours.params, theirs, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), rtol=1e-5)  # theirs divides by norm + 1e-6


def test_checkpoints_hold_what_is_not_the_default():
    opt = fastopt.Adam(arrays())
    assert not {"grad_scale", "clip_value", "clip_norm", "nonfinite"} & set(opt.state_dict())
    given = {"grad_scale": 4.0, "clip_value": 0.5, "clip_norm": 2.0, "nonfinite": "skip"}
    saved = fastopt.Adam(arrays(), **given).state_dict()
    assert {name: saved[name] for name in given} == given
    opt.load_state_dict({name: np.asarray(value) for name, value in saved.items()})  # as numpy.load has them
    assert {name: getattr(opt, name) for name in given} == given
    opt.load_state_dict(fastopt.Adam(arrays()).state_dict())
    assert [getattr(opt, name) for name in given] == [None, None, None, "propagate"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"grad_scale": 0.0}, ValueError, r"grad_scale must be a finite number in \(0, inf\), got 0.0"),
        ({"grad_scale": math.inf}, ValueError, "grad_scale must be a finite number"),
        ({"clip_value": -1}, ValueError, r"clip_value must be a finite number in \(0, inf\), got -1"),
        ({"clip_value": 1e-60}, ValueError, r"clip_value must be in \[1.2e-38, .* where arithmetic is in float32"),
        ({"grad_scale": 1e46}, ValueError, r"grad_scale must be in \[2.9e-39, 8.5e\+37\] .* float32, got 1e\+46"),
        ({"grad_scale": 1e-45}, ValueError, r"grad_scale must be in \[2.9e-39, 8.5e\+37\] .* float32, got 1e-45"),
        ({"clip_norm": 0}, ValueError, "clip_norm must be a finite number"),
        ({"clip_norm": math.nan}, ValueError, "clip_norm must be a finite number"),
        ({"clip_norm": "1"}, TypeError, "clip_norm must be a number, got str '1'"),
        ({"nonfinite": "ignore"}, ValueError, "nonfinite must be one of propagate, skip, raise, got 'ignore'"),
        ({"nonfinite": np.ones(2)}, ValueError, "nonfinite must be one of"),
    ],
)
def test_refusals(wrong, error, message):
    with pytest.raises(error, match=message):
        fastopt.Adam(arrays(), **wrong)
    opt = fastopt.Adam(arrays())
    ((name, value),) = wrong.items()
    with pytest.raises(error, match=message):
        setattr(opt, name, value)
    assert getattr(opt, name) == fastopt.Adam.hyperparameters[name]


@pytest.mark.parametrize("hyper", [{"clip_norm": 1.0}, {"nonfinite": "skip"}])
def test_one_parameter_does_not_know_the_norm_of_all(hyper):
    (name,) = hyper
    p = np.zeros(3)
    with pytest.raises(TypeError, match=rf"gd\(\) takes one parameter, and {name} is about those of all"):
        fastopt.gd(p, p + 1, **hyper)
    with pytest.raises(TypeError, match=rf"jitable\(\) takes one parameter, and {name}"):
        fastopt.jitable(fastopt.GD, **hyper)


@pytest.mark.parametrize("master", [None, "split8"])
def test_the_bits_of_int8_states_and_a_bound_for_any_number_of_threads(master):
    """Where a product and a sum may be one operation, the kernels for one thread and for several chose differently."""
    results = []
    before = numba.get_num_threads()
    for threads in (1, before):
        numba.set_num_threads(threads)
        try:
            rng = np.random.default_rng(0)
            p = rng.normal(size=70_000).astype(ml_dtypes.bfloat16 if master else np.float32)
            opt = fastopt.AdamW(p, lr=0.01, state_dtype="int8", clip_value=0.5, master=master)
            for _ in range(4):
                opt.step(rng.normal(size=p.size).astype(np.float32))
        finally:
            numba.set_num_threads(before)
        results.append([p.view(f"u{p.itemsize}"), *opt.state.values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
