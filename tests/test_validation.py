"""Everything is refused before the first byte is written; the argument, what is allowed and the value are named."""

import itertools

import numpy as np
import pytest

import fastopt
from fastopt import _compile, _threads
from fastopt._optimizer import registry

F32 = np.float32


@pytest.fixture(params=["fast", "close"], autouse=True)
def check(request, monkeypatch):
    """Run everything twice: with array headers read from compiled code, and in Python alone."""
    if request.param == "close":
        monkeypatch.setattr(_compile, "refresh", lambda: None)
    return request.param


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


def refuse(action, error, words, *arrays):
    """Check that `action` raises, says the words, and leaves every byte of the arrays as it was."""
    before = [a.tobytes() for a in arrays]
    with pytest.raises(error) as caught:
        action()
    assert caught.type is error
    for word in words:
        assert str(word) in str(caught.value), caught.value
    assert [a.tobytes() for a in arrays] == before


def written(opt):
    return [*opt._arrays, *itertools.chain(*opt._states.values())]


def twin_of(opt):
    """Return an optimizer with arrays of its own that stands where `opt` does."""
    copies = [a.copy(order="K") for a in opt._arrays]
    twin = type(opt)(opt._structure.pack(copies), **dict(opt.describe()))
    for a, b in zip(written(twin), written(opt), strict=True):
        a[...] = b
    twin.step_count = opt.step_count
    return twin


def refuse_step(opt, grads, error, words, mend=None, bind=True):
    """Check the same of a step; once `mend` made the optimizer fit to go on, it goes on as if nothing had been."""
    count, twin = opt.step_count, twin_of(opt)
    given = grads.values() if isinstance(grads, dict) else grads if isinstance(grads, list) else [grads]
    arrays = [*written(opt), *(g for g in given if isinstance(g, np.ndarray))]
    refuse(lambda: opt.step(grads), error, words, *arrays)
    if bind:
        refuse(lambda: opt.bind(grads), error, words, *arrays)
    assert opt.step_count == count
    for either in (opt, twin):
        if mend is not None:
            mend(either)
        either.step(either._structure.pack([np.full_like(a, 0.5, subok=False) for a in either._arrays]))
    assert opt.step_count == count + 1
    assert [a.tobytes() for a in written(opt)] == [a.tobytes() for a in written(twin)]


READ_ONLY = ones(3)
READ_ONLY.setflags(write=False)
MISALIGNED = np.frombuffer(bytearray(13), np.uint8)[1:].view(F32)

BAD_ARRAYS = [
    (np.ones(3, int), TypeError, ["float16 or bfloat16", "int64"]),
    (np.ones(3, bool), TypeError, ["float16 or bfloat16", "bool"]),
    (np.ones(3, complex), TypeError, ["float16 or bfloat16", "complex128"]),
    (np.ones(3, object), TypeError, ["float16 or bfloat16", "object"]),
    (np.ones(3, np.int16), TypeError, ["float16 or bfloat16", "int16"]),
    (np.ones(3, np.longdouble), TypeError, ["float16 or bfloat16"]),
    (np.ones(3, ">f4"), TypeError, ["native byte order", ">f4"]),
    (np.ones(3, "M8[s]"), TypeError, ["float16 or bfloat16", "datetime64"]),
    (np.zeros(3, [("a", F32)]), TypeError, ["float16 or bfloat16"]),
    (np.ma.masked_array(ones(3), [0, 1, 0]), TypeError, ["masked"]),
    (np.ones(6, F32)[::2], ValueError, ["contiguous", "(8,)"]),
    (np.ones((3, 4), F32)[:, :2], ValueError, ["contiguous", "(3, 2)"]),
    (np.broadcast_to(ones(1), (3,)), ValueError, ["contiguous"]),
    (MISALIGNED, ValueError, ["aligned"]),
    (None, TypeError, ["ndarray", "None"]),
    ([1.0, 2.0, 3.0], TypeError, ["ndarray", "list"]),
    (1.5, TypeError, ["ndarray", "1.5"]),
    ("abc", TypeError, ["ndarray", "str"]),
]


