"""The optimizers of fastopt.torch beside PyTorch's own: the same trajectories, interface, errors and checkpoints."""

import copy
import functools
import importlib
import inspect
import io
import pickle
import threading
import warnings
from contextlib import nullcontext

import numpy as np
import pytest

import fastopt
from fastopt._arrays import headers
from fastopt._engine import threads

from .refusals import refuse

torch = pytest.importorskip("torch", reason="needs the extra `torch`")
fused = pytest.importorskip("fastopt.torch")
watch = pytest.importorskip("fastopt.torch.watch")
table = pytest.importorskip(
    "torch.testing._internal.common_optimizers",
    reason="needs the extra `peers`: expecttest, which PyTorch's tests import",
)

NAMES = [name for name in fused.__all__ if name != "Offload"]  # see test_offload.py
INFOS = {info.optim_cls.__name__: info for info in table.optim_db if info.optim_cls.__name__ in NAMES}
SHAPES = [(3, 4), (), (0, 2), (5,)]
#: At least as far as numbers of 16 bits are apart, twice: PyTorch rounds to them between operations.
TOLERANCES = {torch.float16: {"rtol": 1e-2, "atol": 1e-3}, torch.bfloat16: {"rtol": 4e-2, "atol": 4e-3}}


@pytest.fixture(params=["compiled", "in Python"])
def both_looks(request, monkeypatch):
    """Run a test twice: with tensors looked at from compiled code, and in Python alone."""
    if request.param == "in Python":
        monkeypatch.setattr(watch, "describer", lambda: 0)
        monkeypatch.setattr(headers, "identities", lambda _: None)
    else:
        assert watch.describer() != 0


def test_every_optimizer_that_both_have_is_there():
    both = {name for name in dir(torch.optim) if name[0].isupper() and hasattr(fastopt, name)} - {"Optimizer"}
    assert both | {"SGD"} == set(NAMES) == set(INFOS)


def leaves(dtype=torch.float32, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=wide).to(dtype)) for s in shapes]


def set_grads(params, step, skip=()):
    for k, p in enumerate(params):
        p.grad = None if k in skip else leaves(p.dtype, [p.shape], 100 * step + k + 1)[0].detach()


def train(opt, params, steps, first=0, skip=lambda step: ()):
    for step in range(first, first + steps):
        set_grads(params, step, skip(step))
        opt.step()


def check(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), **TOLERANCES.get(a.dtype, {}))


def check_states(ours, theirs):
    """Check that two optimizers have states of the same names and numbers."""
    for a, b in zip(ours.state_dict()["state"].values(), theirs.state_dict()["state"].values(), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].shape == b[key].shape
            torch.testing.assert_close(a[key].to(b[key].dtype), b[key])


def pair(name, kwargs, dtype=torch.float32, shapes=SHAPES, **own):
    """Return parameters and an optimizer, ours and PyTorch's."""
    made = []
    for module, more in ((fused, own), (torch.optim, {})):
        params = leaves(dtype, shapes)
        made.append((params, getattr(module, name)(params, **kwargs, **more)))
    return made


