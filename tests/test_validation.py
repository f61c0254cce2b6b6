"""Everything is refused before the first byte is written, with the argument, what is allowed and what was given."""

import itertools

import numpy as np
import pytest

import fastopt
from fastopt import _compile
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
    """Check that `action` raises, says the words, and leaves the arrays as they were."""
    before = [np.copy(a) for a in arrays]
    with pytest.raises(error) as caught:
        action()
    for word in words:
        assert str(word) in str(caught.value), caught.value
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def refuse_step(opt, grads, error, words):
    """Check the same of a step, and that the optimizer goes on as if nothing had been."""
    arrays = [*opt._arrays, *itertools.chain(*opt._states.values())]
    count = opt.step_count
    refuse(lambda: opt.step(grads), error, words, *arrays)
    refuse(lambda: opt.bind(grads), error, words, *arrays)
    assert opt.step_count == count


READ_ONLY = ones(3)
READ_ONLY.setflags(write=False)
MISALIGNED = np.frombuffer(bytearray(13), np.uint8)[1:].view(F32)

BAD_ARRAYS = [
    (np.ones(3, int), TypeError, ["float32 or float64", "int64"]),
    (np.ones(3, bool), TypeError, ["float32 or float64", "bool"]),
    (np.ones(3, complex), TypeError, ["float32 or float64", "complex128"]),
    (np.ones(3, object), TypeError, ["float32 or float64", "object"]),
    (np.ones(3, np.float16), TypeError, ["float32 or float64", "float16"]),
    (np.ones(3, np.longdouble), TypeError, ["float32 or float64"]),
    (np.ones(3, ">f4"), TypeError, ["native byte order", ">f4"]),
    (np.zeros(3, [("a", F32)]), TypeError, ["float32 or float64"]),
    (np.ma.masked_array(ones(3), [0, 1, 0]), TypeError, ["masked"]),
    (np.ones(6, F32)[::2], ValueError, ["contiguous", "(8,)"]),
    (np.ones((3, 4), F32)[:, :2], ValueError, ["contiguous", "(3, 2)"]),
    (np.broadcast_to(ones(1), (3,)), ValueError, ["contiguous"]),
    (MISALIGNED, ValueError, ["aligned"]),
    (None, TypeError, ["ndarray", "None"]),
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
    refuse_step(opt, g, ValueError, ["params", "read-only"])


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


def test_a_parameter_that_was_resized():
    p = np.ones(10)
    opt = fastopt.GD(p)
    p.resize(100_000, refcheck=False)
    with pytest.raises(ValueError, match="params was resized"):
        opt.step(np.ones(100_000))
    with pytest.raises(ValueError, match=r"params was resized|shape"):
        opt.step(np.ones(10))


def test_a_misspelt_attribute_is_refused():
    opt = fastopt.Adam(ones(3))
    with pytest.raises(AttributeError, match=r"learning_rate.*lr"):
        opt.learning_rate = 0.1
    with pytest.raises(AttributeError, match="momentum"):
        opt.momentum = 0.1


def test_two_dtypes_are_both_checked_first():
    a, b = ones(3), ones(3, dtype=np.float64)
    opt = fastopt.Adam([a, b])
    refuse_step(opt, [ones(3), ones(4, dtype=np.float64)], ValueError, ["grads[1]"])
    refuse_step(opt, [ones(4), ones(3, dtype=np.float64)], ValueError, ["grads[0]"])
    opt.lr = 1e300  # too large for float32 alone
    refuse_step_values(opt, [ones(3), ones(3, dtype=np.float64)], ValueError, ["too large", "float32"])


def refuse_step_values(opt, grads, error, words):
    arrays = [*opt._arrays, *itertools.chain(*opt._states.values())]
    count = opt.step_count
    refuse(lambda: opt.step(grads), error, words, *arrays)
    assert opt.step_count == count


@pytest.mark.parametrize(
    ("schedule", "error", "words"),
    [
        (lambda step: np.nan, ValueError, ["lr(1)", "finite", "nan"]),
        (lambda step: -1, ValueError, ["lr(1)", "[0", "-1"]),
        (lambda step: "x", TypeError, ["lr(1)", "number", "'x'"]),
        (lambda step: 1 / 0, ZeroDivisionError, []),
    ],
)
def test_bad_schedules(schedule, error, words):
    opt = fastopt.Adam(ones(3), lr=schedule)
    refuse_step_values(opt, ones(3), error, words)


NUMBERS = [-1, -1e-9, np.nan, np.inf, -np.inf]
WRONG = ["x", None, [1], 1j, True, np.array([0.5])]


def wrong_values():
    for name, cls in registry.items():
        if not cls.__module__.startswith("fastopt.optimizers"):
            continue
        for hyper, default in cls.hyperparameters.items():
            if isinstance(default, bool):
                yield from ((name, hyper, value, TypeError) for value in [0, 1, "x", None, 0.5])
            elif isinstance(default, tuple):
                yield from ((name, hyper, (0.5, value), ValueError) for value in [*NUMBERS, 1, 1.5])
                yield from ((name, hyper, (value, 0.5), ValueError) for value in [*NUMBERS, 1, 1.5])
                yield from ((name, hyper, value, TypeError) for value in [0.5, (0.5,), (0.1, 0.2, 0.3), (0.5, "x")])
            else:
                yield from ((name, hyper, value, ValueError) for value in NUMBERS)
                kinds = [value for value in WRONG if value is not None or default is not None]
                yield from ((name, hyper, value, TypeError) for value in kinds)
                if hyper.startswith("beta") or hyper == "momentum":
                    yield from ((name, hyper, value, ValueError) for value in [1, 1.5])


@pytest.mark.parametrize(("name", "hyper", "value", "error"), list(wrong_values()))
def test_hyperparameters(name, hyper, value, error):
    cls = registry[name]
    p = ones(3)
    refuse(lambda: cls(p, **{hyper: value}), error, [hyper], p)
    opt = cls(p)
    before = dict(opt.describe())
    refuse(lambda: setattr(opt, hyper, value), error, [hyper], p)
    assert dict(opt.describe()) == before
    states = {s: ones(3) for s in opt.state}
    timed = {"step": 1} if name.startswith("Adam") else {}
    function = getattr(fastopt, name.lower())
    refuse(lambda: function(p, ones(3), **states, **timed, **{hyper: value}), error, [hyper], p)


@pytest.mark.parametrize("name", ["GD", "Adam"])
@pytest.mark.parametrize("unknown", ["learning_rate", "amsgrad", "fused", "nesterov"])
def test_unknown_arguments_are_refused_by_name(name, unknown):
    refuse(lambda: registry[name](ones(3), **{unknown: 1}), TypeError, [unknown, name, "lr"])


def test_a_change_that_changes_the_states_is_refused():
    opt = fastopt.RMSprop(ones(3))
    for name, value in (("centered", True), ("momentum", 0.5)):
        refuse(lambda: setattr(opt, name, value), ValueError, ["RMSprop", "states"])  # noqa: B023
    opt.step(ones(3))
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
