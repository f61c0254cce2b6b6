"""One entry per configuration that is tested: (class name, keyword arguments).

A new optimizer needs its equation in oracles.py and expressions.py, and its entries here; every test that runs over
optimizers runs over this list.
"""

import inspect

import numpy as np
import pytest

import fastopt
from fastopt._storage import formats

from .oracles import answer


def decreasing(step):
    """Return a learning rate that depends on the step."""
    return 0.1 / step


CASES = [
    ("GD", {}),
    ("GD", {"lr": 0.5, "maximize": True}),
    ("GD", {"lr": decreasing, "weight_decay": 0.1}),
    ("GD", {"weight_decay": 0.1, "decoupled": True}),
    ("Momentum", {}),
    ("Momentum", {"beta": 0.5, "dampening": 0.0}),
    ("Momentum", {"dampening": 0.3, "nesterov": True}),
    ("Momentum", {"nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("Momentum", {"lr": decreasing, "weight_decay": 0.1, "decoupled": True}),
    ("RMSprop", {}),
    ("RMSprop", {"beta": 0.99, "eps": 1e-6, "eps_root": 0.0}),
    ("RMSprop", {"centered": True, "eps_root": 1e-3}),
    ("RMSprop", {"centered": True, "eps": 1e-3, "eps_root": 0.0}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"lr": decreasing, "weight_decay": 0.1, "maximize": True}),
    (
        "RMSprop",
        {"centered": True, "momentum": 0.5, "eps_root": 1e-3, "weight_decay": 0.1, "decoupled": True},
    ),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 0.0, "eps_root": 1e-8}),
    ("Adam", {"eps": 0.0, "eps_hat": 1e-7}),
    ("Adam", {"weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": decreasing, "weight_decay": 0.1, "decoupled": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5, "eps": 1e-3, "maximize": True}),
    ("AdamW", {"betas": (0.8, 0.99), "eps_root": 1e-6, "eps_hat": 1e-6, "decoupled": False}),
]
DTYPES = [np.float32, np.float64]
# Larger arrays repeat so many random elements; a prime, so that each comes by every place in a packed register.
PERIOD = 9973


def name_of(case):
    name, kwargs = case
    return "-".join([name, *(f"{k}={getattr(v, '__name__', v)}" for k, v in kwargs.items())])


def slow_operations(name):
    """Return whether the rule of an optimizer has roots, and quotients, as its source says."""
    source = inspect.getsource(getattr(fastopt, name).rule)
    return {"sqrt": "np.sqrt(" in source, "div": " / " in source}


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def make(case, params, **more):
    name, kwargs = case
    return getattr(fastopt, name)(params, **kwargs, **more)


def without_lr(case):
    """Return the class name, the hyperparameters but `lr`, and the learning rate as a function of the step."""
    name, kwargs = case
    lr = kwargs.get("lr", getattr(fastopt, name).hyperparameters["lr"])
    rest = {k: v for k, v in kwargs.items() if k != "lr"}
    return name, rest, lr if callable(lr) else lambda step: lr


def call(case, p, g, states, step):
    """Take a step by the function form."""
    name, kwargs, lr = without_lr(case)
    function = getattr(fastopt, name.lower())
    timed = {"step": step} if "step" in inspect.signature(function).parameters else {}
    return function(p, g, **states, **timed, **kwargs, lr=lr(step))


def random(shape, dtype, seed=0, zeros=True):
    """Return normal numbers, some of them zero."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=shape).astype(dtype)
    if zeros and a.size:
        a.flat[:: max(7, a.size // 100)] = 0
    return a


def assert_same_bits(given, expected):
    """Compare two sequences of arrays, NaN and the sign of zero included."""
    for a, b in zip(given, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def check_step(case, opt, p, g):
    """Take one step from the arrays as they are; each element may be off by its roundings, never more."""
    name, kwargs = case
    arrays = [p, *opt.state.values()]
    old = [a[:PERIOD].copy() for a in arrays]
    opt.step(g)
    exact = answer(name, old[0], g[:PERIOD], old[1:], opt.step_count, **kwargs)
    for new, right in zip(arrays, exact, strict=True):
        assert np.max(right.excess(new[:PERIOD]), initial=0) <= 1
    assert_same_bits(arrays, [np.resize(a[:PERIOD], a.shape) for a in arrays])


FORMATS = {"float64": np.float64, "float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}


def _every_storage():
    for param in FORMATS:
        number = formats.compute_dtype(param)
        ways = [{}]
        if param in ("bfloat16", "float16"):
            ways += [{"rounding": rounding} for rounding in formats.ROUNDINGS[1:]]
        if param == "bfloat16":
            ways += [{"master": master} for master in formats.MASTERS]
        for way in ways:
            for state in formats.STATES[number]:
                for grad in FORMATS:
                    if number == "float64" or grad != "float64":
                        yield param, grad, way | {"state_dtype": state}


#: Every storage that there is: the format of the parameters, that of the gradients, and what an optimizer is given.
STORAGES = list(_every_storage())
#: Few of them, in which every way to store a parameter, every format of a state and of a gradient comes.
FEW_STORAGES = [
    next(s for s in STORAGES if s == wanted)
    for wanted in [
        ("float64", "bfloat16", {"state_dtype": "float64"}),
        ("float64", "float64", {"state_dtype": "float32"}),
        ("float32", "float32", {"state_dtype": "float32"}),
        ("float32", "float16", {"state_dtype": "int8"}),
        ("bfloat16", "bfloat16", {"state_dtype": "bfloat16"}),
        ("bfloat16", "float32", {"rounding": "stochastic", "state_dtype": "float16"}),
        ("bfloat16", "float16", {"rounding": "kahan", "state_dtype": "bfloat16"}),
        ("bfloat16", "bfloat16", {"master": "split8", "state_dtype": "int8"}),
        ("bfloat16", "float32", {"master": "split16", "state_dtype": "int8"}),
        ("float16", "float16", {"state_dtype": "float32"}),
        ("float16", "bfloat16", {"rounding": "stochastic", "state_dtype": "int8"}),
        ("float16", "float32", {"rounding": "kahan", "state_dtype": "float16"}),
    ]
]


def storage_name(storage):
    param, grad, kwargs = storage
    return "-".join([param, f"grad={grad}", *kwargs.values()])


def stored(numbers, format_):
    """Return float32 numbers rounded to a format; bfloat16 as its bits, which need no library on a GPU."""
    if format_ != "bfloat16":
        return numbers.astype(FORMATS[format_])
    import ml_dtypes

    return numbers.astype(ml_dtypes.bfloat16).view(np.uint16)


def numbers_of(array):
    """Return what the elements of an array in any format mean, in float64."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def assert_same_bits_but_for_nan(given, expected):
    """Compare two sequences of arrays; NaN has many bit patterns, of which each processor chooses its own."""
    for a, b in zip(given, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype.itemsize == 1 or a.dtype.kind == "i":  # codes, and bits beside others: no floats
            np.testing.assert_array_equal(a, b)
            continue
        nan = np.isnan(numbers_of(a))
        np.testing.assert_array_equal(nan, np.isnan(numbers_of(b)))
        assert_same_bits([a[~nan]], [b[~nan]])