def inputs(name, dtype):
    return INFOS[name].optim_inputs_func(device="cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_trajectories(name, dtype):
    for given in inputs(name, dtype):
        (ours, opt), (theirs, reference) = pair(name, given.kwargs, dtype)
        train(opt, ours, 6)
        train(reference, theirs, 6)
        check(ours, theirs)
        if dtype not in TOLERANCES:
            check_states(opt, reference)


@pytest.mark.parametrize("name", NAMES)
def test_float16_is_as_close_to_float32_as_its_numbers_are(name):
    for given in inputs(name, torch.float16):
        ours, theirs = leaves(torch.float16), [torch.nn.Parameter(p.detach().float()) for p in leaves(torch.float16)]
        opt = getattr(fused, name)(ours, **given.kwargs)
        reference = getattr(torch.optim, name)(theirs, **given.kwargs)
        for step in range(6):
            set_grads(ours, step)
            for p, q in zip(ours, theirs, strict=True):
                q.grad = p.grad.float()
            opt.step()
            reference.step()
        check(ours, [p.half() for p in theirs])


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_pytorch(name):
    """Of every input that PyTorch's own tests expect to fail; a duplicate in a group is a warning, an error here."""
    for given in INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float32):
        case = given.optimizer_error_input
        params = leaves() if case.params is None else case.params
        assert given.error_on is table.OptimizerErrorEnum.CONSTRUCTION_ERROR
        with pytest.raises(given.error_type, match=given.error_regex):
            getattr(fused, name)(params, **case.kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_begin_as_those_of_pytorch(name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (fused, torch.optim))
    own = ["state_dtype", "rounding", "master", "seed", "clip_norm", "nonfinite"]
    assert [*ours] == [*theirs, *own]
    assert all(ours[key].default == theirs[key].default for key in theirs)
    assert issubclass(getattr(fused, name), getattr(torch.optim, name))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_a_gradient_wait(name):
    """Their own steps do not count, which bias corrections and the first velocity of SGD show."""
    more = {"SGD": {"momentum": 0.9, "dampening": 0.5}, "Adagrad": {"lr_decay": 0.1}, "Adam": {"amsgrad": True}}
    (ours, opt), (theirs, reference) = pair(name, more.get(name, {}))
    for one, params in ((opt, ours), (reference, theirs)):
        train(one, params, 8, skip=lambda step: ((0, 1, 2, 3), (0,), (3, 1), (), (1,), (0,), (), ())[step])
    check(ours, theirs)
    check_states(opt, reference)


def test_groups_have_their_own_hyperparameters():
    """Those that share a kernel and those that do not; states that only one of them has, too."""
    for name, different in (
        ("AdamW", [{"lr": 0.1}, {"weight_decay": 0.0, "betas": (0.5, 0.9)}, {"amsgrad": True}]),
        ("SGD", [{"momentum": 0.9, "nesterov": True}, {}, {"momentum": 0.5, "dampening": 0.5, "weight_decay": 0.1}]),
        ("RMSprop", [{"centered": True}, {"momentum": 0.5}, {"maximize": True}]),
        ("NAdam", [{"momentum_decay": 0.1}, {"decoupled_weight_decay": True, "weight_decay": 0.1}, {"lr": 0.1}]),
    ):
        made = []
        for module in (fused, torch.optim):
            params = leaves()
            opt = getattr(module, name)([{"params": [p], **own} for p, own in zip(params, different, strict=False)])
            train(opt, params[:3], 2)
            opt.add_param_group({"params": params[3:], "lr": 0.5})
            train(opt, params, 2, 2)
            opt.param_groups[1]["lr"] *= 2
            opt.param_groups[0]["weight_decay"] = 0.5
            train(opt, params, 2, 4)
            made.append((params, opt))
        (ours, opt), (theirs, reference) = made
        check(ours, theirs)
        check_states(opt, reference)


def test_one_launch_serves_groups_and_counts(monkeypatch):
    params = leaves(shapes=[(4,)] * 6)
    opt = fused.AdamW([{"params": params[:3]}, {"params": params[3:], "lr": 0.1, "weight_decay": 0.0}])
    train(opt, params, 3, skip=lambda step: (0, 4) if step == 1 else ())
    seen, launch = [], threads.launch
    monkeypatch.setattr(
        threads, "launch", lambda launches, *others: (seen.append(len(launches)), launch(launches, *others))
    )
    train(opt, params, 1, 3)
    assert seen == [1]
    assert [int(opt.state[p]["step"]) for p in params] == [3, 4, 4, 4, 3, 4]


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_schedulers_hooks_closures_and_tensors_as_hyperparameters(name):
    schedulers = torch.optim.lr_scheduler
    made, calls = [], []
    for module in (fused, torch.optim):
        params = leaves()
        opt = getattr(module, name)(params, lr=torch.tensor(0.1), **({"momentum": 0.9} if name == "SGD" else {}))
        cycle = schedulers.OneCycleLR(opt, max_lr=0.5, total_steps=10)  # changes momentum or betas, too
        opt.register_step_pre_hook(lambda *_: calls.append("before"))
        opt.register_step_post_hook(lambda *_: calls.append("after"))
        for step in range(8):

            def closure(params=params, step=step, opt=opt):
                opt.zero_grad()
                set_grads(params, step)
                return torch.tensor(float(step))

            assert opt.step(closure) == step
            cycle.step()
        made.append(params)
    check(*made)
    assert calls == ["before", "after"] * 16


def test_what_hooks_are_given_and_what_they_return():
    """The same as of PyTorch's; and where a subclass has a step of its own, once."""
    hooks = importlib.import_module("torch.optim.optimizer")

    class Own(fused.AdamW):
        def step(self, closure=None):
            return super().step(closure)

    seen = {}
    for kind in (torch.optim.AdamW, fused.AdamW, Own):
        params = leaves()
        opt, calls = kind(params), seen.setdefault(kind, [])

        def closure(calls=calls):
            calls.append("closure")
            return torch.tensor(5.0)

        def change(opt, args, kwargs, calls=calls, closure=closure):
            calls.append(("own", len(args), sorted(kwargs)))
            return (opt, closure), {}

        set_grads(params, 0)
        before = hooks.register_optimizer_step_pre_hook(
            lambda opt, args, kwargs, calls=calls: calls.append(("of all", len(args), sorted(kwargs)))
        )
        after = hooks.register_optimizer_step_post_hook(lambda *_, calls=calls: calls.append("after all"))
        opt.step()
        opt.step(closure)
        own = opt.register_step_pre_hook(change)
        assert opt.step() == 5
        for hook in (before, after, own):
            hook.remove()
        assert opt.step() is None
    assert seen[fused.AdamW] == seen[Own] == seen[torch.optim.AdamW]
    assert len(seen[Own]) == 9


def plain(kind):
    pass


def with_the_step_of_its_base(kind):
    base = kind.__mro__[1].step
    kind.step = functools.wraps(base)(lambda self, closure=None: base(self, closure))


def decorated(kind):
    kind.step = torch.no_grad()(kind.__mro__[1].step)


def traced(kind):
    before = kind.step

    def step(self, closure=None):
        return before(self, closure)

    kind.step = step


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("change", [plain, with_the_step_of_its_base, decorated, traced])
def test_hooks_of_classes_whose_step_is_replaced(change, late):
    """Before an optimizer is made, or after."""
    for base in (torch.optim.AdamW, fused.AdamW):

        class Own(base):
            pass

        if not late:
            change(Own)
        opt, calls = Own(params := leaves()), []
        if late:
            change(Own)
        opt.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        opt.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))
        set_grads(params, 0)
        opt.step()
        # PyTorch's calls them twice where its own step has been wrapped too.
        assert calls in (["before", "after"], ["before", "before", "after", "after"])
        assert opt.state[params[0]]["step"] == 1


