"""Groups of parameters: one launch where rule and storage agree, and the bits of separate optimizers."""

import copy
import pickle
from typing import ClassVar, NamedTuple

import numpy as np
import pytest

import fastopt
from fastopt import schedules
from fastopt.rules import nonnegative

from .cases import assert_same_bits

SIZES = [5, 9000, 1, 300, 2**16]
GROUP_OF = [0, 2, 1, 1, 0]


def numbers(dtype, seed, sizes=None):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=n).astype(dtype) for n in sizes or SIZES]


def in_groups(arrays):
    """Return arrays as three groups: a list of two, a dict of two, and one array."""
    first = [a for a, g in zip(arrays, GROUP_OF, strict=True) if g == 0]
    second = {f"n{t}": a for t, (a, g) in enumerate(zip(arrays, GROUP_OF, strict=True)) if g == 1}
    return [first, second, arrays[1]]


OWN = {
    "rates": ("Adam", {}, [{"lr": 0.1}, {"lr": 0.01}, {}]),
    "decay or none": ("AdamW", {"lr": 0.1}, [{"weight_decay": 0.5}, {"weight_decay": 0.0}, {}]),
    "coupled decay or none": ("RMSprop", {"weight_decay": 0.1}, [{}, {"weight_decay": 0.0}, {"beta": 0.5}]),
    "flags": ("Momentum", {"dampening": 0.5}, [{"nesterov": True}, {"maximize": True}, {"dampening": None}]),
    "schedules": (
        "NAdam",
        {"lr": schedules.linear(0.1, 0.0, steps=10)},
        [{"lr": lambda step: 1 / step}, {}, {"lr": 0.0}],
    ),
    "numbers of every kind": ("Adam", {}, [{"betas": (0.5, 0.6)}, {"eps": 1.0, "eps_root": 0.1}, {"eps_hat": 0.1}]),
    "initial values": ("Adagrad", {}, [{"initial_accumulator_value": 0.5}, {"lr": 1.0}, {"weight_decay": 0.1}]),
}
#: How many launches there are: one where the rule is the same.
LAUNCHES = {"coupled decay or none": 2, "flags": 3, "initial values": 2}
STORAGES = [
    (np.float32, {}),
    (np.float64, {"state_dtype": "float32"}),
    (np.uint16, {"rounding": "kahan", "state_dtype": "float16"}),
]


@pytest.mark.parametrize("which", OWN)
@pytest.mark.parametrize(("dtype", "storage"), STORAGES, ids=["float32", "float64", "bfloat16"])
def test_each_group_has_the_bits_of_an_optimizer_of_its_own(which, dtype, storage):
    name, shared, own = OWN[which]
    kind = getattr(fastopt, name)

    def stored(seed):
        given = numbers(np.float32, seed)
        return (
            [(a.view(np.uint32) >> 16).astype(np.uint16) for a in given]
            if dtype == np.uint16
            else [a.astype(dtype) for a in given]
        )

    params = stored(0)
    alone = [p.copy() for p in params]
    groups = [{"params": p, **h} for p, h in zip(in_groups(params), own, strict=True)]
    opt = kind(groups, **shared, **storage)
    others = [kind(p, **storage, **(shared | h)) for p, h in zip(in_groups(alone), own, strict=True)]
    assert len(opt._groups) == LAUNCHES.get(which, 1)
    for step in (1, 2, 3):
        grads = in_groups(stored(step))
        opt.step(grads)
        for other, g in zip(others, grads, strict=True):
            other.step(g)
    assert_same_bits(params, alone)
    for state, rows in opt.state.items():
        for row, other in zip(rows, others, strict=True):
            theirs = other.state[state]
            pairs = zip(
                *(
                    [x] if isinstance(x, np.ndarray) else x.values() if isinstance(x, dict) else x
                    for x in (row, theirs)
                ),
                strict=True,
            )
            for a, b in pairs:
                np.testing.assert_array_equal(a, b)


