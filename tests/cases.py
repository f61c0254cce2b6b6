"""One entry per configuration that is tested: (class name, keyword arguments).

A new optimizer needs its equation in oracles.py and expressions.py, and its entries here; every test that runs over
optimizers runs over this list.
"""

import inspect
import itertools

import numpy as np
import pytest

import fastopt
from fastopt._bench import storages
from fastopt.optimizers import _cautious
from fastopt.rules import trust_ratio

from .oracles import answer, has_norms


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
    ("Lion", {}),
    ("Lion", {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1, "decoupled": False, "maximize": True}),
    ("Adagrad", {}),
    (
        "Adagrad",
        {"eps": 1e-6, "eps_root": 1e-7, "initial_accumulator_value": 0.1}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("NAdam", {}),
    (
        "NAdam",
        {"betas": (0.8, 0.99), "eps": 1e-6, "eps_root": 1e-7}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("Adamax", {}),
    (
        "Adamax",
        {"betas": (0.8, 0.99), "eps": 1e-6, "lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.9, "eps_root": 1e-4, "weight_decay": 0.1, "decoupled": True, "maximize": True}),
    ("RAdam", {}),
    (
        "RAdam",
        {"betas": (0.8, 0.9), "eps": 1e-6, "eps_root": 1e-7, "eps_hat": 1e-7}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("Adam", {"betas": (0.8, 0.9), "amsgrad": True}),
    ("AdamW", {"amsgrad": True}),
    ("AdamW", {"betas": (0.5, 0.9), "lr": 0.1, "weight_decay": 0.1, "cautious": True}),
    ("Adam", {"amsgrad": True, "cautious": True, "maximize": True}),
    ("Lion", {"lr": 0.1, "betas": (0.3, 0.9), "weight_decay": 0.1, "cautious": True}),
    ("SignSGD", {}),
    ("SignSGD", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.1, "decoupled": True, "maximize": True}),
    ("Yogi", {}),
    (
        "Yogi",
        {"betas": (0.8, 0.99), "eps": 1e-4, "eps_root": 1e-7, "initial_accumulator_value": 1e-5}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("AdaBelief", {}),
    (
        "AdaBelief",
        {"betas": (0.8, 0.99), "eps": 1e-6, "eps_root": 1e-7}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("Adan", {}),
    (
        "Adan",
        {"betas": (0.9, 0.8), "beta3": 0.95, "eps": 1e-6, "eps_root": 1e-7}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": False, "maximize": True},
    ),
    ("ADOPT", {}),
    (
        "ADOPT",
        {"betas": (0.8, 0.99), "eps": 1e-3, "lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("AdEMAMix", {}),
    (
        "AdEMAMix",
        {"betas": (0.8, 0.99), "beta3": 0.95, "alpha": 8.0, "beta3_warmup": 2.5, "alpha_warmup": 3.0}
        | {"eps": 1e-6, "eps_root": 1e-7, "lr": 0.1, "weight_decay": 0.1, "decoupled": False, "maximize": True},
    ),
    ("ScheduleFreeSGD", {}),
    (
        "ScheduleFreeSGD",
        {"lr": 0.1, "beta": 0.8, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("ScheduleFreeAdamW", {}),
    (
        "ScheduleFreeAdamW",
        {"betas": (0.8, 0.99), "eps": 1e-6, "eps_root": 1e-7}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": False, "maximize": True},
    ),
    ("ScheduleFreeAdamW", {"lr": decreasing, "weight_decay": 0.5}),
    ("LARS", {}),
    (
        "LARS",
        {"beta": 0.8, "trust": 0.02, "eps": 1e-3, "nesterov": True}
        | {"lr": 0.1, "weight_decay": 0.1, "decoupled": True, "maximize": True},
    ),
    ("LAMB", {}),
    (
        "LAMB",
        {"betas": (0.8, 0.99), "eps": 1e-4, "eps_root": 1e-7, "lr": 0.1, "weight_decay": 0.1, "maximize": True},
    ),
    ("LAMB", {"lr": decreasing, "weight_decay": 0.1, "decoupled": False}),
]
DTYPES = [np.float32, np.float64]
# Larger arrays repeat so many random elements; a prime, so that each comes by every place in a packed register.
PERIOD = 9973


def name_of(case):
    name, kwargs = case
    return "-".join([name, *(f"{k}={getattr(v, '__name__', v)}" for k, v in kwargs.items())])


def slow_operations(name):
    """Return how many roots and quotients the rule of an optimizer has, as its source says."""
    rule = getattr(fastopt, name).rule
    called = (rule.__globals__.get(used) for used in rule.__code__.co_names)
    # What it calls counts too, but for what is the same for all elements of a tensor.
    helpers = [f for f in called if inspect.isfunction(f) and f not in (trust_ratio, _cautious.factor)]
    source = "".join(map(inspect.getsource, (rule, *helpers)))
    return {"sqrt": source.count("np.sqrt("), "div": source.count(" / ")}


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


#: The classes of which README's command tries more than of others.
CORE = ("GD", "Momentum", "RMSprop", "AdamW")


def in_turns(names, others, cases=CASES, ids=str, *, core=False):
    """Return a mark that runs a test for every case and each of others, such as storages.

    Rules are compiled as they are whatever the storage is, and storages whatever the rule is. So CI, where each pair
    takes a second, tries every class with every other, its cases taking turns, and each case with one at least; of
    these README's command runs those of the first case of a class, and of :data:`CORE` the second; if `core`, of no
    other class, of which CI runs the first, and if that is "alone", none. All other pairs are for the slow command.
    """
    found, names, others = [], names.split(), list(others)
    for name in dict.fromkeys(name for name, _ in cases):
        own = [case for case in cases if case[0] == name]
        for (k, case), (j, other) in itertools.product(enumerate(own), enumerate(others)):
            turn = k % len(others) == j if len(own) > len(others) else j % len(own) == k
            beyond = name not in CORE and (core == "alone" or (core and k > 0))
            by_turn = pytest.mark.slow if beyond else pytest.mark.ci
            marks = [] if turn and _is_quick(name, k, core) else [by_turn if turn else pytest.mark.slow]
            values = other if len(names) > 1 else (other,)
            found.append(pytest.param(case, *values, id=f"{name_of(case)}-{ids(other)}", marks=marks))
    return pytest.mark.parametrize(("case", *names), found)


def by_ci(cases, *, core=False):
    """Return a mark that runs a test, which compiles for a second or so, for every case, most of them by CI alone."""
    names, found = [name for name, _ in cases], []
    for k, case in enumerate(cases):
        number = names[:k].count(case[0])
        by_ci = pytest.mark.slow if core and number > 0 and case[0] not in CORE else pytest.mark.ci
        marks = [] if _is_quick(case[0], number, core) else [by_ci]
        found.append(pytest.param(case, id=name_of(case), marks=marks))
    return pytest.mark.parametrize("case", found)


def first_cases(cases):
    """Return the first case of each class, and one more of :data:`CORE`."""
    names = [name for name, _ in cases]
    return [case for k, case in enumerate(cases) if names[:k].count(case[0]) < 1 + (case[0] in CORE)]


def every_class(names, mark):
    """Return parameters for all classes, those beyond :data:`CORE`, and one with norms, with a mark."""
    return [name if name in (*CORE, "LAMB") else pytest.param(name, marks=mark) for name in names]


def _is_quick(name, k, core):
    """Say whether README's command runs case number `k` of a class."""
    return k < (2 if name in CORE else 0 if core else 1)


every_case_by_ci = by_ci(CASES)
#: Those of rules to which it is all the same which elements a tensor has.
elementwise_cases_in_turns = in_turns(
    "dtype", DTYPES, [case for case in CASES if not has_norms(case[0], **case[1])], ids=lambda dtype: dtype.__name__
)
core_cases_by_ci = by_ci(CASES, core=True)
#: Every case, with each dtype of the arithmetic; the second: compiled in more than one way.
every_case_in_turns = in_turns("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
core_cases_in_turns = in_turns("dtype", DTYPES, ids=lambda dtype: dtype.__name__, core=True)
core_cases_alone_in_turns = in_turns("dtype", DTYPES, ids=lambda dtype: dtype.__name__, core="alone")


def make(case, params, **more):
    name, kwargs = case
    return getattr(fastopt, name)(params, **kwargs, **more)


def without_lr(case):
    """Return the class name, the hyperparameters but `lr`, and the learning rate as a function of the step."""
    name, kwargs = case
    lr = kwargs.get("lr", getattr(fastopt, name).hyperparameters["lr"])
    rest = {k: v for k, v in kwargs.items() if k != "lr"}
    return name, rest, lr if callable(lr) else lambda step: lr


def first_states(opt, like):
    """Return what the states of an optimizer hold before the first step, each an array like the given one."""
    begin = opt.initial_values()
    return {name: np.full_like(like, begin[name]) for name in opt.active_states()}


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
    some = p.size if has_norms(name, **kwargs) else PERIOD
    old = [a[:some].copy() for a in arrays]
    opt.step(g)
    exact = answer(name, old[0], g[:some], old[1:], opt.step_count, **kwargs)
    for new, right in zip(arrays, exact, strict=True):
        assert np.max(right.excess(new[:some]), initial=0) <= 1
    assert_same_bits(arrays, [np.resize(a[:PERIOD], a.shape) for a in arrays])


#: Few storages, in which every way to store a parameter, every format of a state and of a gradient comes.
FEW_STORAGES = storages.selected(
    (
        "float64, bfloat16 gradients",
        "float64, float32 states",
        "float32",
        "float32, int8 states, float16 gradients",
        "bfloat16, bfloat16 states",
        "bfloat16, stochastic, float16 states, float32 gradients",
        "bfloat16, kahan, bfloat16 states, float16 gradients",
        "split8, int8 states",
        "split16, int8 states, float32 gradients",
        "float16",
        "float16, stochastic, int8 states, bfloat16 gradients",
        "float16, kahan, float16 states, float32 gradients",
    )
)


def dtype_of(format_):
    """Return the type of NumPy's or of ml_dtypes' in which arrays are in a format."""
    if format_ == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(format_).type


def stored(numbers, format_):
    """Return float32 numbers rounded to a format; bfloat16 as its bits, which need no library on a GPU."""
    rounded = numbers.astype(dtype_of(format_))
    return rounded.view(np.uint16) if format_ == "bfloat16" else rounded


def every_one_of(chosen):
    """Return a mark that runs a test for each of some storages."""
    return pytest.mark.parametrize("storage", [pytest.param(s, id=s.name) for s in chosen])


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
