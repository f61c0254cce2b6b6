"""What a step does in the same pass: an average of the parameters, copies of them, gradients left at 0."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt._storage.layout import CODECS, layout

from .cases import assert_same_bits, random

BF16, F16, F32, F64 = ml_dtypes.bfloat16, np.float16, np.float32, np.float64
SIZES = [5, 0, 1, 2**15 + 77]


def arrays(dtype, seed, sizes=None):
    return [random(n, F32 if dtype is not F64 else F64, seed + k).astype(dtype) for k, n in enumerate(sizes or SIZES)]


STORAGES = [
    (F64, F64, {}),
    (F32, F32, {}),
    (F32, BF16, {"state_dtype": "int8"}),
    (BF16, F32, {"master": "split16"}),
    (BF16, BF16, {"state_dtype": {"m": "bfloat16"}}),
    (F16, F32, {"rounding": "kahan"}),
]
every_storage = pytest.mark.parametrize(("dtype", "grad", "storage"), STORAGES, ids=str)


def values_of(opt):
    return opt.decoded("params")


@every_storage
@pytest.mark.parametrize("name", ["AdamW", pytest.param("GD", marks=pytest.mark.ci)])
def test_all_of_it_beside_a_step_without(name, dtype, grad, storage):
    """Parameters and states have the bits of a step without; the rest is what passes of their own would do."""
    kind = getattr(fastopt, name)
    storage = {k: v for k, v in storage.items() if kind.states or k != "state_dtype"}
    if dtype not in (F32, F64) or grad is BF16:
        storage["reproducible"] = True  # by default elsewhere
    params, twins = arrays(dtype, 1), arrays(dtype, 1)
    copies = arrays(F64 if dtype is F64 else F32, 9)
    # Where rounding is stochastic, what the launches are must be the same.
    narrow = F32 if "state_dtype" in storage else {F64: F32}.get(dtype, BF16)
    copies[3] = copies[3].astype(narrow)
    opt = kind(params, 0.1, ema=0.9, copy_to=copies, zero_grads=True, **storage)
    plain = kind(twins, 0.1, **storage)
    wide = F64 if dtype is F64 else F32
    average = [p.astype(wide) for p in params]
    assert_same_bits(opt.state["average"], average)
    for step in range(1, 4):
        grads, theirs = arrays(grad, 10 * step), arrays(grad, 10 * step)
        before = opt.step_count
        opt.step(grads)
        plain.step(theirs)
        assert opt.step_count == before + 1
        assert not any(g.any() for g in grads)
        assert all(g.any() for g in theirs if g.size > 2)
        assert_same_bits(params, twins)
        for state in plain.state:
            assert_same_bits(opt.state[state], plain.state[state])
        if dtype in (F64, F32) or storage.get("master") == "split16":  # nothing of a new parameter is rounded away
            new = values_of(opt)
            average = [wide(0.9) * e + wide(1 - 0.9) * p for e, p in zip(average, new, strict=True)]
            tiny = np.finfo(wide).smallest_normal
            average = [np.where(np.abs(e) < tiny, 0 * e, e) for e in average]
            assert_same_bits(
                [e.view(f"u{e.itemsize}") for e in opt.state["average"]], [e.view(f"u{e.itemsize}") for e in average]
            )
            assert_same_bits(copies[:3], new[:3])
            np.testing.assert_array_equal(copies[3], new[3].astype(narrow))
        else:
            for c, p in zip(copies[:3], params[:3], strict=True):
                np.testing.assert_array_equal(c.astype(dtype), p) if not storage.get("rounding") else None
                assert np.allclose(c, p.astype(F32), rtol=2**-7)


def test_an_average_in_other_formats():
    p = random(5000, F32, 1)
    for name, kind in (("bfloat16", BF16), ("float16", F16)):
        opt = fastopt.AdamW(p.copy(), ema=0.5, state_dtype={"average": name})
        assert opt.state["m"].dtype == F32
        np.testing.assert_array_equal(opt.state["average"], p.astype(kind))
        opt.step(np.ones_like(p))
        np.testing.assert_allclose(
            opt.state["average"].astype(F32), 0.5 * p + 0.5 * opt.params, rtol=2**-6, atol=2**-12
        )
    assert fastopt.AdamW(p, ema=0.5, state_dtype="int8").state["average"].dtype == F32
    with pytest.raises(TypeError, match="state_dtype of average must not be int8"):
        fastopt.AdamW(p, ema=0.5, state_dtype={"average": "int8"})


def test_subnormal_parameters_are_copied_as_they_are():
    p, to = np.full(100, 2.0**-140, F32), np.zeros(100, F32)
    fastopt.GD(p, lr=0.0, copy_to=to).step(np.zeros(100, F32))
    assert (to == F32(2.0**-140)).all()


def test_numbers_that_do_not_fit_into_a_copy():
    p, to = np.array([1e5, np.inf, np.nan, 1 + 2**-11], F32), np.zeros(4, F16)
    fastopt.GD(p, lr=0.0, copy_to=to).step(np.zeros(4, F32))
    np.testing.assert_array_equal(to, np.array([np.inf, np.inf, np.nan, 1], F16))


def test_the_decay_factor_can_change_and_not_whether_there_is_one():
    p = np.ones(3)
    opt = fastopt.GD(p, 0.5, ema=0.5)
    opt.step(np.ones(3))
    opt.ema = 0.0
    opt.step(np.ones(3))
    assert (opt.state["average"] == p).all()
    for change in (None, 1.0, -0.1):
        with pytest.raises(ValueError, match="make a new optimizer" if change is None else r"ema must be .* \[0, 1\)"):
            opt.ema = change
    assert opt.ema == 0.0
    with pytest.raises(ValueError, match="make a new optimizer"):
        fastopt.GD(p).ema = 0.5


def test_functions_have_no_place_for_it():
    p, g = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"gd\(\) has no place for the average"):
        fastopt.gd(p, g, ema=0.5)
    with pytest.raises(TypeError, match="no place for the average"):
        fastopt.jitable(fastopt.GD, ema=0.5)
    with pytest.raises(TypeError, match="ema"):
        fastopt.GD([{"params": p, "ema": 0.5}])


class ReadOnly:
    @staticmethod
    def of(a):
        a = a.copy()
        a.setflags(write=False)
        return a


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda p: [np.zeros(3, F32)], ValueError, "copy_to must hold 2 arrays, got 1"),
        (lambda p: np.zeros(3, F32), TypeError, "copy_to must be a sequence"),
        (
            lambda p: [np.zeros(3, F32), np.zeros((3, 2), F32)],
            ValueError,
            r"copy_to\[1\] must have the shape of params\[1\]",
        ),
        (lambda p: [np.zeros(3, F32), np.zeros((3, 2), F32).T], ValueError, r"copy_to\[1\] must have the memory order"),
        (
            lambda p: [np.zeros(3, F64), np.zeros((2, 3))],
            TypeError,
            r"copy_to\[0\] must have one of the dtypes float32, bfloat16",
        ),
        (lambda p: [np.zeros(3, "i4"), np.zeros((2, 3), F32)], TypeError, r"copy_to\[0\]"),
        (lambda p: [ReadOnly.of(p[0]), np.zeros((2, 3), F32)], ValueError, r"copy_to\[0\] .*writ"),
        (lambda p: [p[0], np.zeros((2, 3), F32)], ValueError, r"copy_to\[0\] and params\[0\] share memory"),
    ],
)
def test_copies_that_are_refused(made, error, words):
    params = [np.zeros(3, F32), np.zeros((2, 3), F32)]
    with pytest.raises(error, match=words):
        fastopt.GD(params, copy_to=made(params))


def test_copies_of_float64():
    p = np.ones(3)
    with pytest.raises(TypeError, match="one of the dtypes float64, float32 beside params, float64; got float16"):
        fastopt.GD(p, copy_to=np.zeros(3, F16))


def test_copies_are_watched_like_states():
    p, to = np.zeros(3, F32), np.zeros(3, BF16)
    opt = fastopt.GD(p, copy_to=to)
    assert opt.copy_to is to
    assert "copy" not in opt.state
    assert not [key for key in opt.state_dict() if "copy" in key]
    with pytest.raises(ValueError, match="share memory"):
        opt.step(to)
    to.setflags(write=False)
    with pytest.raises(ValueError, match="copy_to"):
        opt.step(np.ones(3, F32))
    assert (p == 0).all()


def test_gradients_that_cannot_be_zeroed():
    p = np.ones(3, F32)
    opt = fastopt.GD(p, zero_grads=True)
    with pytest.raises(ValueError, match=r"grads .*writ"):
        opt.step(ReadOnly.of(p))
    scalar = np.ones((), F32)
    with pytest.raises(TypeError, match="is a scalar"):
        fastopt.GD(scalar, zero_grads=True).step(F32(1))
    assert (p == 1).all()
    with pytest.raises(TypeError, match="zero_grads must be True or False, got 1"):
        fastopt.GD(p, zero_grads=1)
    g = np.ones(3, F32)
    opt.bind(g)
    opt.step()
    assert (g == 0).all()
    g += 1
    g.setflags(write=False)
    opt.step()  # what is bound is not looked at again, as README says
    assert (g == 0).all()


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_a_step_that_is_left_out(policy):
    """Gradients are for the next step to be added up: skipped, they are gone; an error leaves all as it was."""
    params, grads, to = arrays(F32, 1), arrays(F32, 5), arrays(F32, 7)
    opt = fastopt.AdamW(params, nonfinite=policy, zero_grads=True, ema=0.5, copy_to=to)
    grads[3][7] = np.nan
    written = [*params, *to, *opt.state["average"], *opt.state["m"]]
    before, own = [a.copy() for a in written], [g.copy() for g in grads]
    if policy == "skip":
        opt.step(grads)
        assert opt.skipped == 1
        assert not any(g.any() for g in grads)
    else:
        with pytest.raises(FloatingPointError):
            opt.step(grads)
        assert_same_bits(grads, own)
    assert_same_bits(written, before)


@pytest.mark.parametrize("way", ["dict", "file", "pickle", "copy"])
def test_a_run_goes_on_from_a_checkpoint(way, tmp_path):
    def made(seed):
        return fastopt.AdamW(arrays(F32, seed), ema=0.75, copy_to=arrays(BF16, seed))

    opt, other = made(1), made(2)
    opt.step(arrays(F32, 3))
    if way == "dict":
        np.savez(tmp_path / "a.npz", **opt.state_dict())
        for p, q in zip(other.params, opt.params, strict=True):
            p[...] = q
        other.load_state_dict(np.load(tmp_path / "a.npz"))
    elif way == "file":
        opt.save(tmp_path / "a", params=True)
        other.load(tmp_path / "a")
    else:
        other = pickle.loads(pickle.dumps(opt)) if way == "pickle" else copy.deepcopy(opt)
        assert all(a is b for a, b in zip(other.copy_to, other._states["copy"], strict=True))
    for step in (4, 5):
        opt.step(arrays(F32, step))
        other.step(arrays(F32, step))
    assert_same_bits([*other.params, *other.state["average"]], [*opt.params, *opt.state["average"]])
    assert_same_bits([c.view("u2") for c in other.copy_to], [c.view("u2") for c in opt.copy_to])
    with pytest.raises(ValueError, match="average"):
        fastopt.AdamW(arrays(F32, 1)).load_state_dict(opt.state_dict())


def test_groups_and_parameters_that_are_added():
    p, q = arrays(F32, 1, [7, 40000]), arrays(F32, 3, [5])
    to = arrays(BF16, 1, [7, 40000])
    opt = fastopt.AdamW(
        [{"params": p[:1]}, {"params": p[1], "lr": 0.5}], copy_to=[to[:1], to[1]], ema=0.5, zero_grads=True
    )
    grads = arrays(F32, 5, [7, 40000])
    opt.step([grads[:1], grads[1]])
    assert not any(g.any() for g in grads)
    with pytest.raises(TypeError, match="copy_to must be given"):
        opt.add_params(q)
    late = [np.zeros(5, F16)]
    opt.add_params(q, lr=0.1, copy_to=late)
    grads = arrays(F32, 9, [7, 40000, 5])
    opt.step([grads[:1], grads[1], grads[2:]])
    np.testing.assert_array_equal(late[0], q[0].astype(F16))
    np.testing.assert_array_equal(to[1], p[1].astype(BF16))
    assert len(opt.state["average"]) == 3
    with pytest.raises(TypeError, match="copy_to must not be given"):
        fastopt.GD([np.ones(3)]).add_params([np.ones(3)], copy_to=[np.ones(3)])


def test_more_bytes_are_told():
    from fastopt._bench.measure import bytes_of

    assert bytes_of(("float32",) * 3) == (12, 8)
    assert bytes_of(("float32-zeroed", "float32", "float32")) == (12, 12)
    assert bytes_of(("float32", "float32", "float32-copy")) == (8, 8)
    assert bytes_of(("float32", "float32", "float32", "bfloat16-copy")) == (12, 10)
    assert layout("float32-zeroed float32").written == range(2)
    assert CODECS["bfloat16-zeroed"].zeroed


SIMULATED = """
import numpy as np, fastopt
from tests.simulated.device import Device
from tests import test_beside as t

