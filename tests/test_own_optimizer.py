"""Optimizers written outside the package: every target and storage, and what their authors are told of mistakes."""

import copy
import inspect
import pickle
from typing import NamedTuple

import numba
import numpy as np
import pytest

import fastopt
from fastopt.rules import betas, decay, flag, helper, rate, state

from .own_optimizers import Ada, Lion

ada, lion = fastopt.as_function(Ada), fastopt.as_function(Lion)


def lion_by_hand(p, g, m, lr=1e-4, b1=0.9, b2=0.99):
    t = p.dtype.type
    u = np.sign(t(b1) * m + t(1 - b1) * g)
    return p - t(lr) * u, t(b2) * m + t(1 - b2) * g


def ada_by_hand(p, g, total, v, lr=1e-2, beta=0.9, eps=1e-8, heavy=False):
    t = p.dtype.type
    total = total + g * g
    d = g / (np.sqrt(total) + t(eps))
    if heavy:
        d = v = t(beta) * v + d
    return p - t(lr) * d, total, v


def numbers(dtype, size=5000, seed=0):
    return np.random.default_rng(seed).normal(size=size).astype(dtype)


CASES = [(Lion, {}), (Ada, {}), (Ada, {"heavy": True})]
cases = pytest.mark.parametrize(("cls", "kwargs"), CASES, ids=["Lion", "Ada", "Ada-heavy"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def by_hand(cls, kwargs, p, steps, dtype):
    """Return the parameter and the states after some steps, from the equations above."""
    states = [np.zeros_like(p)] if cls is Lion else [np.full_like(p, 0.1), np.zeros_like(p)]
    for step in range(steps):
        function = lion_by_hand if cls is Lion else ada_by_hand
        p, *states = function(p, numbers(dtype, p.size, 1 + step), *states, **kwargs)
    return [p, *states]


def test_they_are_short():
    for cls, scalars in ((Lion, "LionScalars"), (Ada, "AdaScalars")):
        lines = inspect.getsource(cls).splitlines() + inspect.getsource(cls.scalars.__globals__[scalars]).splitlines()
        assert len([line for line in lines if line.strip()]) <= 25


@cases
@dtypes
@pytest.mark.parametrize("size", [1, 5000, 2**16])
def test_class(cls, kwargs, dtype, size):
    p = numbers(dtype, size)
    right = by_hand(cls, kwargs, p.copy(), 3, dtype)
    opt = cls(p, **kwargs)
    for step in range(3):
        opt.step(numbers(dtype, size, 1 + step))
    for ours, expected in zip([p, *opt.state.values()], right, strict=False):
        np.testing.assert_array_equal(ours, expected)
    assert list(opt.state) == [name for name in cls.states if name != "v" or kwargs]


@cases
@dtypes
def test_function_and_compiled_code(cls, kwargs, dtype):
    p = numbers(dtype)
    right = by_hand(cls, kwargs, p.copy(), 2, dtype)
    function, update = (lion if cls is Lion else ada), fastopt.jitable(cls, **kwargs)
    names = cls.with_hyperparameters(**kwargs).active_states()
    states, others = ([np.full_like(p, 0.1 if name == "total" else 0.0) for name in names] for _ in range(2))
    q = p.copy()
    lr = cls.hyperparameters["lr"]

    if len(names) == 1:

        @numba.njit
        def take(p, g, a, step):
            update(p, g, a, step, lr)
    else:

        @numba.njit
        def take(p, g, a, b, step):
            update(p, g, a, b, step, lr)

    for step in (1, 2):
        g = numbers(dtype, seed=step)
        assert function(p, g, *states, **kwargs) is p
        take(q, g, *others, step)
    for ours, theirs, expected in zip([p, *states], [q, *others], right, strict=False):
        np.testing.assert_array_equal(ours, expected)
        np.testing.assert_array_equal(theirs, expected)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("param", ["float32", "bfloat16"])
def test_storages(state_dtype, param):
    """States begin at what was declared, whatever they are stored in, and stay near what float32 keeps."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(np.float32) if param == "float32" else np.dtype(ml_dtypes.bfloat16)
    p = np.ones(5000, dtype)
    more = {} if param == "float32" else {"master": "split16"}
    opt, wide = Ada(p, state_dtype=state_dtype, heavy=True, **more), Ada(np.ones(5000, np.float32), heavy=True)
    for name, close in (("total", 0.1), ("v", 0.0)):
        np.testing.assert_allclose(opt.decoded(name), close, rtol=0.07)
    for step in range(5):
        g = numbers(np.float32, seed=step).astype(dtype)
        opt.step(g)
        wide.step(g.astype(np.float32))
    assert (opt.decoded("total") > 0).all()
    difference = np.abs(opt.decoded("params") - wide.params)
    assert np.median(difference) < 2e-3
    assert np.max(difference) < 0.05


def test_an_initial_value_may_be_a_hyperparameter():
    assert (Ada(np.zeros(3), start=2.5).state["total"] == 2.5).all()
    assert not Ada(np.zeros(3), start=0.0).state["total"].any()
    many = Ada([np.zeros(3, np.float32), np.zeros((2, 5000), np.float32)])
    assert all((a == np.float32(0.1)).all() for a in many.state["total"])


@cases
def test_checkpoint(cls, kwargs, tmp_path):
    p = numbers(np.float32)
    opt = cls(p, **kwargs)
    opt.step(numbers(np.float32, seed=1))
    np.savez(tmp_path / "own.npz", **opt.state_dict())
    q = p.copy()
    resumed = cls(q, **kwargs)
    with np.load(tmp_path / "own.npz") as file:
        resumed.load_state_dict(file)
    for o in (opt, resumed):
        o.step(numbers(np.float32, seed=2))
    np.testing.assert_array_equal(p, q)
    assert resumed.step_count == 2


SIMULATED = """
import numpy as np, fastopt
from tests.own_optimizers import Ada, Lion
from tests.simulated.device import Device, host

for cls, kwargs in ((Lion, {}), (Ada, {}), (Ada, {"heavy": True}), (Ada, {"heavy": True, "state_dtype": "int8"})):
    p = np.random.default_rng(0).normal(size=515).astype(np.float32)
    q = p.copy()
    cpu, gpu = cls(p, reproducible=True, **kwargs), cls(Device(q), reproducible=True, **kwargs)
    for step in range(3):
        g = np.random.default_rng(step).normal(size=515).astype(np.float32)
        cpu.step(g)
        gpu.step(Device(g.copy()))
    same = [(p == q).all()] + [(a == host(gpu.state[name])).all() for name, a in cpu.state.items()]
    print(all(same), end=" ")
"""


def test_simulator(run_script):
    assert run_script(SIMULATED, NUMBA_ENABLE_CUDASIM=1, PYTHONPATH=".") == "True True True True"


def test_bench(capsys):
    pytest.importorskip("rich", reason="needs the extra `bench`")
    from fastopt._bench import cli

    arguments = ["--only", "NumPy", "--sizes", "64", "--models", "--roofline", "4096", "--seconds", "0.01"]
    own = ["tests.own_optimizers:Lion", "tests.own_optimizers:Ada"]
    assert cli.main([*arguments, "--optimizers", *own]) == 0
    out = capsys.readouterr().out
    assert "Lion" in out
    assert "Ada " in out


class TestMistakes:
    """What an author is told: of the class, when it is made."""

    class Scalars(NamedTuple):
        lr: float
        beta: float

    def make(self, rule, scalars=None, **more):
        kind = self.Scalars

        def usual(step, lr, beta) -> kind:
            return kind(lr=lr, beta=beta)

        own = {"beta": decay(0.9), "v": state(), "scalars": staticmethod(scalars or usual), "rule": staticmethod(rule)}
        return type("Own", (fastopt.Optimizer,), own | more)

    @staticmethod
    def good(s, g, p, v):
        v = s.beta * v + g
        return p - s.lr * v, v

    def test_none(self):
        p = np.zeros(2)
        self.make(self.good)(p, lr=1.0).step(np.ones(2))
        assert (p == -1).all()

    def test_a_literal(self):
        def rule(s, g, p, v):
            v = 0.5 * v + g
            return p - s.lr * v, v

        with pytest.raises(
            TypeError, match=r"Own\.rule has 0\.5 in an operation \*.*return such a number from scalars"
        ):
            self.make(rule)

    def test_a_literal_in_a_function(self):
        def rule(s, g, p, v):
            return p - s.lr * np.maximum(v, 0), v

        with pytest.raises(TypeError, match=r"Own\.rule has 0 in an operation np\.maximum"):
            self.make(rule)

    def test_a_literal_in_a_branch(self):
        def rule(s, g, p, v):
            return p - s.lr * (v if g > 0 else 1.0), v

        with pytest.raises(TypeError, match=r"Own\.rule has 1\.0 in an operation \*"):
            self.make(rule)

    def test_a_literal_as_a_state(self):
        def rule(s, g, p, v):
            return p - s.lr * g, (g if g > 0 else 0.0)

        with pytest.raises(TypeError, match=r"Own\.rule returns 0\.0 as v"):
            self.make(rule)

    def test_a_state_that_is_not_returned(self):
        with pytest.raises(TypeError, match=r"Own\.rule must return p, v; it returned 1 value"):
            self.make(lambda s, g, p, v: p - s.lr * v)

    def test_a_state_that_is_no_argument(self):
        with pytest.raises(TypeError, match=r"Own\.rule must take \(s, g, p, v\), every declared state in order; it"):
            self.make(lambda s, g, p: p - s.lr * g)

    def test_states_in_another_order(self):
        def rule(s, g, p, w, v):
            return p - s.lr * v, w, v

        with pytest.raises(TypeError, match=r"must take \(s, g, p, v, w\)"):
            self.make(rule, w=state())

    def test_a_scalar_that_there_is_not(self):
        def rule(s, g, p, v):
            return p - s.rate * v, v

        with pytest.raises(AttributeError, match=r"Own\.rule uses s\.rate; the scalars are lr, beta; flags: nesterov"):
            self.make(rule, nesterov=flag(False))

    def test_a_scalar_by_position(self):
        def rule(s, g, p, v):
            lr, beta = s
            return p - lr * v, beta * v

        with pytest.raises(TypeError, match=r"takes s apart by position: use its names, such as s\.lr"):
            self.make(rule)

    def test_scalars_without_names(self):
        with pytest.raises(TypeError, match=r"Own\.scalars must say which NamedTuple it returns"):
            self.make(self.good, lambda step, lr, beta: (lr, beta))

    def test_a_hyperparameter_that_there_is_not(self):
        def scalars(step, lr, momentum) -> self.Scalars:
            return self.Scalars(lr, momentum)

        with pytest.raises(TypeError, match=r"Own\.scalars takes 'momentum', which is no hyperparameter: lr, beta"):
            self.make(self.good, scalars)

    def test_no_staticmethod(self):
        scalars = staticmethod(self.make(self.good).scalars)
        with pytest.raises(TypeError, match=r"Own\.rule must be a function of its own: put @staticmethod above it"):
            type("Own", (fastopt.Optimizer,), {"beta": decay(0.9), "v": state(), "scalars": scalars, "rule": self.good})

    @pytest.mark.parametrize("what", ["when", "init"])
    def test_a_state_of_a_hyperparameter_that_there_is_not(self, what):
        with pytest.raises(TypeError, match=rf"Own\.w = state\({what}='heavy'\) must name a hyperparameter: lr, beta"):
            self.make(lambda s, g, p, v, w: (p, v, w), w=state(**{what: "heavy"}))

    def test_math(self):
        import math

        with pytest.raises(TypeError, match=r"calls a function of one Python number: use NumPy's, such as np\.sqrt"):
            self.make(lambda s, g, p, v: (p - math.sqrt(v), v))

    def test_one_name_twice(self):
        with pytest.raises(TypeError, match="'beta' both as a scalar and as a flag"):
            self.make(self.good, beta=flag(True))

    def test_a_pair_in_place_of_a_number(self):
        with pytest.raises(TypeError, match=r"betas\[1\]|must be a pair"):
            self.make(self.good, betas=betas(0.9, 0.99))(np.zeros(2), betas=0.9)

    def test_states_are_no_attributes(self):
        opt = self.make(self.good)(np.zeros(2))
        with pytest.raises(AttributeError, match=r"opt\.state\['v'\]"):
            _ = opt.v

    def test_a_name_that_optimizers_use(self):
        for name in ("params", "step", "state", "lr"):
            with pytest.raises(TypeError, match=f"state {name!r}"):
                self.make(lambda s, g, p, v, w: (p, v, w), **{name: state()})


def test_flags_are_constants_and_both_ways_are_checked():
    with pytest.raises(TypeError, match=r"has 2\.0 in an operation"):

        class Scalars(NamedTuple):
            lr: float

        class Own(fastopt.Optimizer):
            lr = rate(0.1)
            fast = flag(False)

            @staticmethod
            def scalars(step, lr) -> Scalars:
                return Scalars(lr)

            @staticmethod
            def rule(s, g, p):
                return p - s.lr * 2.0 * g if s.fast else p - s.lr * g


class Rate(NamedTuple):
    lr: float


class TestReadings:
    """What a sceptical reading of the class checks found."""

    class Scalars(NamedTuple):
        lr: float

    def make(self, rule, scalars=None, **more):
        kind = self.Scalars

        def usual(step, lr) -> kind:
            return kind(lr=lr)

        own = {"scalars": staticmethod(scalars or usual), "rule": staticmethod(rule)}
        return type("Own", (fastopt.Optimizer,), own | more)

    @pytest.mark.parametrize("names", [("m_scale", "m"), ("low",), ("compensation",), ("stream",), ("optimizer",)])
    def test_states_do_not_take_the_places_of_others(self, names):
        rule = eval(f"lambda s, g, p, {', '.join(names)}: (p, {', '.join(names)})")
        with pytest.raises(TypeError, match="has a state"):
            self.make(rule, **{name: state() for name in names})

    @pytest.mark.parametrize("name", ["step", "values", "state", "seed", "params", "p", "timed"])
    def test_nor_do_hyperparameters(self, name):
        with pytest.raises(TypeError, match=f"has a hyperparameter {name!r}"):
            self.make(lambda s, g, p: p, **{name: decay(0.5)})

    def test_a_plain_value_in_the_place_of_a_hyperparameter(self):
        with pytest.raises(
            TypeError, match=r"Own\.lr must be declared with fastopt\.rules, such as rate\(0\.1\), got 0\.5"
        ):
            self.make(lambda s, g, p: p, lr=0.5)

    def test_the_parameter_before_the_gradient(self):
        with pytest.raises(
            TypeError, match=r"must take \(s, g, p, m\), every declared state in order; it takes \(s, p, g"
        ):
            self.make(lambda s, p, g, m: (p - s.lr * g, m), m=state())

    def test_a_tuple_without_states(self):
        with pytest.raises(TypeError, match=r"Own\.rule must return p alone, no tuple; got tuple"):
            self.make(lambda s, g, p: (p - s.lr * g,))

    def test_where(self):
        with pytest.raises(TypeError, match=r"calls np\.where: write a if condition else b"):
            self.make(lambda s, g, p: np.where(g > p, g, p))

    def test_a_loop_without_an_end(self):
        def rule(s, g, p):
            while p > s.lr:
                p = p - g
            return p

        with pytest.raises(TypeError, match=r"Own\.rule has more than 1000 branches one after the other, or no end"):
            self.make(rule)

    def test_ten_branches(self):
        def rule(s, g, p):
            for _ in range(10):
                p = max(g, p)
            return p - s.lr * g

        p = np.zeros(3)
        self.make(rule)(p, lr=1.0).step(np.array([1.0, -1.0, 0.0]))
        np.testing.assert_array_equal(p, [0.0, 1.0, 0.0])

    def test_a_function_of_an_optional_state_before_another(self):
        own = self.make(
            lambda s, g, p, a, b: (p - s.lr * g, a, b + g), a=state(when="fast"), b=state(), fast=flag(False)
        )
        p, b = np.zeros(2), np.zeros(2)
        function = fastopt.as_function(own)
        function(p, np.ones(2), b=b, lr=1.0)
        assert (p == -1).all()
        assert (b == 1).all()
        with pytest.raises(TypeError, match="needs the state b"):
            function(p, np.ones(2))

    def test_a_property_that_scalars_take_may_be_set(self):
        class Own(fastopt.Optimizer):
            @property
            def temperature(self):
                return self.__dict__.get("_temperature", 1.0)

            @temperature.setter
            def temperature(self, value):
                self._temperature = value

            @staticmethod
            def scalars(step, lr, temperature) -> Rate:
                return Rate(lr * temperature)

            @staticmethod
            def rule(s, g, p):
                return p - s.lr * g

        p = np.zeros(1)
        opt = Own(p, lr=1.0)
        opt.step(np.ones(1))
        opt.temperature = 10.0
        opt.step(np.ones(1))
        assert p == -11

    @pytest.mark.parametrize(
        "body", ["S._make((lr,))", "S(0.0)._replace(lr=lr)", "S((lambda r: S(r.lr))(S(lr)).lr)"], ids=str
    )
    def test_scalars_may_do_more_with_their_named_tuple(self, body):
        scope = {"S": self.Scalars}
        exec(f"def scalars(step, lr) -> S: return {body}", scope)
        p = np.zeros(2)
        self.make(lambda s, g, p: p - s.lr * g, scope["scalars"])(p, lr=1.0).step(np.ones(2))
        assert (p == -1).all()

    def test_what_scalars_refer_to_is_not_kept(self):
        import gc
        import weakref

        class Thing:
            pass

        scope = {"S": self.Scalars, "factor": 2.0, "thing": Thing()}
        exec("def scalars(step, lr) -> S: return S(lr * factor)", scope)
        seen = weakref.ref(scope["thing"])
        own, p = self.make(lambda s, g, p: p - s.lr * g, scope["scalars"]), np.zeros(1)
        opt = own(p, lr=1.0)
        del scope["thing"]
        gc.collect()
        assert seen() is None
        opt.step(np.ones(1))
        scope["factor"] = 3.0
        own(p, lr=1.0).step(np.ones(1))  # a new one takes what there is now
        assert p == -5

    @pytest.mark.parametrize("numbers", [(), (1.0, 2.0)], ids=str)
    def test_other_numbers_than_names(self, numbers):
        kind = self.Scalars

        def scalars(step, lr) -> kind:
            return numbers

        with pytest.raises(
            TypeError, match=rf"Own\.scalars returned {len(numbers)} numbers, and its NamedTuple has lr"
        ):
            self.make(lambda s, g, p: p, scalars)(np.zeros(3)).step(np.ones(3))

    @pytest.mark.parametrize(("init", "error"), [(-1.0, ValueError), (1e300, ValueError)])
    def test_initial_values(self, init, error):
        own = self.make(lambda s, g, p, v: (p, v), v=state(nonnegative=init < 0, init=init))
        with pytest.raises(
            error, match=r"init of the state 'v' must be a finite number in \[0, inf|too large for float32"
        ):
            own(np.zeros(3, np.float32))

    def test_many_rates_of_a_function_share_a_plan(self):
        from fastopt._engine import single

        p, m = np.zeros(3), np.zeros(3)
        lion(p, np.ones(3), m, lr=0.1)
        before = len(single._PLANS)
        for k in range(300):
            lion(p, np.ones(3), m, lr=0.1 + k / 1000)
        assert len(single._PLANS) == before

    def test_the_docstring_of_a_function_of_ones_own(self):
        assert "own_optimizers.Ada`" in ada.__doc__
        assert "total 0.1" in ada.__doc__
        assert ">>> ada(" in ada.__doc__


class Sizes(NamedTuple):
    whole: float
    part: float


class TestNorms:
    """A rule that has norms over the tensor, and what is wrong with some."""

    def make(self, norms, rule=None, *, decorated=True):
        def scalars(step, lr) -> Rate:
            return Rate(lr=lr)

        rule = rule or (lambda s, g, p: p - s.lr * g / s.whole)
        norms = staticmethod(norms) if decorated else norms
        own = {"scalars": staticmethod(scalars), "norms": norms, "rule": staticmethod(rule)}
        return type("Own", (fastopt.Optimizer,), own)

    @staticmethod
    def sizes(s, g, p) -> Sizes:
        return Sizes(whole=g, part=p)

    @pytest.mark.parametrize("size", [1, 5, 4097, 2**17 + 3])
    def test_what_the_rule_is_given(self, size):
        cls = self.make(self.sizes, lambda s, g, p: p + s.lr * s.whole + s.part)
        p, g = np.full(size, 2.0), np.full(size, 3.0)
        other, wanted = p.copy(), 2 + 3 * np.sqrt(size) + 2 * np.sqrt(size)
        cls(p, lr=1.0).step(g)
        np.testing.assert_allclose(p, wanted, rtol=1e-15)
        fastopt.as_function(cls)(other, g, lr=1.0)
        np.testing.assert_array_equal(other, p)

    def test_each_tensor_has_its_own(self):
        p = [np.zeros(3, np.float32), np.zeros(0, np.float32), np.zeros((2, 2), np.float32)]
        opt = self.make(self.sizes)([{"params": p[:2]}, {"params": p[2:], "lr": 2.0}], lr=1.0)
        opt.step([[np.full(3, 5.0, np.float32), p[1].copy()], [np.ones((2, 2), np.float32)]])
        np.testing.assert_allclose(p[0], -1 / np.sqrt(3), rtol=1e-6)
        np.testing.assert_array_equal(p[2], -1.0)

    def test_of_gradients_that_are_clipped(self):
        p, g = np.zeros(4), np.full(4, 10.0)
        opt = self.make(self.sizes, lambda s, g, p: p + s.whole)(p, clip_norm=2.0)
        opt.step(g)
        np.testing.assert_allclose(p, 2.0)
        assert opt.grad_norm == 20

    def test_averages_and_copies_are_none_of_its_business(self):
        p, copy = np.zeros(3, np.float32), np.empty(3, np.float16)
        opt = self.make(self.sizes)(p, lr=1.0, ema=0.5, copy_to=copy)
        opt.step(np.array([3.0, 4.0, 0.0], np.float32))
        np.testing.assert_allclose(p, [-0.6, -0.8, 0], rtol=1e-6)
        np.testing.assert_array_equal(copy, p.astype(np.float16))
        np.testing.assert_array_equal(opt.state["average"], p / 2)

    def test_another_with_the_same_rule(self):
        """A kernel is found by its norms, too."""

        def rule(s, g, p):
            return p - s.lr * g / s.whole

        results = []
        for norms in (self.sizes, lambda s, g, p: Sizes(whole=g + g, part=p)):
            norms.__annotations__["return"] = Sizes
            p = np.zeros(4)
            self.make(norms, rule)(p, lr=1.0).step(np.ones(4))
            results.append(p[0])
        assert results == [-0.5, -0.25]

    def test_numbers_that_are_not_finite_or_too_large(self):
        p = np.zeros(4, np.float32)
        self.make(self.sizes, lambda s, g, p: p + s.whole)(p).step(np.full(4, 3e38, np.float32))
        assert (p == np.inf).all()
        p = np.zeros(4, np.float32)
        self.make(self.sizes, lambda s, g, p: p + s.whole)(p).step(np.array([1, np.nan, 1, 1], np.float32))
        assert np.isnan(p).all()

    @pytest.mark.parametrize(
        ("norms", "message"),
        [
            (lambda s, g, p: (g, p), r"Own\.norms must say which NamedTuple it returns: def norms\(s, g, p\) -> Norms"),
            (lambda g, p: Sizes(p, g), r"Own\.norms must take \(s, g, p\), every declared state in order"),
            (lambda s, g, p: g, r"Own\.norms must return whole, part; it returned 1 value"),
            (lambda s, g, p: Sizes(g, 1.0), r"Own\.norms returns 1\.0 as part, which has a type of its own"),
            (lambda s, g, p: Sizes(g * 2.0, p), r"Own\.norms has 2\.0 in an operation \*"),
            (lambda s, g, p: Sizes(g * s.part, p), r"Own\.norms uses s\.part; the scalars are lr"),
        ],
    )
    def test_what_is_wrong_is_said(self, norms, message):
        if "NamedTuple" not in message:
            norms.__annotations__["return"] = Sizes
        with pytest.raises((TypeError, AttributeError), match=message):
            self.make(norms)

    def test_two_things_of_one_name(self):
        class Twice(NamedTuple):
            lr: float

        def norms(s, g, p) -> Twice:
            return Twice(lr=g)

        norms.__annotations__["return"] = Twice
        with pytest.raises(TypeError, match="Own has 'lr' both as a scalar and as a norm"):
            self.make(norms)

    def test_a_method(self):
        with pytest.raises(TypeError, match=r"Own\.norms must be a function of its own: put @staticmethod above it"):
            self.make(self.sizes, decorated=False)

    def test_another_tuple(self):
        class Swapped(NamedTuple):
            part: float
            whole: float

        def norms(s, g, p) -> Sizes:
            return Swapped(part=p, whole=g)

        norms.__annotations__["return"] = Sizes
        with pytest.raises(TypeError, match=r"Own\.norms must return whole, part; it returned part, whole"):
            self.make(norms)

    def test_copies_and_pickles(self):
        for opt in (fastopt.LAMB(np.ones(3)), fastopt.AdamW(np.ones(3), cautious=True)):
            for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
                other.step(np.array([1.0, 2.0, -1.0]))
                twin = type(opt)(np.ones(3), **({"cautious": True} if opt._norms and "cautious" in opt._flags else {}))
                twin.step(np.array([1.0, 2.0, -1.0]))
                np.testing.assert_array_equal(other.params, twin.params)

    def test_a_trust_coefficient_of_0_is_no_norm_of_0(self):
        p = np.array([3.0, 4.0])
        fastopt.LARS(p, trust=0.0, lr=0.1).step(np.array([1.0, 0.0]))
        np.testing.assert_array_equal(p, [3.0, 4.0])

    def test_what_needs_norms_or_scalars_of_its_own(self):
        with pytest.raises(TypeError, match=r"norms_when must be the name of a flag of a class with norms, got 'nest"):
            type("Own", (fastopt.Momentum,), {"norms_when": "nesterov"})
        with pytest.raises(TypeError, match=r"own_decay is for scalars that take weight_decay and decoupled"):
            type("Own", (fastopt.Momentum,), {"own_decay": True})
        with pytest.raises(TypeError, match="helper must decorate a Python function, got 3"):
            helper(3)
