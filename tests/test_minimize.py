"""minimize: why it stops, what it returns, what it refuses."""

import functools

import numpy as np
import pytest

import fastopt

GD = functools.partial(fastopt.GD, lr=0.1)


def square(x):
    return float(np.sum((x - 3) ** 2))


def gradient(x):
    return 2 * (x - 3)


def test_stops_at_the_minimum_with_the_reason():
    result = fastopt.minimize(square, [0.0, 1.0], grad=gradient, optimizer=GD, tol=1e-6)
    assert (result.success, result.status) == (True, 0)
    assert "within tol" in result.message
    assert str(result.nit) in result.message
    np.testing.assert_allclose(result.x, 3, atol=1e-6)
    np.testing.assert_array_equal(result.jac, gradient(result.x))
    assert result.fun == square(result.x)
    assert result.nfev == result.njev == result.nit + 1 == len(result.history["fun"])
    assert np.all(np.diff(result.history["grad_norm"]) < 0)
    assert result.history["grad_norm"][-1] <= 1e-6 < result.history["grad_norm"][-2]


def test_equals_stepping_by_hand():
    x = np.array([0.0, 1.0])
    opt = fastopt.Adam(x, lr=0.05)
    for _ in range(20):
        opt.step(gradient(x))
    adam = functools.partial(fastopt.Adam, lr=0.05)
    result = fastopt.minimize(square, [0.0, 1.0], grad=gradient, optimizer=adam, max_iter=20)
    assert (result.status, result.success, result.nit) == (2, False, 20)
    np.testing.assert_array_equal(result.x, x)


def test_a_start_at_the_minimum_is_left_alone():
    result = fastopt.minimize(square, [3.0], grad=gradient)
    assert (result.nit, result.status, result.nfev) == (0, 0, 1)
    assert result.x == [3.0]


def test_step_tolerance():
    result = fastopt.minimize(square, [0.0], grad=gradient, optimizer=GD, tol=0, step_tol=1e-3)
    assert (result.status, result.success) == (1, True)
    assert "step_tol" in result.message


@pytest.mark.parametrize("start", [0.0, 0, np.float32(0), [[0, 0]], np.zeros(3, np.float32), np.zeros(0)])
def test_shapes_and_dtypes(start):
    before = np.array(start)
    result = fastopt.minimize(square, start, grad=gradient, optimizer=GD, max_iter=5)
    assert result.x.shape == np.shape(start)
    assert result.x.dtype == (np.float32 if np.asarray(start).dtype == np.float32 else np.float64)
    np.testing.assert_array_equal(before, start)


def test_loss_and_gradient_from_one_function():
    def both(x):
        return square(x), gradient(x)

    together = fastopt.minimize(both, [0.0], grad=True, optimizer=GD)
    apart = fastopt.minimize(square, [0.0], grad=gradient, optimizer=GD)
    assert together.x == apart.x


def test_numbers_of_pytorch():
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")

    def both(x):
        theta = torch.tensor(x, requires_grad=True)
        loss = ((theta - 3) ** 2).sum()
        loss.backward()
        return loss, theta.grad

    result = fastopt.minimize(both, [0.0], grad=True, optimizer=GD)
    assert result.x == fastopt.minimize(square, [0.0], grad=gradient, optimizer=GD).x


def test_a_gradient_that_is_the_point_itself():
    result = fastopt.minimize(lambda x: 0.5 * np.sum(x * x), [1.0, -2.0], grad=lambda x: x, optimizer=GD)
    assert result.success


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_not_finite_stops_with_the_last_finite_point(bad, what):
    def fun(x):
        return bad if what == "loss" and x[0] > 1 else square(x)

    def grad(x):
        return np.full(1, bad) if what == "gradient" and x[0] > 1 else gradient(x)

    result = fastopt.minimize(fun, [0.0], grad=grad, optimizer=GD)
    assert (result.status, result.success) == (3, False)
    assert f"the {what} is not finite after 2 updates" in result.message
    assert result.nit == 1
    np.testing.assert_allclose(result.x, 0.6)
    assert result.fun == square(result.x)


def test_explosion_is_reported():
    with np.errstate(over="ignore", invalid="ignore"):
        steep = functools.partial(fastopt.GD, lr=1e3)
        result = fastopt.minimize(square, [0.0], grad=gradient, optimizer=steep)
    assert result.status == 3
    assert np.isfinite(result.x).all()