sizes = [5, 0, 1, 300]
def made(of, **more):
    params, to = t.arrays(np.float32, 1, sizes), [a.view(np.uint16) for a in t.arrays(t.BF16, 2, sizes)]
    copies = [of(a) for a in to]
    opt = fastopt.AdamW([of(p) for p in params], copy_to=copies, ema=0.5, zero_grads=True, reproducible=True, **more)
    return opt, params, to
for more in ({}, {"nonfinite": "skip", "state_dtype": "int8"}):
    (opt, params, to), (cpu, others, theirs) = made(Device, **more), made(lambda a: a, **more)
    for step in (1, 2, 3):
        grads, same = t.arrays(np.float32, step, sizes), t.arrays(np.float32, step, sizes)
        if step == 3:
            grads[3][7] = same[3][7] = np.inf
        opt.step([Device(g) for g in grads])
        cpu.step(same)
        assert not any(g.any() for g in grads) and not any(g.any() for g in same)
    pairs = [*zip(params, others), *zip(to, theirs), *zip(opt.decoded("average"), cpu.decoded("average"))]
    print(all(np.array_equal(a, b, equal_nan=True) for a, b in pairs), opt.skipped)
"""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_simulator(run_script):
    assert run_script(SIMULATED, NUMBA_ENABLE_CUDASIM=1, PYTHONPATH=".") == "True 0\nTrue 1"
