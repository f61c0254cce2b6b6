"""Everything is refused before the first byte is written; the argument, what is allowed and the value are named."""

import numpy as np
import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS

from .cases import every_class
from .refusals import F32, ones, refuse, refuse_step, refuse_values

pytestmark = [pytest.mark.internals, pytest.mark.usefixtures("both_checks")]


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


@pytest.mark.parametrize("name", every_class(OPTIMIZERS, pytest.mark.ci))
@pytest.mark.parametrize("dtype", [F32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_every_class_refuses_and_goes_on(name, dtype):
    p = ones(2, 3, dtype=dtype)
    opt = OPTIMIZERS[name](p)
    opt.step(ones(2, 3, dtype=dtype))
    refuse_step(opt, ones(3, 2, dtype=dtype), ValueError, ["grads", "(2, 3)", "(3, 2)"])
    refuse_step(opt, p, ValueError, ["grads", "params", "share memory"])
    refuse_step(opt, p.astype(np.int16), TypeError, ["grads", "float16 or bfloat16", "int16"])
    refuse_step(opt, p[0].tolist(), TypeError, ["grads", "one array", "list"])
    for state in opt.state.values():
        refuse_step(opt, state, ValueError, ["grads", "of params", "share memory"])


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


def test_overlap_across_dtypes():
    """Each dtype is a launch of its own, and the arrays of all of them are apart."""
    a, b = ones(10), ones(5, dtype=np.float64)
    opt = fastopt.Adam({"a": a, "b": b})
    good = {"a": ones(10), "b": ones(5, dtype=np.float64)}
    opt.step(good)
    words = ["share memory", "grads['b']"]
    refuse_step(opt, good | {"b": a.view(np.float64)}, ValueError, [*words, "params['a']"])
    refuse_step(opt, good | {"b": opt.state["m"]["a"].view(np.float64)}, ValueError, [*words, "the state 'm'"])
    refuse_step(opt, good | {"b": good["a"].view(np.float64)}, ValueError, [*words, "grads['a']"])
    block = ones(20)
    with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory"):
        fastopt.GD([block[:6], block[4:].view(np.float64)])


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


def test_functions_refuse_tensors_of_pytorch_by_name():
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")
    p, half = torch.ones(3, requires_grad=True), torch.ones(3, dtype=torch.bfloat16)
    refuse(lambda: fastopt.gd(p, ones(3)), TypeError, ["p", "pass p.detach().numpy(), which is the same memory"])
    refuse(lambda: fastopt.gd(half, ones(3)), TypeError, ["pass p.detach().view(torch.uint16).numpy()"])
    fastopt.gd(half.detach().view(torch.uint16).numpy(), ones(3), lr=1.0)
    assert (half == 0).all()


def test_step_without_gradients():
    opt = fastopt.Adam(ones(3))
    with pytest.raises(TypeError, match="bind"):
        opt.step()


def test_what_is_no_optimizer():
    refuse(lambda: fastopt.Optimizer(ones(3)), TypeError, ["Optimizer", "fastopt.Adam"])
    refuse(lambda: fastopt.jitable(int), TypeError, ["optimizer", "int"])


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
