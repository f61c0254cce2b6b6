"""state_dict and load_state_dict: the same bits as an unbroken run; a wrong checkpoint changes nothing."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import fastopt

from .cases import assert_same_bits, in_turns, make, random


def through_dict(saved, tmp_path):
    return saved


def through_file(saved, tmp_path):
    np.savez(tmp_path / "saved.npz", **saved)
    return np.load(tmp_path / "saved.npz", allow_pickle=False)


STRUCTURES = {
    "array": lambda arrays: arrays[0],
    "list": list,
    "dict": lambda arrays: dict(zip(["w", "layer/b"], arrays, strict=True)),
}


@in_turns("structure way", itertools.product(STRUCTURES, (through_dict, through_file)), ids=lambda pair: pair[0])
def test_resumed_equals_unbroken(case, structure, way, tmp_path):
    arrange = STRUCTURES[structure]
    arrays = [random((7, 3), np.float32, 1), random(5, np.float64, 2)]
    resumed = [a.copy() for a in arrays]
    grads = [[random(a.shape, a.dtype, 10 * k + j) for j, a in enumerate(arrays)] for k in range(6)]
    opt = make(case, arrange(arrays))
    for g in grads:
        opt.step(arrange(g))

    first = make(case, arrange(resumed))
    for g in grads[:3]:
        first.step(arrange(g))
    second = getattr(fastopt, case[0])(arrange(resumed), **options(case))
    second.load_state_dict(way(first.state_dict(), tmp_path))
    assert second.step_count == 3
    assert list(second.describe()) == list(first.describe())
    for g in grads[3:]:
        second.step(arrange(g))
    count = 1 if structure == "array" else 2
    assert_same_bits(resumed[:count], arrays[:count])
    for name, a in opt.state_dict().items():
        np.testing.assert_array_equal(a, second.state_dict()[name])


def options(case):
    """Only what no checkpoint holds, and what decides which states there are; the rest must come from it."""
    return {k: v for k, v in case[1].items() if callable(v) or k in getattr(fastopt, case[0])._whens}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_a_copy_has_arrays_of_its_own(duplicate):
    params = {"a": random((3, 4), np.float32, 1), "b": random(5, np.float64, 2)}
    grads = {name: random(p.shape, p.dtype, 3) for name, p in params.items()}
    opt = fastopt.RMSprop(params, centered=True, lr=0.5)
    opt.step(grads)
    other = duplicate(opt)
    before = {name: p.copy() for name, p in params.items()}
    other.step(grads)
    for name, p in params.items():
        assert opt.params[name] is p
        np.testing.assert_array_equal(p, before[name])
        assert (other.params[name] != p).any()
    opt.step(grads)
    for name, p in params.items():
        np.testing.assert_array_equal(other.params[name], p)
        np.testing.assert_array_equal(other.state["mu"][name], opt.state["mu"][name])
    assert repr(other) == repr(opt)


def unpickled_of(buffers):
    """Return what an optimizer becomes whose arrays are buffers of pickle's protocol 5."""
    opt = fastopt.Momentum([np.zeros(5), np.zeros(2**17)])
    kept = []
    data = pickle.dumps(opt, protocol=5, buffer_callback=kept.append)
    return lambda: pickle.loads(data, buffers=[buffers(b.raw()) for b in kept])


def test_an_optimizer_unpickled_with_read_only_arrays_is_refused():
    """Buffers of ``bytes``, or files mapped for reading as joblib's workers get them, must not be written to."""
    with pytest.raises(ValueError, match=r"params\[0\] is updated in place .* got a read-only array"):
        unpickled_of(bytes)()
    opt = unpickled_of(bytearray)()
    opt.step([np.ones(5), np.ones(2**17)])
    assert opt.step_count == 1


def test_arrays_that_share_memory_after_unpickling_are_refused():
    opt = fastopt.GD([np.zeros(5), np.zeros(5)])
    kept = []
    data = pickle.dumps(opt, protocol=5, buffer_callback=kept.append)
    one = bytearray(40)
    with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory"):
        pickle.loads(data, buffers=[one, one])


def test_states_that_cannot_be_written_to_are_not_loaded_in_part():
    opt = fastopt.Adam(np.zeros(3))
    opt.step(np.ones(3))
    saved = opt.state_dict()
    opt.step(np.ones(3))
    opt.state["v"].setflags(write=False)
    before = opt.state_dict()
    with pytest.raises(ValueError, match=r"the state 'v' .* read-only"):
        opt.load_state_dict(saved | {"lr": 0.5})
    after = opt.state_dict()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_keys_that_end_as_files_of_numpy_do(tmp_path):
    """``numpy.load`` takes the entry "m/x.npy" for that of "m/x"."""
    params = {"x": np.zeros(3), "x.npy": np.zeros(3), "x.npy/": np.zeros(3)}
    opt = fastopt.Momentum(params, beta=0.0)
    opt.step({"x": np.ones(3), "x.npy": np.full(3, 2.0), "x.npy/": np.full(3, 3.0)})
    other = fastopt.Momentum({name: p.copy() for name, p in params.items()})
    other.load_state_dict(through_file(opt.state_dict(), tmp_path))
    assert [a[0] for a in other.state["v"].values()] == [1, 2, 3]


def test_read_only_states_alone_are_refused_too():
    opt = fastopt.Momentum([np.zeros(5)])
    saved = opt.__getstate__()
    saved["_states"] = {"v": [saved["_states"]["v"][0].copy()]}
    saved["_states"]["v"][0].setflags(write=False)
    with pytest.raises(ValueError, match=r"the state 'v' of params\[0\] .* read-only"):
        fastopt.Momentum.__new__(fastopt.Momentum).__setstate__(saved)