@pytest.mark.parametrize(("bad", "error", "words"), BAD_ARRAYS)
def test_bad_parameters(bad, error, words):
    good = ones(3)
    refuse(lambda: fastopt.Adam([good, bad]), error, ["params[1]", *words], good)
    refuse(lambda: fastopt.Adam({"w": good, "b": bad}), error, ["params['b']", *words], good)
    if isinstance(bad, np.ndarray):
        refuse(lambda: fastopt.Adam(bad), error, ["params", *words])
        g = np.ones(bad.shape, F32)
        refuse(lambda: fastopt.gd(bad, g), error, ["p ", *words], g)


@pytest.mark.parametrize(("bad", "error", "words"), BAD_ARRAYS)
def test_bad_gradients(bad, error, words):
    shape = bad.shape if isinstance(bad, np.ndarray) else (3,)
    opt = fastopt.Adam([ones(3), ones(*shape)])
    opt.step([ones(3), ones(*shape)])
    refuse_step(opt, [ones(3), bad], error, ["grads[1]", *words])
    p, m, v = (ones(*shape) for _ in range(3))
    refuse(lambda: fastopt.adam(p, bad, m, v, step=1), error, ["g ", *words], p, m, v)


@pytest.mark.parametrize(("bad", "error", "words"), BAD_ARRAYS)
def test_bad_states(bad, error, words):
    if bad is not None:
        shape = bad.shape if isinstance(bad, np.ndarray) else (3,)
        p, g, m = (ones(*shape) for _ in range(3))
        refuse(lambda: fastopt.adam(p, g, m, bad, step=1), error, ["v ", *words], p, g, m)


def test_read_only():
    refuse(lambda: fastopt.Adam(READ_ONLY), ValueError, ["params", "read-only"])
    p, g, m = ones(3), ones(3), ones(3)
    refuse(lambda: fastopt.gd(READ_ONLY, g), ValueError, ["p ", "read-only"], g)
    refuse(lambda: fastopt.adam(p, g, m, READ_ONLY, step=1), ValueError, ["v ", "read-only"], p, g, m)
    opt = fastopt.Adam(p)
    opt.step(READ_ONLY)  # gradients are only read
    fastopt.gd(p, READ_ONLY)
    p.setflags(write=False)
    refuse_step(opt, g, ValueError, ["params", "read-only"], mend=lambda o: o.params.setflags(write=True))


def test_parameters_made_read_only_later():
    a, b = ones(3), ones(4, dtype=np.float64)
    opt = fastopt.Adam({"a": a, "b": b})
    b.setflags(write=False)
    grads = {"a": ones(3), "b": ones(4, dtype=np.float64)}
    words = ["params['b']", "writable", "read-only"]
    refuse_step(opt, grads, ValueError, words, mend=lambda o: o.params["b"].setflags(write=True))


@pytest.mark.parametrize("name", sorted(c for c in registry if hasattr(fastopt, c)))
@pytest.mark.parametrize("dtype", [F32, np.float64])
def test_every_class_refuses_and_goes_on(name, dtype):
    p = ones(2, 3, dtype=dtype)
    opt = registry[name](p)
    opt.step(ones(2, 3, dtype=dtype))
    refuse_step(opt, ones(3, 2, dtype=dtype), ValueError, ["grads", "(2, 3)", "(3, 2)"])
    refuse_step(opt, p, ValueError, ["grads", "params", "share memory"])
    refuse_step(opt, p.astype(np.int16), TypeError, ["grads", "float16 or bfloat16", "int16"])
    refuse_step(opt, p[0].tolist(), TypeError, ["grads", "one array", "list"])
    for state in opt.state.values():
        refuse_step(opt, state, ValueError, ["grads", "state of params", "share memory"])


