"""Dynamic loss scaling: the scales of PyTorch's, steps that are skipped, checkpoints."""

import re

import numpy as np
import pytest

import fastopt


def optimizer(**hyper):
    return fastopt.GD(np.zeros(3, np.float32), lr=1.0, **{"nonfinite": "skip"} | hyper)


@pytest.mark.parametrize("seed", range(5))
def test_the_scales_of_pytorch(seed):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    rng = np.random.default_rng(seed)
    factors = {"growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": int(rng.integers(1, 5))}
    scaler, opt = fastopt.LossScaler(2.0**10, **factors), optimizer()
    scale, tracker = torch.full((), 2.0**10), torch.zeros((), dtype=torch.int32)
    for _ in range(60):
        bad = rng.random() < 0.2
        taken = scaler.step(opt, np.full(3, np.inf if bad else 1.0, np.float32))
        assert taken != bad
        found = torch.tensor(float(bad))
        torch._amp_update_scale_(scale, tracker, found, *factors.values())
        assert (scaler.scale, scaler.state_dict()["taken"]) == (float(scale), int(tracker))


def test_a_step_divides_by_the_scale_that_the_loss_had():
    opt, plain = optimizer(), fastopt.GD(np.zeros(3, np.float32), lr=1.0)
    scaler = fastopt.LossScaler(8.0, growth_interval=1)
    for k in range(1, 4):
        g = np.array([0.1, -3.0, k], np.float32)
        assert scaler.step(opt, g * np.float32(scaler.scale))
        assert scaler.scale == 8.0 * 2.0**k
        plain.step(g)
    np.testing.assert_array_equal(opt.params, plain.params)
    assert opt.skipped == 0


def test_it_grows_no_further_than_float32():
    opt = optimizer()
    scaler = fastopt.LossScaler(2.0**125, growth_interval=1)
    for _ in range(3):
        scaler.step(opt, np.zeros(3, np.float32))
    assert scaler.scale == 2.0**126


def test_a_scale_that_does_not_help_is_an_error():
    opt, scaler = optimizer(), fastopt.LossScaler(2.0**-120)
    for _ in range(6):
        assert not scaler.step(opt, np.full(3, np.nan, np.float32))
    with pytest.raises(FloatingPointError, match=r"not finite with the scale 1\.2e-38: it is not what makes them so"):
        scaler.step(opt, np.full(3, np.nan, np.float32))
    np.testing.assert_array_equal(opt.params, 0)


def test_a_failed_step_leaves_the_scale():
    opt, scaler = optimizer(), fastopt.LossScaler(2.0, growth_interval=1)
    with pytest.raises(ValueError, match="shape"):
        scaler.step(opt, np.zeros(4, np.float32))
    assert scaler.state_dict() == {"scale": 2.0, "taken": 0}
    with pytest.raises(ValueError, match="optimizer must have nonfinite='skip', got 'propagate'"):
        scaler.step(optimizer(nonfinite="propagate"), np.zeros(3, np.float32))


def test_checkpoints():
    opt, scaler = optimizer(), fastopt.LossScaler(4.0, growth_interval=5)
    for _ in range(3):
        scaler.step(opt, np.zeros(3, np.float32))
    other = fastopt.LossScaler(growth_interval=5)
    other.load_state_dict({name: np.asarray(value) for name, value in scaler.state_dict().items()})
    assert other.state_dict() == {"scale": 4.0, "taken": 3}
    assert repr(other) == repr(scaler)
    for wrong, message in [
        ({"scale": 1.0}, "lacks the entries ['taken']"),
        ({"scale": 0.0, "taken": 1}, "scale must be a finite number in (0, "),
        ({"scale": 1.0, "taken": 5}, "taken must be an integer"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            other.load_state_dict(wrong)
        assert other.state_dict() == {"scale": 4.0, "taken": 3}


def test_what_is_no_optimizer_and_no_checkpoint():
    with pytest.raises(TypeError, match="optimizer must be an optimizer of fastopt, got int 3"):
        fastopt.LossScaler().step(3, np.zeros(3))
    with pytest.raises(TypeError, match="the checkpoint must be a mapping, got NoneType"):
        fastopt.LossScaler().load_state_dict(None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 0}, "scale must be a finite number in (0, 8.50706e+37], got 0"),
        ({"scale": np.inf}, "scale must be a finite number"),
        ({"growth_factor": 1.0}, "growth_factor must be a finite number in (1, inf), got 1.0"),
        ({"backoff_factor": 1.0}, "backoff_factor must be a finite number in (0, 1), got 1.0"),
        ({"growth_interval": 0}, "growth_interval must be an integer"),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fastopt.LossScaler(**wrong)