def test_a_step_that_nobody_watches_is_not_wrapped(monkeypatch):
    opt = fused.AdamW(params := leaves())
    wrapped = []
    monkeypatch.setattr(torch.autograd.profiler, "record_function", lambda name: wrapped.append(name) or nullcontext())
    set_grads(params, 0)
    opt.step()
    assert wrapped == []
    opt.register_step_post_hook(lambda *_: None)
    opt.step()
    assert wrapped == ["Optimizer.step#AdamW.step"]


def test_hooks_of_a_pytorch_that_keeps_them_elsewhere(monkeypatch):
    opt, calls = fused.AdamW(params := leaves()), []
    opt.register_step_pre_hook(lambda *_: calls.append("before"))
    monkeypatch.delattr(torch.autograd.profiler, "_is_profiler_enabled")
    set_grads(params, 0)
    opt.step()
    assert calls == ["before"]
    assert opt.state[params[0]]["step"] == 1


def test_a_profiler_sees_steps():
    found = []
    for module in (fused, torch.optim):
        params = leaves()
        opt = module.AdamW(params)
        set_grads(params, 0)
        opt.step()
        with torch.autograd.profiler.profile() as seen:
            opt.step()
        found.append([event.name for event in seen.function_events if "Optimizer.step" in event.name])
    assert found == [["Optimizer.step#AdamW.step"]] * 2