def test_a_refusal_leaves_the_bound_gradients():
    p, q = ones(3), ones(3)
    opt, twin = fastopt.Adam(p), fastopt.Adam(q)
    opt.bind(np.full(3, 2, F32))
    for _ in range(2):
        refuse(lambda: opt.bind(ones(4)), ValueError, ["grads"], *written(opt))
        refuse(lambda: opt.step(p), ValueError, ["grads"], *written(opt))
        opt.step()
        twin.step(np.full(3, 2, F32))
    assert p.tobytes() == q.tobytes()


@pytest.mark.parametrize(
    ("grad", "error", "words"),
    [
        (ones(4), ValueError, ["(2, 3)", "(4,)"]),
        (ones(3, 2), ValueError, ["(2, 3)", "(3, 2)"]),
        (ones(6), ValueError, ["(2, 3)", "(6,)"]),
        (ones(2, 3, dtype=np.float64), TypeError, ["float32", "float64"]),
        (
            np.asfortranarray(np.ones((2, 3), F32)),
            ValueError,
            ["memory order", "C", "F", "ascontiguousarray"],
        ),
    ],
)
def test_gradients_unlike_their_parameter(grad, error, words):
    p = ones(2, 3)
    refuse_step(fastopt.Adam(p), grad, error, ["grads", "params", *words])
    refuse_step(fastopt.Adam([ones(3), p]), [ones(3), grad], error, ["grads[1]", "params[1]", *words])
    m, v = ones(2, 3), ones(2, 3)
    refuse(lambda: fastopt.adam(p, grad, m, v, step=1), error, ["g ", "p,", *words], p, m, v)
    refuse(lambda: fastopt.adam(p, m, v, grad, step=1), error, ["v ", "p,", *words], p, m, v)


def test_fortran_parameters_need_fortran_gradients():
    p = np.asfortranarray(np.ones((2, 3)))
    refuse_step(fastopt.GD(p), np.ones((2, 3)), ValueError, ["grads", "F", "asfortranarray"])


def test_overlap_among_parameters():
    a = ones(10)
    refuse(lambda: fastopt.GD([a, a]), ValueError, ["params[0]", "params[1]", "share memory"], a)
    refuse(lambda: fastopt.GD({"x": a[:6], "y": a[5:]}), ValueError, ["params['x']", "params['y']"], a)
    refuse(lambda: fastopt.GD([a, a.reshape(2, 5).T]), ValueError, ["share memory"], a)
    fastopt.GD([a[:5], a[5:]]).step([ones(5), ones(5)])  # neighbours


def test_overlap_with_gradients():
    block = ones(30)
    p, q = block[:10], block[10:20]
    opt = fastopt.Adam([p, q])
    for bad in (p, block[5:15], block[1:11]):
        refuse_step(opt, [ones(10), bad], ValueError, ["grads[1]", "params[", "share memory"])
    refuse_step(opt, [ones(10), opt.state["v"][0]], ValueError, ["grads[1]", "state", "share memory"])
    g = ones(11)
    refuse_step(opt, [g[:10], g[1:]], ValueError, ["grads[0]", "grads[1]", "share memory"])
    refuse_step(opt, [g[:10], g[:10]], ValueError, ["grads[0]", "grads[1]", "share memory"])
    opt.step([block[20:], ones(10)])
    single = fastopt.Adam(p)
    refuse_step(single, p, ValueError, ["grads", "params", "share memory"])


def test_overlap_in_functions():
    block = ones(14)
    p, g, m = ones(10), ones(10), ones(10)
    for names, call in [
        ("gp", lambda: fastopt.adam(p, p, m, ones(10), step=1)),
        ("mv", lambda: fastopt.adam(p, g, m, m, step=1)),
        ("gv", lambda: fastopt.adam(p, g, m, g, step=1)),
        ("pv", lambda: fastopt.adam(block[:10], g, m, block[4:], step=1)),
    ]:
        refuse(call, ValueError, [f"{names[0]} and {names[1]} share memory"], p, g, m, block)