def three(kind=fastopt.AdamW, **more):
    """Return parameters and an optimizer of three groups."""
    params = numbers(np.float32, 0)
    groups = [{"params": p, "lr": lr} for p, lr in zip(in_groups(params), (0.1, 0.01, 0.5), strict=True)]
    return params, kind(groups, **more)


def test_a_group_follows_the_optimizer_but_for_its_own():
    _, opt = three()
    first, second, _ = opt.groups
    assert (first.lr, second.lr, first.weight_decay, opt.lr) == (0.1, 0.01, 0.01, 1e-3)
    opt.weight_decay = 0.3
    first.weight_decay = 0.2
    opt.betas = (0.5, 0.6)
    assert (first.weight_decay, second.weight_decay, second.betas) == (0.2, 0.3, (0.5, 0.6))
    del first.weight_decay
    assert first.weight_decay == 0.3
    with pytest.raises(AttributeError, match="no 'weight_decay' of its own"):
        del first.weight_decay
    with pytest.raises(AttributeError, match="momentum"):
        _ = first.momentum
    assert repr(second) == "ParamGroup(2 arrays, lr=0.01)"
    assert "groups=(ParamGroup(2 arrays, lr=0.1), " in repr(opt)
    assert [list(g.params) for g in opt.groups[1:2]] == [["n2", "n3"]]


def test_one_group_is_the_optimizer():
    p = np.ones(3)
    for opt in (fastopt.GD(p, 0.5), fastopt.GD([{"params": p, "lr": 0.5}]), fastopt.GD({"p": p}, 0.5)):
        (group,) = opt.groups
        assert (group.lr, opt.lr) == (0.5, 0.5)
        group.lr = 0.25
        assert (group.lr, opt.lr, group._own) == (0.25, 0.25, {})
        assert "groups" not in repr(opt)
        assert "groups" not in opt.state_dict()


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("lr", -1, ValueError, r"groups\[1\].lr must be a finite number"),
        ("lr", 1e300, ValueError, "too large for float32"),
        ("eps", 1e-60, ValueError, "eps must be 0 or at least"),
        ("amsgrad", True, ValueError, "make a new optimizer"),
        ("learning_rate", 1, TypeError, r"groups\[1\] has 'learning_rate'; a group has params, lr"),
        ("clip_norm", 1.0, TypeError, r"groups\[1\] has 'clip_norm', which is for all groups together"),
        ("reproducible", True, TypeError, "all groups together"),
    ],
)
def test_what_a_group_cannot_be_set_to_changes_nothing(name, value, error, words):
    params, opt = three()
    before, shown = [p.copy() for p in params], repr(opt)
    grads = in_groups(numbers(np.float32, 1))
    opt.bind(grads)
    with pytest.raises(error, match=words):
        setattr(opt.groups[1], name, value)
        opt.step()
    if value == 1e300:
        opt.groups[1].lr = 0.01  # acceptable by itself, but not in this dtype
    assert repr(opt) == shown
    assert_same_bits(params, before)
    opt.step()
    twin_params, twin = three()
    twin.step(grads)
    assert_same_bits(params, twin_params)


def test_a_change_that_takes_other_launches_keeps_bound_gradients():
    params, opt = three(fastopt.Adam)
    grads = in_groups(numbers(np.float32, 1))
    opt.bind(grads)
    opt.step()
    opt.groups[0].weight_decay = 0.1
    assert len(opt._groups) == 2
    opt.step()
    del opt.groups[0].weight_decay
    assert len(opt._groups) == 1
    opt.step()
    others, twin = three(fastopt.Adam)
    for decay in (0.0, 0.1, 0.0):
        twin.groups[0].weight_decay = decay
        twin.step(grads)
    assert_same_bits(params, others)


def test_numbers_that_change_compile_nothing():
    _, opt = three()
    grads = in_groups(numbers(np.float32, 1))
    opt.step(grads)
    (group,) = opt._groups
    spec, values = group.spec, group.values
    for step in range(3):
        opt.groups[1].lr = 0.5**step
        opt.groups[2].weight_decay = 0.0 if step == 1 else 0.1
        opt.step(grads)
    assert opt._groups == (group,)
    assert (group.spec, group.values) == (spec, values)


