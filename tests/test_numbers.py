"""Hyperparameters, schedules and scalars: what is a number, and in which range."""

import ml_dtypes
import numpy as np
import pytest

import fastopt
from fastopt._api import hyperparameters
from fastopt._bench.catalog import OPTIMIZERS

from .oracles import GRADIENTS
from .refusals import F32, ones, refuse, refuse_step, refuse_values, twin_of, written

pytestmark = pytest.mark.usefixtures("both_checks")


VANISHING = [(name, hyper) for name, cls in OPTIMIZERS.items() for hyper in cls._guards]


@pytest.mark.parametrize(("name", "hyper"), VANISHING)
def test_what_keeps_a_divisor_from_zero_must_not_be_rounded_to_zero(name, hyper):
    """With float32's 0 in its place, a gradient of 0 would make NaN."""
    cls, p = OPTIMIZERS[name], ones(3)
    words = [f"{hyper} must be 0 or at least 1.4e-45", "float32", "1e-60"]
    refuse(lambda: cls(p, **{hyper: 1e-60}), ValueError, words, p)
    opt = cls(p)
    refuse(lambda: setattr(opt, hyper, 1e-60), ValueError, words, p)
    assert getattr(opt, hyper) == cls.hyperparameters[hyper]
    states, timed = {s: ones(3) for s in opt.state}, {"step": 1} if cls.timed else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, ones(3), **states, **timed, **{hyper: 1e-60}), ValueError, words, p)
    update = fastopt.jitable(cls, **{hyper: 1e-60})
    refuse(lambda: update(p, ones(3), *states.values(), 1, 0.1), ValueError, words, p)
    wide = np.ones(3)
    cls(wide, **{hyper: 1e-60}).step(np.ones(3))  # float64 has it
    for kept in (0.0, 2e-45, 1e-8):
        setattr(opt, hyper, kept)


@pytest.mark.parametrize(
    ("schedule", "error", "words"),
    [
        (lambda step: np.nan, ValueError, ["lr(1)", "finite", "nan"]),
        (lambda step: -1, ValueError, ["lr(1)", "[0", "-1"]),
        (lambda step: np.inf, ValueError, ["lr(1)", "finite", "inf"]),
        (lambda step: None, TypeError, ["lr(1)", "number", "None"]),
        (lambda step: True, TypeError, ["lr(1)", "number", "True"]),
        (lambda step: 10**400, ValueError, ["lr(1)", "finite"]),
        (lambda step: "x", TypeError, ["lr(1)", "number", "'x'"]),
        (lambda step: 1 / 0, ZeroDivisionError, []),
    ],
)
def test_bad_schedules(schedule, error, words):
    opt = fastopt.Adam(ones(3), lr=schedule)
    refuse_values(opt, ones(3), error, words)


def test_a_schedule_that_turns_bad_later():
    opt = fastopt.Adam(ones(3), lr=lambda step: 0.1 if step < 3 else -step)
    opt.step(ones(3))
    opt.step(ones(3))
    refuse_values(opt, ones(3), ValueError, ["lr(3)", "[0", "-3"])


TOO_LARGE = [
    ("GD", {"lr": 1e39}, F32),
    ("GD", {"weight_decay": 1e39}, F32),
    ("GD", {"lr": 1e30, "weight_decay": 1e30, "decoupled": True}, F32),
    ("GD", {"lr": 1e30, "weight_decay": 1e300, "decoupled": True}, F32),
    ("GD", {"lr": 1e200, "weight_decay": 1e200, "decoupled": True}, np.float64),
    ("Momentum", {"lr": 1e300}, F32),
    ("RMSprop", {"eps": 1e39}, F32),
    ("RMSprop", {"eps_root": 1e39}, F32),
    ("Adam", {"eps": 1e300}, F32),
    ("Adam", {"lr": 1e308}, np.float64),  # divided by 1 - beta
    ("Adam", {"eps_hat": 1e308}, np.float64),
    ("AdamW", {"lr": 1e38}, F32),
]