def test_numbers_in_tensors_are_read_at_each_step():
    made = []
    for module in (fused, torch.optim):
        params, betas = leaves(), (torch.tensor(0.9), torch.tensor(0.99))
        opt = module.AdamW(params, lr=torch.tensor(0.1), betas=betas)
        train(opt, params, 2)
        opt.param_groups[0]["lr"].fill_(0.5)
        opt.param_groups[0]["betas"][0].fill_(0.5)
        train(opt, params, 2)
        made.append(params)
    check(*made)


def test_a_loss_scaler_and_clipped_gradients():
    made = []
    for module in (fused, torch.optim):
        params, scaler = leaves(), torch.amp.GradScaler("cpu", init_scale=4.0)
        opt = module.Adam(params, lr=0.1, fused=True)
        for step in range(4):
            opt.zero_grad()
            loss = sum((p * (step + 1)).square().sum() for p in params) * (torch.inf if step == 2 else 1)
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            scaler.step(opt)
            scaler.update()
        assert int(opt.state[params[0]]["step"]) == 3
        made.append(params)
    check(*made)


@pytest.mark.usefixtures("both_looks")
def test_memory_in_any_order_is_updated():
    """Permuted, channels last, gradients in another order, and what is not dense at all."""
    made = []
    for module in (fused, torch.optim):
        base = torch.arange(48.0).reshape(4, 12)
        image = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
        params = [
            torch.nn.Parameter(torch.arange(24.0).reshape(4, 6).T),
            torch.nn.Parameter(image),
            base[:, ::2].requires_grad_(),
            torch.arange(5.0).requires_grad_(),
            torch.nn.Parameter(torch.arange(8.0).reshape(2, 2, 2).permute(1, 2, 0)),
        ]
        opt = module.AdamW(params, lr=0.1)
        for step in range(3):
            set_grads(params, step)  # contiguous in C order, all of them
            if step == 1:
                params[1].grad = params[1].grad.to(memory_format=torch.channels_last)
                params[3].grad = torch.ones(()).expand(5)
            opt.step()
        assert (base[:, 1::2] == torch.arange(48.0).reshape(4, 12)[:, 1::2]).all()
        assert opt.state[params[1]]["exp_avg"].stride() == params[1].stride()
        made.append((params, opt))
    (ours, opt), (theirs, reference) = made
    check(ours, theirs)
    check_states(opt, reference)


@pytest.mark.usefixtures("both_looks")
def test_gradients_that_share_memory():
    made = []
    for module in (fused, torch.optim):
        base = torch.arange(10_000.0)
        params = [*leaves(shapes=[(3,), (3,), (4,)]), base[1:].requires_grad_()]
        opt = module.SGD(params, lr=0.5)
        for _ in range(2):
            params[0].grad = params[1].grad = torch.ones(3)
            params[2].grad = params[2].detach()
            params[3].grad = base[:-1] if module is fused else base[:-1].clone()  # as it is before the step
            opt.step()
        made.append(params)
    check(*made)


@pytest.mark.usefixtures("both_looks")
def test_memory_that_moves_is_noticed():
    made = []
    for module in (fused, torch.optim):
        params = leaves(shapes=[(3, 3), (4,)])
        opt = module.Adam(params, lr=0.1)
        train(opt, params, 1)
        params[1].data = params[1].data.clone()
        train(opt, params, 1, 1)
        params[0].data = params[0].data.t()  # the same place, and other strides
        opt.state[params[0]]["exp_avg"] = torch.ones(3, 3)
        opt.state[params[1]]["step"].fill_(7)
        train(opt, params, 1, 2)
        opt.state[params[1]]["exp_avg_sq"].share_memory_()
        train(opt, params, 1, 5)
        opt.state[params[1]] = {key: value.clone() for key, value in opt.state[params[1]].items()}
        train(opt, params, 1, 3)
        opt.state.clear()
        train(opt, params, 1, 4)
        made.append((params, opt))
    (ours, opt), (theirs, reference) = made
    check(ours, theirs)
    check_states(opt, reference)