NAMES = ("embed.weight", "block.0.weight", "block.0.bias", "block.0.norm.weight", "head.bias")


def named(seed=0):
    return dict(zip(NAMES, numbers(np.float32, seed), strict=True))


def test_patterns_select_by_name():
    params, twin = named(), named()
    plain = {("*.bias", "*.norm.*"): {"weight_decay": 0.0}, "embed.*": {"lr": 0.5}}
    opt = fastopt.AdamW(params, 0.1, weight_decay=0.1, groups=plain)
    assert [list(g.params) for g in opt.groups] == [
        ["block.0.bias", "block.0.norm.weight", "head.bias"],
        ["embed.weight"],
        ["block.0.weight"],
    ]
    others = {
        name: fastopt.AdamW(
            p, 0.5 if "embed" in name else 0.1, weight_decay=0.0 if "bias" in name or "norm" in name else 0.1
        )
        for name, p in twin.items()
    }
    for step in (1, 2):
        opt.step(named(step))
        for name, g in named(step).items():
            others[name].step(g)
    assert_same_bits(params.values(), twin.values())
    assert len(fastopt.AdamW(named(), groups={"*": {"lr": 0.5}}).groups) == 1


@pytest.mark.parametrize(
    ("params", "groups", "error", "words"),
    [
        (named(), {"*.biass": {}}, ValueError, r"pattern '\*.biass', which no name of params matches"),
        (named(), {"*": {}, "*.bias": {}}, ValueError, r"groups\['\*.bias'\] is left with no parameter"),
        (named(), {"*": {"lrr": 1}}, TypeError, r"groups\['\*'\] has 'lrr'; a group has params"),
        (named(), {"*": {"lr": "x"}}, TypeError, r"groups\['\*'\].lr must be a number"),
        (named(), {"*": {"clip_norm": 1.0}}, TypeError, "for all groups together"),
        (named(), {"*": 1}, TypeError, r"groups\['\*'\] must be a mapping of hyperparameters, got int"),
        (named(), {1: {}}, TypeError, "must be a pattern such as"),
        (named(), [{}], TypeError, "groups must be a mapping of patterns"),
        ([np.ones(3)], {"*": {}}, TypeError, "selects by name, from params that are a mapping"),
        ([{"params": np.ones(3)}], {"*": {}}, TypeError, "params is a list of groups already"),
        ([{"params": np.ones(3)}, np.ones(3)], None, TypeError, r"params\[1\] must be a group, .* got ndarray"),
        ([{"param": np.ones(3)}], None, TypeError, r"params\[0\] must be a group, .* got dict with \['param'\]"),
        ([{"params": []}], None, ValueError, r"params\[0\]\['params'\] must hold at least one array"),
        ([{"params": [1.0]}], None, TypeError, r"params\[0\]\['params'\]\[0\]"),
        ([{"params": np.ones(3), "lr": -1}], None, ValueError, r"params\[0\].lr must be a finite number"),
        ([{"params": {"a": np.ones(3), "b": np.ones(3, "i4")}}], None, TypeError, r"params\[0\]\['params'\]\['b'\]"),
    ],
)
def test_groups_that_are_refused(params, groups, error, words):
    with pytest.raises(error, match=words):
        fastopt.Adam(params, groups=groups)