def test_counts_keys_and_kinds():
    a, b = ones(2), ones(3)
    sequence, mapping, single = (
        fastopt.Adam([a, b]),
        fastopt.Adam({"a": ones(2), "b": ones(3)}),
        fastopt.Adam(ones(4)),
    )
    refuse_step(sequence, [a.copy()], ValueError, ["grads", "2", "1"])
    refuse_step(sequence, [a.copy(), b.copy(), b.copy()], ValueError, ["grads", "2", "3"])
    refuse_step(sequence, {"a": a, "b": b}, TypeError, ["grads", "sequence", "dict"])
    refuse_step(sequence, np.ones((2, 2)), TypeError, ["grads", "sequence", "(2, 2)"])
    refuse_step(mapping, {"a": a}, ValueError, ["grads", "missing: ['b']"])
    refuse_step(mapping, {"a": a, "b": b, "c": b}, ValueError, ["grads", "unexpected: ['c']"])
    refuse_step(mapping, {"a": a, "c": b}, ValueError, ["missing: ['b']", "unexpected: ['c']"])
    refuse_step(mapping, [a, b], TypeError, ["grads", "mapping"])
    refuse_step(single, [ones(4)], TypeError, ["grads", "one array", "list"])
    refuse_step(single, {"a": ones(4)}, TypeError, ["grads", "one array", "dict"])


@pytest.mark.parametrize("params", [[], (), {}, iter([])])
def test_no_arrays(params):
    refuse(lambda: fastopt.Adam(params), ValueError, ["params", "at least one"])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (1.0, ["float 1.0"]),
        (None, ["None"]),
        ("abc", ["str"]),
        ([1.0, 2.0], ["params[0]", "float 1.0"]),
        ([[ones(2)], ones(3)], ["params[0]", "list"]),
        ({1: ones(2)}, ["strings", "1"]),
    ],
)
def test_parameters_of_another_kind(params, words):
    refuse(lambda: fastopt.Adam(params), TypeError, ["params", *words])


def test_tensors_of_pytorch_are_refused_by_name():
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")
    refuse(lambda: fastopt.Adam(torch.ones(3)), TypeError, ["params", "torch.Tensor"])
    refuse(lambda: fastopt.Adam([torch.ones(3)]), TypeError, ["params[0]", "torch.Tensor"])
    refuse_step(fastopt.Adam(ones(3)), torch.ones(3), TypeError, ["grads", "torch.Tensor"])


def test_step_without_gradients():
    opt = fastopt.Adam(ones(3))
    with pytest.raises(TypeError, match="bind"):
        opt.step()


@pytest.fixture
def nothing_runs(monkeypatch):
    """Fail the test, rather than write to memory that is gone, if a sweep is launched."""
    monkeypatch.setattr(_threads, "launch", lambda *arguments: pytest.fail("the sweep was launched"))


# From and to: moved; grown in place or moved; shrunk in place, where the address stays.
RESIZES = [(10, 100_000), (10, 11), (1000, 999), (1000, 10), (1000, 0), (100_000, 90_000)]


@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_a_parameter_that_was_resized(old, new, nothing_runs):
    p, q = np.ones(old), np.ones(5)
    opt = fastopt.Adam([q, p])
    p.resize(new, refcheck=False)
    refuse(lambda: opt.step([np.ones(5), np.ones(new)]), ValueError, [r"params[1] was resized"], *written(opt))
    with pytest.raises(ValueError, match=r"params\[1\] was resized|shape"):
        opt.step([np.ones(5), np.ones(old)])


def test_a_parameter_that_was_reshaped():
    p = ones(6)
    opt = fastopt.GD(p)
    p.shape = 2, 3
    refuse_step(opt, ones(6), ValueError, ["(2, 3)", "(6,)"], mend=lambda o: setattr(o.params, "shape", 6))


def test_what_is_no_optimizer():
    refuse(lambda: fastopt.Optimizer(ones(3)), TypeError, ["Optimizer", "fastopt.Adam"])
    refuse(lambda: fastopt.jitable(int), TypeError, ["optimizer", "int"])


def test_a_misspelt_attribute_is_refused():
    opt = fastopt.Adam(ones(3))
    with pytest.raises(AttributeError, match=r"learning_rate.*lr"):
        opt.learning_rate = 0.1
    with pytest.raises(AttributeError, match="momentum"):
        opt.momentum = 0.1


