"""Schedules: the values of PyTorch's and Optax's for the same update, equations of their own, what is refused."""

import copy
import functools
import inspect
import math
import pickle
import re
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from fastopt import schedules
from fastopt.schedules import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    one_cycle,
    piecewise_constant,
    polynomial,
    sequence,
    warmup,
)

SEEDS = range(20)
quick = settings(derandomize=True, deadline=None, max_examples=100)
rates = st.one_of(st.just(0.0), st.floats(1e-12, 1e3))
lengths = st.integers(1, 1000)


def halved(step):
    return 0.5**step


#: One of each, and of each way to combine them.
EXAMPLES = [
    constant(0.1),
    linear(0.1, 0.01, 7),
    polynomial(0.1, 0.01, 7, 1.5),
    cosine(0.1, 7, 0.01),
    exponential(0.1, 0.5, 3, 0.02),
    exponential(0.1, 2.0, 3, 0.5, staircase=True),
    inverse_sqrt(0.1, 4),
    piecewise_constant([0.1, 0.05, 0.2], [2, 5]),
    one_cycle(0.1, 9),
    warmup(halved, 3, 0.01),
    sequence([0.1, halved, warmup(cosine(0.3, 2), 2)], [2, 4]),
]
each_example = pytest.mark.parametrize("schedule", EXAMPLES, ids=lambda schedule: type(schedule).__name__)


def values(schedule, steps):
    return [schedule(step) for step in range(1, steps + 1)]


# Independent equations, in other forms than the package's


@quick
@given(rates, rates, lengths, st.floats(0.1, 5), st.data())
def test_from_start_to_end(start, end, steps, power, data):
    t = data.draw(st.integers(0, steps - 1))
    x, a, b = Fraction(t, steps), Fraction(start), Fraction(end)
    near = functools.partial(pytest.approx, rel=1e-13, abs=1e-15 * max(start, end))
    assert linear(start, end, steps)(t + 1) == near(float(a + x * (b - a)))
    assert polynomial(start, end, steps, power)(t + 1) == near(end + (start - end) * float(1 - x) ** power)
    assert cosine(start, steps, end)(t + 1) == near(
        (start + end) / 2 + (start - end) / 2 * math.cos(math.pi * t / steps)
    )
    for schedule in (linear(start, end, steps), polynomial(start, end, steps, power), cosine(start, steps, end)):
        assert schedule(1) == start
        assert schedule(steps + 1) == schedule(steps + 2) == schedule(10**9) == end
        assert min(start, end) * (1 - 1e-15) <= schedule(t + 1) <= max(start, end) * (1 + 1e-15)


def test_a_cosine_has_all_digits_where_it_ends():
    """Of (1 + cos(x)) / 2 there are 5 left."""
    mpmath = pytest.importorskip("mpmath", reason="needs the extra `test`")
    steps = 1_000_000
    with mpmath.workdps(50):
        right = float((1 + mpmath.cos(mpmath.pi * (steps - 1) / steps)) / 2)
    assert cosine(1.0, steps)(steps) == pytest.approx(right, rel=1e-15, abs=0)


@quick
@given(st.floats(1e-6, 1e3), st.floats(0.5, 1), st.integers(1, 50), st.integers(1, 500), st.booleans())
def test_exponential_falls_to_its_end(start, factor, steps, step, staircase):
    schedule = exponential(start, factor, steps, start / 4, staircase)
    periods = (step - 1) // steps if staircase else (step - 1) / steps
    assert schedule(step) == pytest.approx(max(start * math.exp(periods * math.log(factor)), start / 4), rel=1e-12)


def test_exponential_rises_to_its_end():
    assert values(exponential(1.0, 2, end=10), 7) == [1, 2, 4, 8, 10, 10, 10]
    assert exponential(1.0, 1e300, end=10)(1000) == 10  # no float holds the power
    assert exponential(1.0, 1e-300)(1000) == 0


@quick
@given(rates, st.floats(0.01, 1e4), st.integers(1, 10**6))
def test_inverse_sqrt(start, timescale, step):
    assert inverse_sqrt(start, timescale)(step) ** 2 * (timescale + step - 1) == pytest.approx(start**2 * timescale)
    assert inverse_sqrt(start)(step) == start / math.sqrt(step)