def test_gradients_come_as_the_groups_are():
    params, opt = three()
    before = [p.copy() for p in params]
    first, second, third = in_groups(numbers(np.float32, 1))
    for grads, error, words in (
        ([first, second], ValueError, "an entry for each of 3 groups, got 2"),
        (first[0], TypeError, "a sequence with an entry for each of 3 groups"),
        ([first, first, third], TypeError, r"grads\[1\] must be a mapping"),
        ([first, second, first], TypeError, r"grads\[2\] must be one array"),
        (
            [first, {**second, "n2": third}, third],
            ValueError,
            r"grads\[1\]\['n2'\] must have the shape of params\[1\]\['params'\]\['n2'\]",
        ),
        ([first, second, None], TypeError, r"grads\[2\]"),
    ):
        with pytest.raises(error, match=words):
            opt.step(grads)
    assert_same_bits(params, before)
    opt.params[0][1] = np.zeros_like(opt.params[0][1])
    with pytest.raises(ValueError, match=r"params\[0\]\['params'\]\[1\] was replaced"):
        opt.step([first, second, third])
    shared = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="share memory"):
        fastopt.GD([{"params": shared}, {"params": [shared[1:]]}])


@pytest.mark.parametrize("form", ["groups", "sequence", "mapping"])
def test_added_parameters_begin_as_new_ones(form):
    old, new = numbers(np.float32, 0, [7, 40000]), numbers(np.float64, 1, [9])
    alone = [p.copy() for p in (*old, *new)]

    def arranged(arrays, names="xy"):
        return dict(zip(names, arrays, strict=False)) if form == "mapping" else list(arrays)

    opt = fastopt.AdamW([{"params": arranged(old)}] if form == "groups" else arranged(old), lr=lambda step: 0.1 / step)
    first = numbers(np.float32, 2, [7, 40000])
    opt.step([first] if form == "groups" else arranged(first))
    if form == "groups":
        opt.add_params({"params": new, "weight_decay": 0.5}, betas=(0.5, 0.6))
    else:
        opt.add_params(arranged(new, "z"), weight_decay=0.5, betas=(0.5, 0.6))
    assert len(opt.groups) == 2
    twin = fastopt.AdamW(alone[:2], lr=lambda step: 0.1 / step)
    late = fastopt.AdamW(alone[2], lr=lambda step: 0.1 / (step + 1), weight_decay=0.5, betas=(0.5, 0.6))
    twin.step(first)
    for seed in (3, 4):
        grads = [*numbers(np.float32, seed, [7, 40000]), *numbers(np.float64, seed + 9, [9])]
        opt.step([grads[:2], grads[2:]] if form == "groups" else arranged(grads, "xyz"))
        twin.step(grads[:2])
        late.step(grads[2])
    assert_same_bits([*old, *new], alone)
    # A checkpoint knows when they began.
    saved = opt.state_dict()
    assert saved["group/1//start"] == 1
    opt.step_count = 0  # as from the beginning: nothing began after it
    assert opt.groups[1]._start == 0
    opt.load_state_dict(saved)
    assert (opt.groups[1]._start, opt.step_count) == (1, 3)


def test_what_cannot_be_added_changes_nothing():
    params, opt = three()
    grads = in_groups(numbers(np.float32, 1))
    opt.bind(grads)
    opt.step()
    shown, saved = repr(opt), opt.state_dict()
    extra = np.ones(3, np.float32)
    for added, hyper, error, words in (
        (params[0][1:], {}, ValueError, "share memory"),
        (extra, {"lr": -1}, ValueError, r"groups\[3\].lr must be"),
        (extra, {"clip_norm": 1.0}, TypeError, "for all groups together"),
        (extra, {"amsgrad": True}, ValueError, "would have the states"),
        ({"params": extra, "lrr": 1}, {}, TypeError, r"groups\[3\] has 'lrr'"),
        (3, {}, TypeError, "must be a numpy.ndarray"),
    ):
        with pytest.raises(error, match=words):
            opt.add_params(added, **hyper)
    assert repr(opt) == shown
    assert opt.state_dict().keys() == saved.keys()
    opt.step()  # with what is bound
    with pytest.raises(TypeError, match="one array as its params"):
        fastopt.GD(extra).add_params(extra.copy())
    with pytest.raises(ValueError, match=r"names \['a'\], which the optimizer has"):
        fastopt.GD({"a": extra}).add_params({"a": extra.copy()})
    with pytest.raises(TypeError, match="must be a sequence"):
        fastopt.GD([extra]).add_params({"a": extra.copy()})
    opt.add_params(extra)
    with pytest.raises(TypeError, match="unless bind"):
        opt.step()