@pytest.mark.parametrize(("name", "kwargs", "dtype"), TOO_LARGE)
def test_scalars_too_large_for_the_dtype(name, kwargs, dtype):
    opt = OPTIMIZERS[name](ones(3, dtype=dtype))
    good = dict(opt.describe())
    opt._set_hyperparameters(kwargs)
    words = ["too large", np.dtype(dtype).name]
    grads = ones(3, dtype=dtype)
    refuse_step(opt, grads, ValueError, words, mend=lambda o: o._set_hyperparameters(good), bind=False)
    p, states = ones(3, dtype=dtype), {s: ones(3, dtype=dtype) for s in opt.state}
    timed = {"step": 1} if OPTIMIZERS[name].timed else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, grads, **states, **timed, **kwargs), ValueError, words, p, *states.values())


def test_a_step_number_that_no_float_can_hold():
    p, g, m, v = (ones(3) for _ in range(4))
    refuse(lambda: fastopt.adam(p, g, m, v, step=10**400), ValueError, ["step"], p, m, v)


HALVES = [np.array(0.5), np.array(0.5, F32), np.float32(0.5), 0.5, np.longdouble(0.5), ml_dtypes.bfloat16(0.5)]


@pytest.mark.parametrize("number", HALVES, ids=lambda number: type(number).__name__)
def test_numbers_of_every_kind(number):
    """Optax's and JAX's schedules return arrays without dimensions."""
    p = ones(3)
    fastopt.GD(p, lr=lambda step: number).step(ones(3))
    fastopt.gd(p, ones(3), lr=number)
    assert (p == 0).all()
    assert type(fastopt.Adam(p, betas=(number, number), eps=number).eps) is float


def test_numbers_of_jax_and_pytorch():
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")
    p, rate = ones(3), torch.tensor(0.5)
    fastopt.gd(p, ones(3), lr=rate)
    rate.mul_(0.5)
    fastopt.gd(p, ones(3), lr=rate)  # the number that it is now
    assert (p == 0.25).all()
    with pytest.raises(TypeError, match="number"):
        fastopt.GD(p, lr=torch.tensor(True))


def test_lr_by_position():
    p = ones(3)
    opt = fastopt.GD(p, 0.5)
    assert opt.lr == 0.5
    with pytest.raises(TypeError, match="lr"):
        fastopt.GD(p, 0.5, lr=0.5)
    with pytest.raises(TypeError, match="positional"):
        fastopt.Adam(p, 0.5, (0.9, 0.999))
    with pytest.raises(ValueError, match="lr must be a finite number"):
        fastopt.Adam(p, -1.0)


NUMBERS = [-1, -1e-9, np.nan, np.inf, -np.inf, F32(-2), 10**400]


WRONG = ["x", None, [1], 1j, True, np.array([0.5]), np.array(True), np.array(1j), np.array("0.5")]