@pytest.mark.parametrize("width", [64, 512])
@pytest.mark.parametrize("steps", [2, 10, 4000])
def test_the_schedule_of_the_transformer(width, steps):
    """Equation 3 of "Attention is all you need"."""
    schedule = warmup(inverse_sqrt((width * steps) ** -0.5, steps), steps - 1, (width * steps) ** -0.5 / steps)
    for step in (1, 2, steps - 1, steps, steps + 1, 3 * steps):
        right = width**-0.5 * min(step**-0.5, step * steps**-1.5)
        assert schedule(step) == pytest.approx(right, rel=1e-13)


@quick
@given(st.floats(1e-6, 1e3), lengths, st.floats(0, 0.99), st.floats(1, 100), st.floats(1, 1e5))
def test_one_cycle(peak, steps, share, first, last):
    schedule = one_cycle(peak, steps, share, first, last)
    found, rise = values(schedule, steps + 3), share * steps
    assert found[-3:] == [pytest.approx(peak / first / last)] * 3
    if rise > 0:
        assert found[0] == pytest.approx(peak / first)
    for t, value in enumerate(found[:steps]):
        low, angle = (peak / first, t / rise) if t < rise else (peak / first / last, (steps - t) / (steps - rise))
        assert value == pytest.approx(low + (peak - low) * (1 - math.cos(math.pi * angle)) / 2, rel=1e-9, abs=1e-14)


def test_boundaries_are_numbers_of_updates():
    assert values(piecewise_constant([3, 2, 1], [1, 3]), 5) == [3, 2, 2, 1, 1]
    assert values(piecewise_constant([3], []), 2) == [3, 3]
    assert values(sequence([lambda step: step, lambda step: 10 * step, 7], [2, 5]), 7) == [1, 2, 10, 20, 30, 7, 7]
    assert values(sequence([halved], []), 3) == [0.5, 0.25, 0.125]
    assert values(warmup(lambda step: 8 / step, 4, 4), 7) == [4, 5, 6, 7, 8, 4, pytest.approx(8 / 3)]
    assert values(warmup(1, 2), 4) == [0, 0.5, 1, 1]
    nested = warmup(sequence([warmup(constant(1), 2), linear(1, 0, 2)], [3]), 1, 0.25)
    assert values(nested, 8) == [0.25, 0, 0.5, 1, 1, 0.5, 0, 0]


# PyTorch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