def test_the_norm_is_that_of_all_groups():
    params, opt = three(clip_norm=1.0, nonfinite="skip", grad_scale=2.0)
    rates = (0.1, 0.01, 0.5)
    alone = [p.copy() for p in params]
    twins = [fastopt.AdamW(p, rate) for p, rate in zip(in_groups(alone), rates, strict=True)]
    grads = numbers(np.float32, 1)
    opt.step(in_groups(grads))
    norm = np.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in grads)) / 2
    assert opt.grad_norm == pytest.approx(norm, rel=1e-12)
    factor = np.float32(0.5 * (1 / opt.grad_norm))
    for twin, g in zip(twins, in_groups([g * factor for g in grads]), strict=True):
        twin.step(g)
    assert_same_bits(params, alone)
    grads[3][7] = np.nan
    opt.step(in_groups(grads))
    assert (opt.skipped, opt.step_count) == (1, 1)
    assert_same_bits(params, alone)


@pytest.mark.parametrize("way", ["dict", "file", "pickle", "copy"])
def test_a_run_goes_on_from_a_checkpoint(way, tmp_path):
    own = {"dampening": None, "nesterov": True}
    params, opt = three(fastopt.Momentum, dampening=0.5)
    for name, value in own.items():
        setattr(opt.groups[1], name, value)
    opt.groups[2].lr = lambda step: 0.1 / step
    opt.step(in_groups(numbers(np.float32, 1)))
    others, other = three(fastopt.Momentum)
    other.groups[0].weight_decay = 0.9  # which the checkpoint takes back
    other.groups[2].lr = lambda step: 0.1 / step
    if way in ("dict", "file"):
        if way == "dict":
            np.savez(tmp_path / "a.npz", **opt.state_dict())
            other.load_state_dict(np.load(tmp_path / "a.npz"))
            for p, q in zip(others, params, strict=True):
                p[...] = q
        else:
            opt.save(tmp_path / "a.safetensors", params=True)
            other.load(tmp_path / "a.safetensors")
    else:
        opt.groups[2].lr = other.groups[2].lr = 0.25
        other = pickle.loads(pickle.dumps(opt)) if way == "pickle" else copy.deepcopy(opt)
        (first, second, third) = other.params
        others = [first[0], third, *second.values(), first[1]]
    assert [group._own.keys() for group in other.groups] == [group._own.keys() for group in opt.groups]
    for step in (2, 3):
        grads = in_groups(numbers(np.float32, step))
        opt.step(grads)
        other.step(grads)
    assert_same_bits(others, params)
    other.groups[0].lr = 0.75
    assert opt.groups[0].lr == 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": 2}, "3 groups of parameters, as the optimizer has; got 2"),
        ({"groups": None}, "3 groups of parameters, as the optimizer has; got 1"),
        ({"group/1/lr": -1.0}, r"checkpoint's groups\[1\].lr must be"),
        ({"group/1/lrr": 1.0}, r"checkpoint's groups\[1\] has 'lrr'"),
        ({"group/3/lr": 1.0}, r"extra entries \['group/3/lr'\]"),
        ({"group/x": 1.0}, r"extra entries \['group/x'\]"),
        ({"group/0//start": -1}, "group/0//start must be an integer"),
        ({"group/0/eps": 1e-60}, "eps must be 0 or at least"),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(change, words):
    _, opt = three()
    opt.step(in_groups(numbers(np.float32, 1)))
    shown, before = repr(opt), opt.state_dict()
    saved = {key: value for key, value in {**opt.state_dict(), "step": 7, **change}.items() if value is not None}
    with pytest.raises((TypeError, ValueError), match=words):
        opt.load_state_dict(saved)
    assert repr(opt) == shown
    for key, value in opt.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("by", ["schedule", "mapping"])