def shown(value):
    """Return what a message must say of a value; a number of 401 digits may be described."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    return [] if isinstance(value, int) and value > 1e308 else [repr(value)]


#: By the check of a hyperparameter: its range, and numbers beyond it. Others have no upper bound.
BOUNDS = {hyperparameters._decay: ("[0, 1)", [1, 1.5]), hyperparameters._optional_fraction: ("[0, 1]", [1.5])}


def wrong_values():
    """Yield what is wrong of each hyperparameter, once for each name and check: what a class inherits is the same."""
    seen = set()
    for name, cls in OPTIMIZERS.items():
        if not cls.__module__.startswith("fastopt.optimizers"):
            continue
        for hyper, default in cls.hyperparameters.items():
            key = hyper, cls._fields[hyper].check
            if hyper in GRADIENTS or key in seen:  # tests/test_gradients.py
                continue
            seen.add(key)
            if isinstance(default, bool) or hyper == "reproducible":
                for value in [0, 1, "x", 0.5, *([] if default is None else [None])]:
                    yield name, hyper, value, TypeError, [hyper, "True or False", *shown(value)]
            elif isinstance(default, tuple):
                for value in [*NUMBERS, 1, 1.5]:
                    words = ["finite number in [0, 1)", *shown(value)]
                    yield name, hyper, (value, 0.5), ValueError, [f"{hyper}[0]", *words]
                    yield name, hyper, (0.5, value), ValueError, [f"{hyper}[1]", *words]
                for value in [0.5, (0.5,), (0.1, 0.2, 0.3), None]:
                    yield name, hyper, value, TypeError, [hyper, "pair of numbers in [0, 1)", *shown(value)]
                for value in ["x", None, True]:
                    yield name, hyper, (0.5, value), TypeError, [f"{hyper}[1]", "number", *shown(value)]
            else:
                bound, beyond = BOUNDS.get(cls._fields[hyper].check, ("[0, inf)", []))
                for value in [*NUMBERS, *beyond]:
                    yield name, hyper, value, ValueError, [hyper, f"finite number in {bound}", *shown(value)]
                for value in WRONG:
                    if value is not None or default is not None:
                        yield name, hyper, value, TypeError, [hyper, "must be a number", *shown(value)]


@pytest.mark.parametrize(("name", "hyper", "value", "error", "words"), list(wrong_values()), ids=str)
def test_hyperparameters(name, hyper, value, error, words):
    cls = OPTIMIZERS[name]
    p = ones(3)
    refuse(lambda: cls(p, **{hyper: value}), error, words, p)
    opt = cls(p)
    opt.step(ones(3))
    before = dict(opt.describe())
    refuse(lambda: setattr(opt, hyper, value), error, words, *written(opt))
    assert dict(opt.describe()) == before
    twin = twin_of(opt)
    for either in (opt, twin):
        either.step(ones(3))
    assert [a.tobytes() for a in written(opt)] == [a.tobytes() for a in written(twin)]
    states = {s: ones(3) for s in opt.state}
    timed = {"step": 1} if OPTIMIZERS[name].timed else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, ones(3), **states, **timed, **{hyper: value}), error, words, p, *states.values())


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("unknown", ["learning_rate", "foreach", "fused", "_lr"])
def test_unknown_arguments_are_refused_by_name(name, unknown):
    p = ones(3)
    refuse(lambda: OPTIMIZERS[name](p, **{unknown: 1}), TypeError, [unknown, name, "lr"], p)
    states = {s: ones(3) for s in OPTIMIZERS[name](ones(3)).state}
    timed = {"step": 1} if OPTIMIZERS[name].timed else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, ones(3), **states, **timed, **{unknown: 1}), TypeError, [unknown, "lr"], p)


def test_a_change_that_changes_the_states_is_refused():
    opt, twin = fastopt.RMSprop(ones(3)), fastopt.RMSprop(ones(3))
    for name, value in (("centered", True), ("momentum", 0.5)):
        refuse(lambda: setattr(opt, name, value), ValueError, ["RMSprop", "states"], *written(opt))  # noqa: B023
        assert dict(opt.describe()) == dict(twin.describe())
    opt.step(ones(3))
    twin.step(ones(3))
    assert [a.tobytes() for a in written(opt)] == [a.tobytes() for a in written(twin)]
    moving = fastopt.RMSprop(ones(3), momentum=0.5)
    moving.momentum = 0.25
    refuse(lambda: setattr(moving, "momentum", 0.0), ValueError, ["states"])
    assert moving.momentum == 0.25


def test_the_messages_in_full():
    with pytest.raises(ValueError, match=r"^lr must be a finite number in \[0, inf\), got -1$"):
        fastopt.GD(ones(3), lr=-1)
    with pytest.raises(ValueError, match=r"^betas\[1\] must be a finite number in \[0, 1\), got 1\.0$"):
        fastopt.Adam(ones(3), betas=(0.9, 1.0))
    with pytest.raises(ValueError, match=r"^grads must have the shape of params, \(3,\); got \(4,\)$"):
        fastopt.GD(ones(3)).step(ones(4))