def test_not_finite_at_the_start():
    result = fastopt.minimize(lambda x: np.nan, [1.0], grad=gradient)
    assert (result.status, result.nit) == (3, 0)
    assert result.x == [1.0]


@pytest.mark.parametrize("how", ["true", "raise"])
def test_callback_sees_each_update_and_can_stop(how):
    seen = []

    def callback(result):
        seen.append((result.nit, float(result.x[0]), result.fun))
        assert result.nfev == result.njev == result.nit + 1
        if result.nit == 3:
            if how == "raise":
                raise StopIteration
            return True
        return None

    result = fastopt.minimize(square, [0.0], grad=gradient, optimizer=GD, callback=callback)
    assert (result.status, result.success, result.nit) == (4, False, 3)
    assert [nit for nit, _, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == result.x


def test_progress_bar(capsys):
    fastopt.minimize(square, [0.0], grad=gradient, optimizer=GD, progress=True)
    assert "step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"tol": -1}, ValueError, ["tol", "[0", "-1"]),
        ({"tol": np.nan}, ValueError, ["tol", "nan"]),
        ({"step_tol": "a"}, TypeError, ["step_tol", "'a'"]),
        ({"max_iter": -1}, ValueError, ["max_iter", ">= 0", "-1"]),
        ({"max_iter": 1.5}, TypeError, ["max_iter", "1.5"]),
        ({"max_iter": True}, TypeError, ["max_iter", "True"]),
        ({"max_iter": 2**63}, ValueError, ["max_iter", "below 2^63", "9223372036854775808"]),
        ({"grad": None}, TypeError, ["grad", "None"]),
        ({"optimizer": lambda x: 3}, TypeError, ["optimizer", "int 3"]),
        ({"grad": lambda x: np.zeros(3)}, ValueError, ["shape", "(1,)", "(3,)"]),
        ({"fun": lambda x: np.zeros(2)}, ValueError, ["fun", "(2,)"]),
        ({"x0": [1 + 2j]}, TypeError, ["x0", "real", "(1+2j)"]),
        ({"x0": "1.5"}, TypeError, ["x0", "real numbers", "'1.5'"]),
        ({"x0": None}, TypeError, ["x0", "real numbers", "None"]),
        ({"x0": np.array(["2026-01-01"], "M8[D]")}, TypeError, ["x0", "real numbers", "datetime64"]),
        ({"grad": lambda x: ["3"]}, TypeError, ["the gradient", "real numbers"]),
        ({"fun": lambda x: "3"}, TypeError, ["the loss", "real numbers", "'3'"]),
        ({"fun": lambda x: np.ma.masked}, TypeError, ["the loss", "mask"]),
        ({"fun": None}, TypeError, ["fun must be callable", "None"]),
        ({"optimizer": fastopt.GD(np.zeros(1))}, TypeError, ["optimizer must be callable", "GD"]),
        ({"callback": 3}, TypeError, ["callback must be callable", "int 3"]),
        ({"x0": np.ma.masked_array([1.0, 2.0], [0, 1])}, TypeError, ["x0", "mask"]),
        ({"grad": lambda x: x * 1j}, TypeError, ["the gradient", "real"]),
        ({"grad": lambda x: np.ma.masked_array([1.0], [1])}, TypeError, ["the gradient", "mask"]),
        (
            {"optimizer": lambda x: fastopt.GD(np.zeros(1))},
            ValueError,
            ["optimizer", "that it is called with"],
        ),
        ({"optimizer": lambda x: fastopt.GD([x])}, ValueError, ["optimizer", "that it is called with"]),
    ],
)
def test_refusals(changed, error, words):
    arguments = {"fun": square, "x0": [0.0], "grad": gradient} | changed
    with pytest.raises(error) as caught:
        fastopt.minimize(**arguments)
    for word in words:
        assert word in str(caught.value)


def test_the_point_cannot_be_written_by_the_function():
    def fun(x):
        x[0] = 1
        return 0.0

    with pytest.raises(ValueError, match="read-only"):
        fastopt.minimize(fun, [0.0], grad=gradient)


def test_a_learning_rate_of_zero_is_no_sign_of_convergence():
    """A warm-up begins with it."""
    optimizer = functools.partial(fastopt.GD, lr=fastopt.schedules.warmup(0.1, steps=10))
    found = fastopt.minimize(
        lambda x: ((x - 3) ** 2).sum(), np.zeros(2), grad=lambda x: 2 * (x - 3), optimizer=optimizer, step_tol=1e-9
    )
    assert found.success
    np.testing.assert_allclose(found.x, 3, atol=1e-6)