def test_parameters_that_are_added_within_a_step(by):
    params = {"a": np.ones(64, np.float32), "b": np.ones(64, np.float32)}
    opt = fastopt.Adam(params)
    opt.step({name: np.ones(64, np.float32) for name in params})
    before = [p.copy() for p in params.values()]

    def add():
        if len(opt.groups) == 1:
            opt.add_params({"c": np.ones(64, np.float32)})

    class Grads(dict):
        def __getitem__(self, key):
            add()
            return super().__getitem__(key)

    grads = {name: np.ones(64, np.float32) for name in params}
    if by == "schedule":
        opt.lr = lambda step: add() or 0.1
    with pytest.raises(RuntimeError, match="parameters were added within step 2"):
        opt.step(Grads(grads) if by == "mapping" else grads)
    assert_same_bits(params.values(), before)
    opt.step(grads | {"c": np.ones(64, np.float32)})
    assert opt.step_count == 2


@pytest.mark.parametrize(("name", "value"), [("decoupled", True), ("weight_decay", 0.5)])
def test_a_schedule_of_a_group_that_changes_the_optimizer(name, value):
    """The scalars and the rule of every group are those after all schedules."""

    def make():
        first, second = np.ones(3), np.ones(3)
        opt = fastopt.Adam([{"params": first}, {"params": second, "lr": lambda step: change(opt, step)}], 0.1)
        opt.weight_decay = 0.1 if name == "decoupled" else 0.0
        return opt, first, second

    def change(opt, step):
        if step == 2:
            setattr(opt, name, value)
        return 0.1

    opt, first, second = make()
    for _ in range(2):
        opt.step([np.ones(3), np.ones(3)])
    twin, other = np.ones(3), np.ones(3)
    plain = fastopt.Adam([twin, other], 0.1, weight_decay=0.1 if name == "decoupled" else 0.0)
    plain.step([np.ones(3), np.ones(3)])
    setattr(plain, name, value)
    plain.step([np.ones(3), np.ones(3)])
    assert_same_bits([first, second], [twin, other])


def test_properties_of_a_class_are_those_of_all_groups():
    opt = Tempered([{"params": np.ones(3)}, {"params": np.ones(3), "lr": 0.2}], 0.1)
    opt.temperature = 2.0
    opt.step([np.ones(3), np.ones(3)])
    np.testing.assert_allclose([p[0] for p in opt.params], [0.8, 0.6])
    opt.add_params(np.ones(3))
    opt.step([np.ones(3), np.ones(3), np.ones(3)])
    np.testing.assert_allclose([p[0] for p in opt.params], [0.6, 0.2, 0.8])


class Scalars(NamedTuple):
    rate: float


class Tempered(fastopt.Optimizer):
    """Its rate is a product with a property, and a hyperparameter is called as an entry of checkpoints once was."""

    start: float = nonnegative(0.0)
    _temperature: ClassVar[float] = 1.0

    @property
    def temperature(self):
        return self._temperature

    @temperature.setter
    def temperature(self, value):
        self.__dict__["_temperature"] = value

    @staticmethod
    def scalars(step: object, lr, temperature, start) -> Scalars:
        return Scalars(rate=lr * temperature + start)

    @staticmethod
    def rule(s, g, p):
        return p - s.rate * g


def test_a_hyperparameter_that_is_called_start():
    opt = Tempered([{"params": np.ones(3), "start": 0.5}, {"params": np.ones(3), "start": 2.0}])
    saved = opt.state_dict()
    opt.groups[0].start = opt.groups[1].start = 1.0
    opt.load_state_dict(saved)
    assert [group.start for group in opt.groups] == [0.5, 2.0]
    assert [group._start for group in opt.groups] == [0, 0]


def test_a_checkpoint_of_groups_of_other_parameters():
    def make(pattern):
        return fastopt.AdamW(named(), groups={pattern: {"weight_decay": 0.0}})

    saved = make("*.bias").state_dict()
    make("*.bias").load_state_dict(saved)
    with pytest.raises(ValueError, match=r"groups\[0\] must have the parameters .*weight.*, got .*bias"):
        make("*.weight").load_state_dict(saved)