def test_autograd_sees_the_change():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    fused.SGD([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_go_both_ways_in_the_middle_of_training(name):
    for given in inputs(name, torch.float64):
        unbroken, reference = pair(name, given.kwargs, torch.float64)[1]
        train(reference, unbroken, 8)
        for first, second in ((fused, torch.optim), (torch.optim, fused), (fused, fused)):
            params = leaves(torch.float64)
            one = getattr(first, name)(params, **given.kwargs)
            train(one, params, 4)
            file = io.BytesIO()
            torch.save(one.state_dict(), file)
            file.seek(0)
            other = getattr(second, name)(params, **given.kwargs)
            other.load_state_dict(torch.load(file, weights_only=True))
            train(other, params, 4, 4)
            check(params, unbroken)
            check_states(other, reference)
            assert other.param_groups[0].keys() == reference.param_groups[0].keys()


def test_a_checkpoint_is_copied():
    params = leaves()
    one, other = fused.Adam(params), fused.Adam(leaves(seed=1))
    train(one, params, 2)
    before = copy.deepcopy(one.state_dict())
    other.load_state_dict(one.state_dict())
    train(other, other.param_groups[0]["params"], 2)
    for old, now in zip(before["state"].values(), one.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(old[key], now[key]) for key in old)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_go_on(name):
    params = leaves()
    opt = getattr(fused, name)(params, nonfinite="skip")
    train(opt, params, 3)
    twins = [copy.deepcopy((opt, params)), pickle.loads(pickle.dumps((opt, params)))]
    train(opt, params, 2, 3)
    for other, own in twins:
        train(other, own, 2, 3)
        assert all(torch.equal(a, b) for a, b in zip(params, own, strict=True))
        own[0].grad.fill_(torch.nan)
        other.step()
        assert (other.skipped, opt.skipped) == (1, 0)


STORAGES = [
    {"state_dtype": "bfloat16", "rounding": "stochastic", "seed": 3},
    {"state_dtype": "int8", "master": "split16"},
    {"rounding": "kahan", "state_dtype": {"exp_avg": "float16"}},
    {"master": "split8"},
]


@pytest.mark.parametrize("storage", STORAGES, ids=lambda own: "-".join(map(str, own.values())))
def test_storages_have_the_bits_of_fastopts_own_class_and_resume(storage):
    shapes = [(40, 50), (7,)]
    params, plain = leaves(torch.bfloat16, shapes), leaves(torch.bfloat16, shapes)
    opt, file = fused.AdamW(params, lr=0.1, **storage), io.BytesIO()
    names = {"exp_avg": "m", "exp_avg_sq": "v"}
    own = dict(storage)
    if isinstance(own.get("state_dtype"), dict):
        own["state_dtype"] = {names[key]: value for key, value in own["state_dtype"].items()}
    single = fastopt.AdamW(plain, lr=0.1, **own)
    for step in range(4):
        set_grads(params, step)
        opt.step()
        single.step([p.grad for p in params])
        if step == 1:
            torch.save(opt.state_dict(), file)
            file.seek(0)
            opt = fused.AdamW(params, lr=0.1, **storage)
            opt.load_state_dict(torch.load(file, weights_only=True))
        if step == 2:
            opt, params = pickle.loads(pickle.dumps((opt, params)))
    assert all(torch.equal(a, b) for a, b in zip(params, plain, strict=True))
    other = fused.AdamW(params, lr=0.1, state_dtype="float32" if "int8" in storage.values() else "int8")
    other.load_state_dict(opt.state_dict())
    set_grads(params, 5)
    refuse(other.step, ValueError, ["the state 'exp_avg'", "params[0]['params'][0]", "state_dtype"])


def test_a_stochastic_sgd_counts_its_steps():
    params = leaves(torch.bfloat16)
    opt = fused.SGD(params, lr=0.1, rounding="stochastic")
    train(opt, params, 2)
    twin = copy.deepcopy((opt, params))
    other = fused.SGD(twin[1], lr=0.1, rounding="stochastic")
    other.load_state_dict(opt.state_dict())
    train(opt, params, 2, 2)
    train(other, twin[1], 2, 2)
    assert all(torch.equal(a, b) for a, b in zip(params, twin[1], strict=True))


def test_norms_are_clipped_and_what_is_not_finite_is_skipped_or_refused():
    params, theirs = leaves(), leaves()
    opt, reference = fused.SGD(params, lr=0.1, clip_norm=0.5, nonfinite="skip"), torch.optim.SGD(theirs, lr=0.1)
    set_grads(params, 0)
    set_grads(theirs, 0)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    opt.step()
    reference.step()
    check(params, theirs)
    assert abs(opt.grad_norm - float(norm)) < 1e-5
    params[0].grad[0, 0] = torch.nan
    opt.step()
    check(params, theirs)
    assert opt.skipped == 1
    strict = fused.SGD(params, momentum=0.9, dampening=0.5, nonfinite="raise")
    refuse(strict.step, FloatingPointError, ["grads[0][0]", "NaN", "nothing has been written"])
    assert not any(strict.state.values())  # the first velocity is still to come
    check(params, theirs)


@pytest.mark.usefixtures("both_looks")
def test_what_is_refused():
    p = torch.nn.Parameter(torch.ones(3))
    for name in NAMES:
        refuse(lambda name=name: getattr(fused, name)([p], differentiable=True), ValueError, ["differentiable", "True"])
        p.grad = torch.ones(3).to_sparse()
        refuse(
            getattr(fused, name)([p]).step, RuntimeError, [f"{name} does not support sparse gradients", "grads[0][0]"]
        )
        p.grad = None
    assert (p == 1).all()
    of = fused.Adam
    refuse(lambda: of([p], capturable=True), ValueError, ["capturable", "True", "fastopt's own class"])
    refuse(lambda: of([p], lr=torch.inf), ValueError, ["lr", "inf"])
    refuse(lambda: fused.SGD([p], momentum=1.5), ValueError, ["momentum", "1.5", "[0, 1)"])
    refuse(lambda: fused.RMSprop([p], alpha=1.5), ValueError, ["alpha", "1.5", "[0, 1)"])
    refuse(lambda: of([p], lambd=1.0), TypeError, ["lambd"])
    refuse(lambda: of([p], clip_norm=-1.0), ValueError, ["clip_norm", "-1.0"])
    refuse(lambda: of([p], nonfinite="no"), ValueError, ["nonfinite", "'no'"])
    refuse(lambda: of([p], state_dtype={"m": "int8"}), TypeError, ["'m'", "exp_avg"])
    refuse(lambda: of([p], master="split8"), TypeError, ["master", "bfloat16", "float32"])
    refuse(lambda: of([p], seed=-1), ValueError, ["seed", "-1"])
    opt = of([p])
    refuse(lambda: opt.add_param_group({"params": torch.ones(2), "eps": -1.0}), ValueError, ["eps", "-1.0"])
    assert len(opt.param_groups) == 1
    p.grad = torch.ones(3)
    for key, value, words in (("lr", -1.0, ["lr", "-1.0"]), ("betas", (0.9, 1.0), ["betas[1]", "1.0"])):
        before, opt.param_groups[0][key] = opt.param_groups[0][key], value
        refuse(opt.step, ValueError, words)
        opt.param_groups[0][key] = before
    other = torch.optim.Adam([p])
    other.param_groups[0]["capturable"] = True
    refuse(lambda: opt.load_state_dict(other.state_dict()), ValueError, ["capturable"])
    opt.step()
    assert (p < 1).all()


@pytest.mark.usefixtures("both_looks")
def test_parameters_that_cannot_be_updated_are_refused_at_the_step():
    whole = torch.ones(4)
    for params, error, words in (
        ([torch.ones(3, device="meta")], TypeError, ["params[0]['params'][0]", '"meta"', "no memory"]),
        ([torch.ones(3, dtype=torch.int32)], TypeError, ["params[0]['params'][0]", "int32", "bfloat16"]),
        ([torch.ones(3).expand(2, 3)], ValueError, ["params[0]['params'][0]", "share memory", "(0, 1)"]),
        ([whole, whole[1:]], ValueError, ["params[0]['params'][0]", "params[0]['params'][1]", "share memory"]),
    ):
        opt = fused.SGD(params, momentum=0.5)
        for p in params:
            p.grad = torch.ones_like(p)
        refuse(opt.step, error, words)
        assert not any(opt.state.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of a parameter that is twice in a group
        p = torch.ones(3)
        opt = fused.SGD([p, p])
    p.grad = torch.ones(3)
    refuse(opt.step, ValueError, ["share memory"])
    assert (whole == 1).all()


@pytest.mark.usefixtures("both_looks")
def test_a_module_is_trained():
    """By gradients that backward makes anew each time, and by those that are kept."""
    made = []
    for module in (fused, torch.optim):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
        )
        model = model.to(memory_format=torch.channels_last)
        opt = module.AdamW(model.named_parameters(), lr=1e-2)
        x, y = torch.randn(8, 1, 8, 8), torch.randint(2, (8,))
        for step in range(6):
            opt.zero_grad(set_to_none=step % 3 != 0)
            torch.nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
        made.append(list(model.parameters()))
        assert opt.param_groups[0]["param_names"][0] == "0.weight"
    check(*made)


@pytest.mark.usefixtures("both_looks")
def test_nothing_is_prepared_again_for_the_same_tensors(monkeypatch):
    """Whatever their shapes and types are, and even if their gradients are others at each step."""

    class Own(torch.nn.Parameter):
        pass

    params = [*leaves(), *leaves(torch.complex64), Own(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 3).T)]
    params.append(torch.nn.Parameter(torch.ones(2, 3, 1, 1).to(memory_format=torch.channels_last)))
    opt, made = fused.Adam(params), []
    new = opt._new_session
    monkeypatch.setattr(opt, "_new_session", lambda *given: made.append(given) or new(*given))
    train(opt, params, 2)
    for group in opt.param_groups:
        group["lr"], group["betas"] = 0.5, (0.5, 0.5)
    train(opt, params, 2)
    train(opt, params, 2, skip=lambda step: (0,))
    assert len(made) == 2
    train(opt, params, 1)  # the first has a step less than the others now
    train(opt, params, 3, skip=lambda step: (0,) if step == 1 else ())
    assert len(made) == 3


@pytest.mark.usefixtures("both_looks")
@pytest.mark.parametrize("shapes", [[()], [(), (3,)]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_gradients_that_are_read_as_something_else(dtype, shapes):
    made = []
    for module in (fused, torch.optim):
        params = leaves(dtype, shapes)
        opt = module.Adam(params, lr=0.1)
        for _ in range(2):
            for p, numbers in zip(params, (2j, [1j, 2j, -3j]), strict=False):
                grad = torch.tensor(numbers).conj()
                # PyTorch's own cannot take those that are complex.
                p.grad = grad.imag if not dtype.is_complex else grad if module is fused else grad.resolve_conj()
            opt.step()
        made.append(params)
    check(*made)


def test_steps_in_a_thread():
    params = leaves()
    opt = fused.Adam(params)
    set_grads(params, 0)
    thread = threading.Thread(target=opt.step)
    thread.start()
    thread.join()
    assert opt.state[params[0]]["step"] == 1
    assert np.isfinite(params[0].detach().numpy()).all()


def test_a_schedule_that_ends_a_rounding_below_zero():
    """As LinearLR does, and PyTorch's optimizers go on."""
    p, q = (torch.ones(1, requires_grad=True) for _ in range(2))
    for opt, tensor in ((fastopt.torch.SGD([p], lr=0.1), p), (torch.optim.SGD([q], lr=0.1), q)):
        schedule = torch.optim.lr_scheduler.LinearLR(opt, 0.3, 0.0, 3)
        for _ in range(5):
            tensor.grad = torch.ones(1)
            opt.step()
            schedule.step()
        assert opt.param_groups[0]["lr"] < 0
    assert torch.allclose(p, q)
    with pytest.raises(ValueError, match=r"learning rate: -0\.1"):
        fastopt.torch.SGD([p], lr=-0.1)


@pytest.mark.parametrize("lr", ["x", None, torch.ones(2), [0.1]], ids=str)
def test_a_learning_rate_that_is_none(lr):
    p = torch.ones(3, requires_grad=True)
    with pytest.raises(TypeError, match="lr must be a number, got "):
        fastopt.torch.AdamW([{"params": [p], "lr": lr}])
    opt = fastopt.torch.AdamW([p])
    opt.param_groups[0]["lr"], p.grad = lr, torch.ones(3)
    with pytest.raises(TypeError, match="lr must be a number, got "):
        opt.step()
    assert torch.equal(p, torch.ones(3))
    assert not opt.state


@pytest.mark.parametrize("columns", [(slice(0, 2), slice(1, 3)), (slice(None), slice(0, 2))], ids=str)
def test_parameters_that_share_elements(columns):
    base = torch.zeros(3, 4)
    params = [base[:, c].requires_grad_() for c in columns]
    opt = fastopt.torch.SGD(params, lr=1.0)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"params\[0\]\['params'\]\[0\] and .*\[1\] share memory"):
        opt.step()
    assert (base == 0).all()


def test_parameters_that_lie_between_each_other():
    base = torch.zeros(3, 4)
    params = [base[:, k::2].requires_grad_() for k in range(2)]
    opt = fastopt.torch.SGD(params, lr=1.0)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    assert (base == -1).all()


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")  # of torch.compile about itself
def test_within_what_is_compiled():
    p = torch.ones(3, requires_grad=True)
    opt = fastopt.torch.Adam([p], lr=0.1)

    @functools.partial(torch.compile, backend="eager")
    def train():
        (p * p).sum().backward()
        opt.step()
        opt.zero_grad()

    for _ in range(3):
        train()
    twin = torch.ones(3, requires_grad=True)
    other = torch.optim.Adam([twin], lr=0.1)
    for _ in range(3):
        (twin * twin).sum().backward()
        other.step()
        other.zero_grad()
    assert torch.allclose(p, twin)


def test_a_constructor_of_the_users_own():
    class Own(fastopt.torch.AdamW):
        def __init__(self, params, warmup=10, **keywords):
            super().__init__(params, **keywords)
            self.warmup = warmup

    class Other(Own):
        pass

    class Plain(fastopt.torch.AdamW):
        pass

    for cls in (Own, Other):
        assert list(inspect.signature(cls).parameters) == ["params", "warmup", "keywords"]
        assert cls([torch.ones(3, requires_grad=True)], warmup=3, lr=0.1).warmup == 3
    assert inspect.signature(Plain) == inspect.signature(fastopt.torch.AdamW)


def test_a_gradient_that_is_zeros_without_memory():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch._efficientzerotensor((3,))
    fastopt.torch.SGD([p], lr=1.0).step()
    assert (p == 1).all()


def test_a_state_dtype_of_pytorch():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    opt = fastopt.torch.Adam([p], state_dtype=torch.bfloat16)
    opt.step()
    assert opt.state[p]["exp_avg"].dtype is torch.bfloat16


def test_what_moved_is_let_go():
    p, q = (torch.ones(1000, requires_grad=True) for _ in range(2))
    opt = fastopt.torch.Adam([p, q])
    for grads in ((True, True), (True, False)):
        for tensor, has in zip((p, q), grads, strict=True):
            tensor.grad = torch.ones(1000) if has else None
        opt.step()
    assert len(opt._sessions) == 2
    p.data = torch.ones(1000)
    opt.step()
    assert len(opt._sessions) == 1


def spread(tensors):
    """How far tensors reach, beyond what they hold and a page for each."""
    ends = [t.data_ptr() for t in tensors] + [t.data_ptr() + t.nbytes for t in tensors]
    return max(ends) - min(ends) - sum(t.nbytes + 4096 for t in tensors)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_states_lie_together_and_do_from_a_checkpoint(order):
    """In one piece of memory, which the system can have in large pages."""
    params = [torch.ones(8, 4, 16, 16).to(memory_format=order) for _ in range(40)]
    for p in params:
        p.grad = torch.randn(p.shape).to(memory_format=order)
    ours = fastopt.torch.AdamW(params)
    other = fastopt.torch.AdamW(copies := [p.clone() for p in params])
    ours.step()
    other.load_state_dict(ours.state_dict())
    for opt in ours, other:
        states = [t for own in opt.state.values() for t in (own["exp_avg"], own["exp_avg_sq"])]
        assert spread(states) <= 0
        assert all(t.is_contiguous(memory_format=order) for t in states)
    for p, q in zip(params, copies, strict=True):
        assert other.state[q]["exp_avg"].data_ptr() != ours.state[p]["exp_avg"].data_ptr()
        assert torch.equal(other.state[q]["exp_avg"], ours.state[p]["exp_avg"])