def of_torch(torch, lr, make, steps):
    """Return what a scheduler of PyTorch's sets for the first updates."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of itself
        scheduler, found = make(optimizer), []
        for step in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step < steps - 1:  # OneCycleLR refuses to go beyond its end
                scheduler.step()
    return found


def drawn(seed):
    """Return a learning rate, one below it, and a number of steps."""
    rng = np.random.default_rng(seed)
    lr = float(10 ** rng.uniform(-5, 0))
    return rng, lr, lr * float(rng.uniform(0.01, 0.9)), int(rng.integers(2, 60))


@pytest.mark.parametrize("seed", SEEDS)
def test_torch(torch, seed):
    rng, lr, low, steps = drawn(seed)
    factor, power = float(rng.uniform(0.5, 1)), float(rng.uniform(0.5, 3))
    milestones = sorted({int(b) for b in rng.integers(1, 60, 3)})
    the = torch.optim.lr_scheduler
    beyond = 90  # steps: most schedules are over by then
    pieces = [lr * factor**k for k in range(len(milestones) + 1)]
    pairs = [
        (constant(lr), lambda o: the.LambdaLR(o, lambda epoch: 1.0), beyond),
        (halved, lambda o: the.LambdaLR(o, lambda epoch: halved(epoch + 1) / lr), beyond),
        (linear(low, lr, steps), lambda o: the.LinearLR(o, low / lr, 1.0, steps), beyond),
        (linear(lr, low, steps), lambda o: the.LinearLR(o, 1.0, low / lr, steps), beyond),
        (cosine(lr, steps, low), lambda o: the.CosineAnnealingLR(o, steps, low), steps + 1),
        (polynomial(lr, 0, steps, power), lambda o: the.PolynomialLR(o, steps, power), beyond),
        (exponential(lr, factor), lambda o: the.ExponentialLR(o, factor), beyond),
        (exponential(lr, factor, steps, staircase=True), lambda o: the.StepLR(o, steps, factor), beyond),
        (piecewise_constant(pieces, milestones), lambda o: the.MultiStepLR(o, milestones, factor), beyond),
    ]
    for ours, make, count in pairs:
        theirs = of_torch(torch, lr, make, count)
        np.testing.assert_allclose(values(ours, count), theirs, rtol=1e-9, atol=1e-12 * lr, err_msg=repr(ours))


@pytest.mark.parametrize("seed", SEEDS)
def test_torch_one_cycle(torch, seed):
    rng, lr, _, _ = drawn(seed)
    total, share = int(rng.integers(10, 100)), float(rng.uniform(0.15, 0.9))
    first, last = float(rng.uniform(2, 50)), float(10 ** rng.uniform(0, 5))
    ours = one_cycle(lr, total - 1, (share * total - 1) / (total - 1), first, last)

    def make(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total, pct_start=share, div_factor=first, final_div_factor=last, cycle_momentum=False
        )

    np.testing.assert_allclose(values(ours, total), of_torch(torch, lr, make, total), rtol=1e-9, atol=1e-12 * lr)


@pytest.mark.parametrize("seed", SEEDS)
def test_torch_sequential(torch, seed):
    rng, lr, low, steps = drawn(seed)
    factor, second = float(rng.uniform(0.8, 1)), steps + int(rng.integers(1, 30))
    the = torch.optim.lr_scheduler

    def warm(optimizer):
        first = the.LinearLR(optimizer, low / lr, 1.0, steps)
        return the.SequentialLR(optimizer, [first, the.ExponentialLR(optimizer, factor)], [steps])

    def three(optimizer):
        parts = [
            the.ExponentialLR(optimizer, factor),
            the.LinearLR(optimizer, low / lr, 1.0, 7),
            the.StepLR(optimizer, 3, factor),
        ]
        return the.SequentialLR(optimizer, parts, [steps, second])

    parts = [exponential(lr, factor), linear(low, lr, 7), exponential(lr, factor, 3, staircase=True)]
    for ours, make in ((warmup(exponential(lr, factor), steps, low), warm), (sequence(parts, [steps, second]), three)):
        np.testing.assert_allclose(values(ours, 120), of_torch(torch, lr, make, 120), rtol=1e-9)


# Optax


@pytest.fixture(scope="module")
def optax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("jax", reason="needs the extra `peers`")
        return pytest.importorskip("optax", reason="needs the extra `peers`")


@pytest.mark.parametrize("seed", SEEDS)
def test_optax(optax, seed):
    rng, lr, low, steps = drawn(seed)
    factor, power = float(rng.uniform(0.5, 1)), float(rng.uniform(0.5, 3))
    share, first, last = float(rng.uniform(0.1, 0.9)), float(rng.uniform(2, 50)), float(10 ** rng.uniform(0, 3))
    total = steps + int(rng.integers(10, 60))
    boundaries = sorted({int(b) for b in rng.integers(1, 60, 3)})
    pieces = [lr * factor**k for k in range(len(boundaries) + 1)]
    the = optax.schedules
    parts = [the.exponential_decay(lr, steps, factor), the.constant_schedule(low), the.linear_schedule(low, lr, steps)]
    own = [exponential(lr, factor, steps), low, linear(low, lr, steps)]
    rise = int(share * total)
    pairs = [
        (constant(lr), the.constant_schedule(lr)),
        (linear(lr, low, steps), the.linear_schedule(lr, low, steps)),
        (linear(low, lr, steps), the.linear_schedule(low, lr, steps)),
        (polynomial(lr, low, steps, power), the.polynomial_schedule(lr, low, power, steps)),
        (cosine(lr, steps, low), the.cosine_decay_schedule(lr, steps, alpha=low / lr)),
        (exponential(lr, factor, steps), the.exponential_decay(lr, steps, factor)),
        (exponential(lr, factor, steps, low), the.exponential_decay(lr, steps, factor, end_value=low)),
        (exponential(low, 1 / factor, steps, lr), the.exponential_decay(low, steps, 1 / factor, end_value=lr)),
        (
            exponential(lr, factor, steps, staircase=True),
            the.exponential_decay(lr, steps, factor, staircase=True),
        ),
        (
            piecewise_constant(pieces, boundaries),
            the.piecewise_constant_schedule(lr, dict.fromkeys(boundaries, factor)),
        ),
        (
            one_cycle(lr, total, rise / total, first, last),
            the.cosine_onecycle_schedule(total, lr, share, first, last),
        ),
        (warmup(lr, steps), the.warmup_constant_schedule(0.0, lr, steps)),
        (
            warmup(cosine(lr, total - steps, low), steps, low / 2),
            the.warmup_cosine_decay_schedule(low / 2, lr, steps, total, low),
        ),
        (
            warmup(exponential(lr, factor, 7, low), steps, low / 2),
            the.warmup_exponential_decay_schedule(low / 2, lr, steps, 7, factor, end_value=low),
        ),
        (sequence(own, [steps, total]), the.join_schedules(parts, [steps, total])),
    ]
    for ours, theirs in pairs:
        steps_seen = sorted(
            {1, 2, steps, steps + 1, steps + 2, total, total + 1, 200, *map(int, rng.integers(1, 150, 8))}
        )
        right = [float(theirs(step - 1)) for step in steps_seen]
        # Optax computes in float32: 1e-6 of the value, and of what differences near 0 are taken from.
        found = [ours(step) for step in steps_seen]
        np.testing.assert_allclose(found, right, rtol=2e-6, atol=2e-7 * lr, err_msg=repr(ours))


def test_a_schedule_of_optax_can_be_combined(optax):
    theirs = optax.schedules.cosine_decay_schedule(0.1, 10)
    ours = warmup(lambda step: theirs(step - 1), 3)
    assert type(ours(2)) is type(ours(5)) is float
    np.testing.assert_allclose(values(ours, 20), values(warmup(cosine(0.1, 10), 3), 20), rtol=1e-6, atol=1e-8)


# As the learning rate of an optimizer


@each_example
@pytest.mark.parametrize("name", ["GD", "Adam", "AdamW"])
def test_the_bits_of_a_learning_rate_that_is_set_by_hand(schedule, name):
    rng = np.random.default_rng(3)
    start, grads = rng.normal(size=50).astype(np.float32), rng.normal(size=(12, 50)).astype(np.float32)
    scheduled, by_hand = start.copy(), start.copy()
    opt = getattr(fastopt, name)(scheduled, lr=schedule)
    other = getattr(fastopt, name)(by_hand)
    for step, grad in enumerate(grads, 1):
        opt.step(grad)
        other.lr = schedule(step)
        other.step(grad)
        assert scheduled.tobytes() == by_hand.tobytes()
    assert (scheduled != start).all()


def test_a_schedule_goes_on_from_a_checkpoint():
    rng = np.random.default_rng(4)
    grads = rng.normal(size=(8, 5))
    whole, parted = np.ones(5), np.ones(5)
    schedule = warmup(cosine(0.1, 5), 2)
    opt, first = fastopt.Adam(whole, lr=schedule), fastopt.Adam(parted, lr=schedule)
    for grad in grads[:4]:
        opt.step(grad)
        first.step(grad)
    saved = first.state_dict()
    assert "lr" not in saved
    second = fastopt.Adam(parted, lr=schedule)
    second.load_state_dict(saved)
    assert second.lr is schedule
    third = pickle.loads(pickle.dumps(second))
    assert third.lr == schedule
    for grad in grads[4:]:
        opt.step(grad)
        second.step(grad)
        third.step(grad)
    assert whole.tobytes() == parted.tobytes() == third.params.tobytes()


def test_a_function_refuses_it_and_takes_its_value():
    with pytest.raises(TypeError, match="call the schedule yourself"):
        fastopt.gd(np.ones(3), np.ones(3), lr=cosine(0.1, 10))
    p = np.ones(3)
    fastopt.gd(p, np.ones(3), lr=cosine(0.5, 10)(1))
    assert (p == 0.5).all()


# What they are


@each_example
def test_values_of_their_own(schedule):
    kind = type(schedule)
    again = kind(*(getattr(schedule, name) for name in inspect.signature(kind).parameters))
    for other in (again, copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert (other, hash(other), repr(other)) == (schedule, hash(schedule), repr(schedule))
        assert values(other, 12) == values(schedule, 12)
    assert sum(schedule == other for other in EXAMPLES) == 1
    assert all(type(value) is float for value in values(schedule, 12))
    if "<" not in repr(schedule):
        assert eval(repr(schedule), vars(schedules).copy()) == schedule
    for name in inspect.signature(kind).parameters:
        with pytest.raises(AttributeError):
            setattr(schedule, name, 0.5)
        with pytest.raises(AttributeError):
            delattr(schedule, name)
    with pytest.raises((AttributeError, TypeError)):
        schedule.other = 1


def test_the_module_is_imported_when_it_is_used(run_script):
    out = run_script("""
    import sys, fastopt
    before = "fastopt.schedules" in sys.modules
    print(before, "schedules" in dir(fastopt), fastopt.schedules.cosine(0.5, 10)(1), "schedules" in fastopt.__all__)
    try:
        fastopt.schedule
    except AttributeError as error:
        print(error)
    """)
    assert out.splitlines() == ["False True 0.5 False", "module 'fastopt' has no attribute 'schedule'"]


def test_numbers_of_numpy_become_pythons():
    given = linear(np.float32(0.5), np.array(0.25), np.int64(10))
    assert given == linear(0.5, 0.25, 10)
    assert [type(x) for x in (given.start, given.end, given.steps)] == [float, float, int]
    pieces = piecewise_constant(np.array([1, 2]), np.array([3]))
    assert pieces == piecewise_constant([1.0, 2.0], [3])
    assert hash(pieces) == hash(piecewise_constant((1.0, 2.0), (3,)))
    assert given(np.int32(11)) == 0.25


def test_what_was_given_can_change_afterwards():
    parts, boundaries = [0.1, 0.2], [3]
    several, pieces = sequence(parts, boundaries), piecewise_constant(parts, boundaries)
    parts[0], boundaries[0] = 5, 9
    assert values(several, 4) == values(pieces, 4) == [0.1, 0.1, 0.1, 0.2]


# What is refused


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: constant(-1), ValueError, ["value", "[0, inf)", "-1"]),
        (lambda: constant(math.nan), ValueError, ["value", "finite", "nan"]),
        (lambda: constant("x"), TypeError, ["value", "number", "'x'"]),
        (lambda: constant(halved), TypeError, ["value", "number", "halved"]),
        (lambda: linear(-0.1, 0, 3), ValueError, ["start", "[0, inf)", "-0.1"]),
        (lambda: linear(0, math.inf, 3), ValueError, ["end", "[0, inf)", "inf"]),
        (lambda: linear(0, 1, 0), ValueError, ["steps", ">= 1", "0"]),
        (lambda: linear(0, 1, 2.5), TypeError, ["steps", "integer >= 1", "2.5"]),
        (lambda: linear(0, 1, True), TypeError, ["steps", "integer >= 1", "True"]),
        (lambda: linear(0, 1, -5), ValueError, ["steps", ">= 1", "-5"]),
        (lambda: polynomial(1, 0, 3, 0), ValueError, ["power", "(0, inf)", "0"]),
        (lambda: polynomial(1, 0, 3, "2"), TypeError, ["power", "number", "'2'"]),
        (lambda: polynomial(1, 0, 1e3, 2), TypeError, ["steps", "integer", "1000.0"]),
        (lambda: polynomial(1, -1, 3, 2), ValueError, ["end", "[0, inf)", "-1"]),
        (lambda: cosine(1, 0.5), TypeError, ["steps", "integer", "0.5"]),
        (lambda: cosine(None, 5), TypeError, ["start", "number", "None"]),
        (lambda: cosine(1, 5, -1), ValueError, ["end", "[0, inf)", "-1"]),
        (lambda: exponential(0, 0.5), ValueError, ["start", "(0, inf)", "0"]),
        (lambda: exponential(1, 0), ValueError, ["factor", "(0, inf)", "0"]),
        (lambda: exponential(1, 0.5, 0), ValueError, ["steps", ">= 1", "0"]),
        (lambda: exponential(1, 0.5, end=2), ValueError, ["end", "[0, 1]", "2"]),
        (lambda: exponential(1, 2), ValueError, ["end", "[1, inf)", "0.0"]),
        (lambda: exponential(1, 0.5, staircase=1), TypeError, ["staircase", "True or False", "1"]),
        (lambda: inverse_sqrt(-1), ValueError, ["start", "[0, inf)", "-1"]),
        (lambda: inverse_sqrt(1, 0), ValueError, ["timescale", "(0, inf)", "0"]),
        (lambda: piecewise_constant(1, []), TypeError, ["values", "sequence", "int 1"]),
        (lambda: piecewise_constant([], []), ValueError, ["values", "at least one", "none"]),
        (lambda: piecewise_constant([1, -2], [3]), ValueError, ["values[1]", "[0, inf)", "-2"]),
        (lambda: piecewise_constant([1, 2], [0]), ValueError, ["boundaries[0]", ">= 1", "0"]),
        (lambda: piecewise_constant([1, 2], [1.5]), TypeError, ["boundaries[0]", "integer >= 1", "1.5"]),
        (lambda: piecewise_constant([1, 2], 3), TypeError, ["boundaries", "sequence", "int 3"]),
        (lambda: piecewise_constant([1, 2], [3, 4]), ValueError, ["boundaries", "one entry fewer than values, 1", "2"]),
        (lambda: piecewise_constant([1, 2, 3], [4, 4]), ValueError, ["boundaries[1]", "boundaries[0], 4", "got 4"]),
        (lambda: one_cycle(-1, 5), ValueError, ["peak", "[0, inf)", "-1"]),
        (lambda: one_cycle(1, 0), ValueError, ["steps", ">= 1", "0"]),
        (lambda: one_cycle(1, 5, 1), ValueError, ["pct_start", "[0, 1)", "1"]),
        (lambda: one_cycle(1, 5, div_factor=0.5), ValueError, ["div_factor", "[1, inf)", "0.5"]),
        (lambda: one_cycle(1, 5, final_div_factor=0), ValueError, ["final_div_factor", "[1, inf)", "0"]),
        (lambda: warmup("x", 5), TypeError, ["schedule", "number", "'x'"]),
        (lambda: warmup(-1, 5), ValueError, ["schedule", "[0, inf)", "-1"]),
        (lambda: warmup(1, 0), ValueError, ["steps", ">= 1", "0"]),
        (lambda: warmup(1, 5, -1), ValueError, ["start", "[0, inf)", "-1"]),
        (lambda: sequence([], []), ValueError, ["schedules", "at least one", "none"]),
        (lambda: sequence(halved, []), TypeError, ["schedules", "sequence", "halved"]),
        (lambda: sequence([halved, None], [1]), TypeError, ["schedules[1]", "number", "None"]),
        (lambda: sequence([halved, 1], []), ValueError, ["boundaries", "one entry fewer than schedules, 1", "0"]),
        (lambda: sequence([1, 2, 3], [5, 4]), ValueError, ["boundaries[1]", "boundaries[0], 5", "got 4"]),
        (lambda: warmup(lambda step: -step, 5)(1), ValueError, ["schedule(1)", "[0, inf)", "-1"]),
        (lambda: sequence([lambda step: -0.5], [])(2), ValueError, ["schedules[0](2)", "[0, inf)", "-0.5"]),
        (lambda: sequence([lambda step: math.inf], [])(2), ValueError, ["schedules[0](2)", "finite", "inf"]),
        (lambda: warmup(lambda step: None, 5)(7), TypeError, ["schedule(2)", "number", "None"]),
        (lambda: sequence([1, lambda step: math.nan], [5])(8), ValueError, ["schedules[1](3)", "finite", "nan"]),
    ],
)
def test_refused(make, error, words):
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)


@each_example
@pytest.mark.parametrize(
    ("step", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)]
)
def test_steps_count_from_1(schedule, step, error):
    with pytest.raises(error, match=f"step must be an integer >= 1 .*got {step!r}|step must be .* >= 1, got {step!r}"):
        schedule(step)


@pytest.mark.parametrize("name", schedules.__all__)
def test_docstrings(name):
    kind = getattr(schedules, name)
    found = set(re.findall(r"^(\w+)\n-{3,}$", inspect.getdoc(kind), re.MULTILINE))
    assert {"Parameters", "Raises", "Notes", "Examples"} <= found
    assert ".. math::" in inspect.getdoc(kind)
    for parameter in inspect.signature(kind).parameters.values():
        line = re.search(rf"^(?:\w+, )*{parameter.name}(?:, \w+)* : (.*)$", inspect.getdoc(kind), re.MULTILINE)[1]
        if parameter.default is not parameter.empty:
            said = line.partition("default ")[2]
            assert eval(said) == parameter.default


def test_all_schedules_are_listed():
    here = {name for name, value in vars(schedules).items() if inspect.isclass(value)}
    assert here == set(schedules.__all__) == {type(schedule).__name__ for schedule in EXAMPLES}