def test_a_copy_of_what_has_a_group():
    opt = fastopt.Adam([{"params": np.ones(3)}, {"params": np.ones(3), "lr": 0.5}])
    for make in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        group, other = make([opt.groups[1], opt])
        assert group._owner is other
        group.lr = 0.25
        assert (other.groups[1].lr, opt.groups[1].lr) == (0.25, 0.5)
        assert make(opt.groups[1]).lr == 0.5


def test_groups_may_come_from_a_generator():
    opt = fastopt.Adam({"params": np.ones(3), "lr": lr} for lr in (0.1, 0.2))
    assert [group.lr for group in opt.groups] == [0.1, 0.2]


def test_a_list_of_groups_is_not_added():
    opt = fastopt.Adam([{"params": np.ones(3)}, {"params": np.ones(3)}])
    with pytest.raises(TypeError, match="those of one group"):
        opt.add_params([{"params": np.ones(3)}, {"params": np.ones(3)}])
    assert len(opt.groups) == 2


def test_states_that_all_groups_call_for():
    p, q = np.ones(3), np.ones(3)
    opt = fastopt.SignSGD([{"params": p, "momentum": 0.9}, {"params": q, "momentum": 0.5}])
    assert list(opt.state) == ["m"]
    opt.step([np.ones(3), np.ones(3)])
    with pytest.raises(ValueError, match=r"would make those of groups\[1\] \(\)"):
        fastopt.SignSGD([{"params": np.ones(3), "momentum": 0.9}, {"params": np.ones(3)}])


def test_setting_one_group_leaves_the_others():
    opt = fastopt.Adam([{"params": np.ones(3), "lr": 0.1} for _ in range(5)])
    before = opt._methods
    opt.groups[3].lr = 0.5
    assert [a is b for a, b in zip(opt._methods, before, strict=True)] == [True, True, True, False, True]


def test_a_rate_that_was_a_function_stays_what_it_is():
    def make(lr):
        return fastopt.Adam([{"params": np.ones(3)}, {"params": np.ones(3), "lr": lr}])

    opt = make(0.7)
    opt.load_state_dict(make(lambda step: 0.1 / step).state_dict())
    assert opt.groups[1].lr == 0.7


SIMULATED = """
import numpy as np, fastopt
from tests.simulated.device import Device
from tests import test_groups as t

t.SIZES[1:] = [900, 1, 30, 70]
OWN = [{"lr": 0.1}, {"weight_decay": 0.0}, {"maximize": True}]
def made(arrays):
    groups = [{"params": p, **own} for p, own in zip(t.in_groups(arrays), OWN)]
    return fastopt.AdamW(groups, weight_decay=0.5, clip_norm=1.0)
params = t.numbers(np.float32, 0)
alone = [p.copy() for p in params]
opt, cpu = made([Device(p) for p in params]), made(alone)
for step in (1, 2, 3):
    opt.groups[0].lr = cpu.groups[0].lr = 0.5**step
    grads = t.numbers(np.float32, step)
    opt.step(t.in_groups([Device(g) for g in grads]))
    cpu.step(t.in_groups(grads))
print(len(opt._groups), all((p == q).all() for p, q in zip(params, alone)), opt.grad_norm == cpu.grad_norm)
try:
    fastopt.GD([{"params": Device(p)} for p in params], capturable=True)
except TypeError as error:
    print("one group" in str(error))
one = fastopt.Adam([Device(params[0])], capturable=True)
cpu = fastopt.Adam([q := params[0].copy()])
for betas in ((0.9, 0.99), (0.5, 0.6)):
    one.betas = cpu.betas = betas
    one.step([Device(grads[0])])
    cpu.step([grads[0]])
print((q == params[0]).all())
"""


def test_simulator(run_script):
    assert run_script(SIMULATED, NUMBA_ENABLE_CUDASIM=1, PYTHONPATH=".") == "2 True True\nTrue\nTrue"