def test_a_shallow_copy_shares_the_arrays():
    p = np.zeros(3)
    opt = fastopt.GD(p, lr=1.0)
    copy.copy(opt).step(np.ones(3))
    assert (p == -1).all()


def test_a_checkpoint_is_a_copy():
    opt = fastopt.Momentum(np.zeros(3))
    saved = opt.state_dict()
    opt.step(np.ones(3))
    assert saved["step"] == 0
    assert (saved["v"] == 0).all()


def test_it_holds_plain_numbers_and_arrays():
    saved = fastopt.Adam({"a": np.zeros(3)}, lr=0.5).state_dict()
    assert {k: type(v) for k, v in saved.items() if not k.startswith(("m/", "v/"))} == {
        "optimizer": str,
        "step": int,
        "seed": int,
        "rounding": str,
        "lr": float,
        "betas": tuple,
        "eps": float,
        "eps_root": float,
        "eps_hat": float,
        "amsgrad": bool,
        "cautious": bool,
        "weight_decay": float,
        "decoupled": bool,
        "maximize": bool,
    }
    assert type(saved["m/a"]) is type(saved["v/a"]) is np.ndarray


def test_a_schedule_is_not_saved_and_stays():
    p = np.zeros(3)
    opt = fastopt.GD(p, lr=lambda step: 1.0)
    saved = opt.state_dict()
    assert "lr" not in saved
    opt.load_state_dict(saved)
    opt.load_state_dict(saved | {"lr": 0.5})
    opt.step(np.ones(3))
    assert (p == -1).all()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"optimizer": "AdamW"}, ValueError, ["Adam", "AdamW"]),
        ({"optimizer": None}, ValueError, ["Adam"]),
        ({"m": None}, ValueError, ["lacks", "'m'"]),
        ({"eps": None}, ValueError, ["lacks", "'eps'"]),
        ({"step": None}, ValueError, ["lacks", "'step'"]),
        ({"extra": 1}, ValueError, ["'extra'"]),
        ({"step": -1}, ValueError, ["step", ">= 0", "-1"]),
        ({"step": 1.5}, TypeError, ["step", "1.5"]),
        ({"step": True}, TypeError, ["step", "True"]),
        ({"step": 2**62}, ValueError, ["step", "below 2^62"]),
        ({"step": 2**63}, ValueError, ["step", "below 2^62"]),
        ({"seed": -1}, ValueError, ["seed", ">= 0", "-1"]),
        ({"m": np.zeros(4)}, ValueError, ["m", "(3,)", "(4,)"]),
        ({"v": np.zeros(3, np.float32)}, TypeError, ["v", "float64", "float32"]),
        ({"v": np.zeros(3, object)}, TypeError, ["v", "object"]),
        ({"betas": (0.5, 2.0)}, ValueError, ["betas[1]", "[0, 1)", "2"]),
        ({"lr": -1.0}, ValueError, ["lr", "-1"]),
        ({"rounding": "stochastic"}, ValueError, ["rounding='nearest'", "'stochastic'"]),
        ({"rounding": None}, ValueError, ["lacks", "'rounding'"]),
        ({"master": "split8"}, ValueError, ["extra", "'master'"]),
    ],
)
def test_a_wrong_checkpoint_changes_nothing(changes, error, words):
    p = np.zeros(3)
    opt = fastopt.Adam(p)
    opt.step(np.ones(3))
    before = opt.state_dict()
    bad = opt.state_dict()
    bad["m"] = bad["m"] + 1
    bad["lr"] = 0.25
    bad.update(changes)
    bad = {k: v for k, v in bad.items() if v is not None}
    with pytest.raises(error) as caught:
        opt.load_state_dict(bad)
    for word in words:
        assert word in str(caught.value)
    after = opt.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


@pytest.mark.parametrize("saved", [None, [1], "checkpoint.npz"])
def test_what_is_no_mapping_is_a_type_error(saved):
    with pytest.raises(TypeError, match="mapping"):
        fastopt.GD(np.zeros(3)).load_state_dict(saved)


ROUNDINGS = [{}, {"rounding": "stochastic"}, {"rounding": "kahan"}, {"master": "split8"}, {"master": "split16"}]


@pytest.mark.parametrize("saved", ROUNDINGS, ids=str)
@pytest.mark.parametrize("resumed", ROUNDINGS, ids=str)
def test_parameters_are_rounded_as_before_or_the_checkpoint_is_refused(saved, resumed, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    first, second = (fastopt.GD(np.ones(3, ml_dtypes.bfloat16), **kwargs) for kwargs in (saved, resumed))
    checkpoint = through_file(first.state_dict(), tmp_path)
    if saved == resumed:
        second.load_state_dict(checkpoint)
    else:
        with pytest.raises(ValueError, match=r"rounding|master|compensation|low"):
            second.load_state_dict(checkpoint)


def test_a_checkpoint_with_other_states_is_refused():
    saved = fastopt.RMSprop(np.zeros(3), centered=True).state_dict()
    opt = fastopt.RMSprop(np.zeros(3))
    with pytest.raises(ValueError, match="mu"):
        opt.load_state_dict(saved)
    assert not opt.centered


def test_an_older_pickle_may_lack_a_hyperparameter():
    p, g = np.zeros(3), np.ones(3)
    opt = fastopt.Adam(p, lr=0.1)
    state = {name: value for name, value in opt.__getstate__().items() if name != "reproducible"}
    again = fastopt.Adam.__new__(fastopt.Adam)
    again.__setstate__(state)
    again.step(g)
    assert again.reproducible is None
    np.testing.assert_allclose(p, -0.1)