def test_two_dtypes_are_both_checked_first():
    a, b = ones(3), ones(3, dtype=np.float64)
    for params in ([a, b], [b, a]):
        opt = fastopt.Adam(params)
        grads = [np.ones_like(p) for p in params]
        for t, p in enumerate(params):
            bad = ones(4, dtype=p.dtype)
            refuse_step(opt, [*grads[:t], bad, *grads[t + 1 :]], ValueError, [f"grads[{t}]", "(3,)", "(4,)"])
        refuse_step(opt, grads[::-1], TypeError, ["grads[", "float32", "float64"])
        opt.lr = 1e300  # too large for float32 alone
        refuse_values(opt, grads, ValueError, ["too large", "float32"])


def refuse_values(opt, grads, error, words):
    """Check that the numbers of a step are refused, however good its gradients are."""
    refuse_step(opt, grads, error, words, mend=lambda o: setattr(o, "lr", 0.1), bind=False)


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
    opt = registry[name](ones(3, dtype=dtype))
    good = dict(opt.describe())
    opt._set_hyperparameters(kwargs)
    words = ["too large", np.dtype(dtype).name]
    grads = ones(3, dtype=dtype)
    refuse_step(opt, grads, ValueError, words, mend=lambda o: o._set_hyperparameters(good), bind=False)
    p, states = ones(3, dtype=dtype), {s: ones(3, dtype=dtype) for s in opt.state}
    timed = {"step": 1} if name.startswith("Adam") else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, grads, **states, **timed, **kwargs), ValueError, words, p, *states.values())


def test_a_step_number_that_no_float_can_hold():
    p, g, m, v = (ones(3) for _ in range(4))
    refuse(lambda: fastopt.adam(p, g, m, v, step=10**400), ValueError, ["step"], p, m, v)


NUMBERS = [-1, -1e-9, np.nan, np.inf, -np.inf, F32(-2), 10**400]
WRONG = ["x", None, [1], 1j, True, np.array([0.5])]


def shown(value):
    """Return what a message must say of a value; a number of 401 digits may be described."""
    return [] if isinstance(value, int) and value > 1e308 else [repr(value)]


def wrong_values():
    for name, cls in registry.items():
        if not cls.__module__.startswith("fastopt.optimizers"):
            continue
        for hyper, default in cls.hyperparameters.items():
            if isinstance(default, bool):
                for value in [0, 1, "x", None, 0.5]:
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
                below_one = hyper.startswith("beta") or hyper == "momentum"
                bound = "[0, 1)" if below_one else "[0, 1]" if hyper == "dampening" else "[0, inf)"
                for value in [*NUMBERS, *([1, 1.5] if below_one else [1.5] if hyper == "dampening" else [])]:
                    yield name, hyper, value, ValueError, [hyper, f"finite number in {bound}", *shown(value)]
                for value in WRONG:
                    if value is not None or default is not None:
                        yield name, hyper, value, TypeError, [hyper, "must be a number", *shown(value)]


@pytest.mark.parametrize(("name", "hyper", "value", "error", "words"), list(wrong_values()), ids=str)
def test_hyperparameters(name, hyper, value, error, words):
    cls = registry[name]
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
    timed = {"step": 1} if name.startswith("Adam") else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, ones(3), **states, **timed, **{hyper: value}), error, words, p, *states.values())


@pytest.mark.parametrize("name", sorted(c for c in registry if hasattr(fastopt, c)))
@pytest.mark.parametrize("unknown", ["learning_rate", "amsgrad", "fused", "_lr"])
def test_unknown_arguments_are_refused_by_name(name, unknown):
    p = ones(3)
    refuse(lambda: registry[name](p, **{unknown: 1}), TypeError, [unknown, name, "lr"], p)
    states = {s: ones(3) for s in registry[name](ones(3)).state}
    timed = {"step": 1} if name.startswith("Adam") else {}
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
