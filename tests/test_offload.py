"""fastopt.torch.Offload beside the same optimizer without it: the bits, PyTorch's interface, checkpoints, errors.

There is no GPU in it. What is asked of CUDA has a stand-in, whose copies are made when somebody waits for them.
"""

import copy
import gc
import io
import pickle

import pytest

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._engine import threads

from .refusals import refuse

torch = pytest.importorskip("torch", reason="needs the extra `torch`")
fused = pytest.importorskip("fastopt.torch")
ways = pytest.importorskip("fastopt.torch.link")
Offload = fused.Offload

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
SHAPES = [(3, 4), (), (0, 2), (50, 1000)]


class Runtime:
    """Copies that are made when they are waited for, in the order in which they were enqueued."""

    pins = False
    capturing = False

    def __init__(self):
        self.queue, self.log = [], []

    def after_current(self):
        pass

    def copy(self, to, source):
        self.log.append((to.data_ptr(), source.data_ptr()))
        self.queue.append((to, source))

    def wait(self):
        for to, source in self.queue:
            to.copy_(source)
        self.queue.clear()

    def before_current(self):
        self.wait()

    def is_capturing(self):
        return self.capturing


@pytest.fixture
def far(monkeypatch):
    """Have parameters in the host's memory be far from it, and return their runtimes as they are made."""
    made = []

    def link_to(device):
        made.append(Runtime())
        return ways.Far(made[-1])

    monkeypatch.setattr(ways, "link_to", link_to)
    return made


@pytest.fixture(params=["near", "far"])
def both_ways(request):
    """Run a test twice: where parameters are in the host's memory, and as if they were not."""
    return request.getfixturevalue("far") if request.param == "far" else None


def leaves(dtype=BF16, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def set_grads(params, step, skip=()):
    for k, p in enumerate(params):
        p.grad = None if k in skip else leaves(p.dtype, [p.shape], 100 * step + k + 1)[0].detach()


def train(opt, params, steps, first=0, skip=lambda step: ()):
    for step in range(first, first + steps):
        set_grads(params, step, skip(step))
        opt.step()


def params_of(opt):
    return [p for group in opt.param_groups for p in group["params"]]


def weights(opt):
    return [opt.state[p].get("master", p).detach() for p in params_of(opt)]


def everything(opt):
    """Return all that steps write."""
    states = (own[key] for p in params_of(opt) for own in (opt.state[p],) for key in sorted(own))
    return [*params_of(opt), *states]


def same(ours, theirs):
    pairs = list(zip(ours, theirs, strict=True))
    return all(a.dtype is b.dtype and torch.equal(a.detach(), b.detach()) for a, b in pairs)


def wide(params):
    return [p.detach().to(F64 if p.dtype is F64 else F32, copy=True) for p in params]


CASES = [
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"state_dtype": "int8", "clip_norm": 0.5}),
    ("AdamW", {"state_dtype": {"m": "bfloat16"}, "seed": 3, "clip_value": 0.1}),
    ("Lion", {"reproducible": True, "maximize": True}),
    ("Momentum", {"nesterov": True, "nonfinite": "raise"}),
    ("GD", {}),
]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("name", "own"), CASES, ids=str)
def test_the_bits_of_the_same_optimizer_without(name, own):
    """On weights in float32, whose step also writes the copies: in one launch and in many."""
    params, kind = leaves(), getattr(fastopt, name)
    plain, copies = wide(params), [torch.zeros_like(p.detach()) for p in params]
    opt = Offload(params, optimizer=kind, lr=0.1, bucket_bytes=16, **own)
    reference = kind(plain, lr=0.1, copy_to=copies, **own)
    for step in range(3):
        set_grads(params, step)
        opt.step()
        reference.step([p.grad for p in params])
        assert opt.grad_norm == reference.grad_norm
    assert same(weights(opt), plain)
    assert same(params, copies)
    assert same(params, [p.to(BF16) for p in plain])
    for key in kind.states:
        if "int8" not in own.values() and key in reference.state:
            for p, a in zip(params, reference.state[key], strict=True):
                assert (opt.state[p][key].float().numpy() == a.astype("f4")).all()


@pytest.mark.usefixtures("both_ways")
def test_parameters_of_several_dtypes():
    """Those that are as wide as their weights have none beside them, in the host's memory."""
    params = [leaves(dtype, [(30, 40)])[0] for dtype in (F32, BF16, F64, F16)]
    plain = wide(params)
    opt = Offload(params, lr=0.1, reproducible=True)
    references = [fastopt.AdamW(p, lr=0.1, reproducible=True) for p in plain]
    for step in range(3):
        set_grads(params, step)
        opt.step()
        for p, reference in zip(params, references, strict=True):
            reference.step(p.grad)
    assert same(weights(opt), plain)
    assert same(params, [p.to(own.dtype) for p, own in zip(plain, params, strict=True)])


def test_nothing_is_copied_where_a_parameter_is_its_weight():
    params = leaves(F32)
    opt = Offload(params)
    train(opt, params, 1)
    assert opt.state[params[0]].keys() == {"step", "m", "v"}
    plain = fused.AdamW(params)
    assert len(plain.state_dict()["state"]) == 0


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("storage", [{"master": "split16"}, {"master": None, "rounding": "kahan"}], ids=str)
def test_weights_in_the_dtype_of_the_parameters(storage):
    params, plain = leaves(), leaves()
    opt = Offload(params, lr=0.1, **storage)
    reference = fused.AdamW(plain, lr=0.1, **{key: value for key, value in storage.items() if value})
    for one, own in ((opt, params), (reference, plain)):
        train(one, own, 4)
    assert same(params, plain)
    with torch.no_grad():
        params[0].zero_()
    opt.param_groups[0]["lr"] = 0.0
    train(opt, params, 1, 4)
    assert not params[0].any()  # no bits are left of what it was


def test_pytorchs_adamw_is_close():
    params = leaves()
    theirs = [torch.nn.Parameter(p) for p in wide(params)]
    opt, reference = Offload(params, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
    for step in range(5):
        set_grads(params, step)
        for p, q in zip(params, theirs, strict=True):
            q.grad = p.grad.float()
        opt.step()
        reference.step()
    for a, b in zip(weights(opt), theirs, strict=True):
        torch.testing.assert_close(a, b.detach())


@pytest.mark.usefixtures("both_ways")
def test_groups_schedulers_hooks_and_closures():
    made, calls = [], []
    for apart in (True, False):
        params = leaves() if apart else [torch.nn.Parameter(p) for p in wide(leaves())]
        groups = [
            {"params": params[:1], "weight_decay": 0.0},
            {"params": params[1:], "lr": 0.5, "betas": (0.8, 0.9)},
        ]
        opt = Offload(groups, lr=0.1) if apart else fused.AdamW(groups, lr=0.1)
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.5, total_steps=10)  # changes betas, too
        opt.register_step_pre_hook(lambda *_: calls.append("before"))
        opt.register_step_post_hook(lambda *_: calls.append("after"))
        for step in range(4):

            def closure(params=params, step=step, opt=opt):
                opt.zero_grad()
                set_grads(leaves(), step)
                for p, grad in zip(params, grads_of(step), strict=True):
                    p.grad = grad.to(p.dtype)
                return torch.tensor(float(step))

            assert opt.step(closure) == step
            cycle.step()
        opt.param_groups[0]["lr"] = 0.25
        opt.step()
        made.append(opt)
    for a, b in zip(weights(made[0]), params_of(made[1]), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6)
    assert calls == ["before", "after"] * 10


def grads_of(step):
    params = leaves()
    set_grads(params, step)
    return [p.grad for p in params]


@pytest.mark.usefixtures("both_ways")
def test_parameters_without_a_gradient_wait():
    def skip(step):
        return ((0, 1, 2, 3), (0,), (3, 1), (), (1,))[step]

    params = leaves()
    theirs = [torch.nn.Parameter(p) for p in wide(params)]
    opt, reference = Offload(params, lr=0.1, reproducible=True), torch.optim.AdamW(theirs, lr=0.1)
    for step in range(5):
        set_grads(params, step, skip(step))
        for p, q in zip(params, theirs, strict=True):
            q.grad = None if p.grad is None else p.grad.float()
        opt.step()
        reference.step()
    for p, a, b in zip(params, weights(opt), theirs, strict=True):
        torch.testing.assert_close(a, b.detach())
        assert opt.state[p]["step"] == reference.state[b]["step"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_what_is_not_finite_leaves_all_as_it_was(policy):
    params = leaves()
    opt = Offload(params, nonfinite=policy, clip_norm=1.0)
    for first in (True, False):
        if not first:
            train(opt, params, 1)
        before = copy.deepcopy(everything(opt))
        set_grads(params, 5)
        params[3].grad[7, 7] = torch.inf
        if policy == "skip":
            opt.step()
        else:
            refuse(opt.step, FloatingPointError, ["grads[0][3]", "nothing has been written"])
        assert same(everything(opt), before)
        assert any(map(len, opt.state.values())) != first
    assert opt.skipped == (2 if policy == "skip" else 0)
    twin = leaves()
    other = Offload(twin, clip_norm=1.0)
    train(other, twin, 2)
    train(opt, params, 1, 1)
    assert same(everything(opt), everything(other))


@pytest.mark.usefixtures("both_ways")
def test_a_step_that_fails_leaves_all_as_it_was():
    params = leaves()
    opt = Offload(params, lr=0.1)
    for first in (True, False):
        if not first:
            train(opt, params, 1)
        before = copy.deepcopy(everything(opt))
        set_grads(params, 5)
        with torch.no_grad():
            params[3][0] = 5.0
        before[3] = params[3].detach().clone()
        params[0].grad = torch.ones(3, 4, dtype=BF16).to_sparse()
        refuse(opt.step, RuntimeError, ["sparse gradients", "grads[0][0]"])
        assert same(everything(opt), before)
        set_grads(params, 5)
        opt.param_groups[0]["lr"] = -1.0
        refuse(opt.step, ValueError, ["lr", "-1.0"])
        opt.param_groups[0]["lr"] = 0.1
        assert same(everything(opt), before)
    assert (weights(opt)[3][0] != 5.0).all()
    opt.param_groups[0].update(lr=0.0, weight_decay=0.0)
    opt.step()
    assert (weights(opt)[3][0] == 5.0).all()


@pytest.mark.usefixtures("both_ways")
def test_what_others_write_into_parameters_counts():
    params = leaves()
    opt = Offload(params, lr=1e-3, weight_decay=0.0)
    train(opt, params, 3)
    kept = [w.clone() for w in weights(opt)]
    with torch.no_grad():
        params[0][0] = 2.0
        params[3].clamp_(-0.5, 0.5)
    opt.param_groups[0]["lr"] = 0.0
    train(opt, params, 1)
    assert (weights(opt)[0][0] == 2.0).all()
    assert torch.equal(weights(opt)[0][1:], kept[0][1:])  # with all of its digits
    inside = kept[3].to(BF16).abs() <= 0.5
    assert torch.equal(weights(opt)[3][inside], kept[3][inside])
    assert torch.equal(weights(opt)[3][~inside], 0.5 * kept[3][~inside].sign())
    params[1].data = torch.tensor(7.0, dtype=BF16)
    train(opt, params, 1)
    assert weights(opt)[1] == params[1] == 7.0


def loss_of(model, step):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step)).to(BF16)
    return model(x).square().mean()


def model_of(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(BF16)


def test_gradients_go_down_as_they_come_and_add_up(far):
    model, twin = model_of(), model_of()
    opt = Offload(model.named_parameters(), lr=0.1)
    (runtime,) = far
    late = Offload(twin.named_parameters(), lr=0.1, overlap=False)
    for step in range(3):
        for one, own in ((opt, model), (late, twin)):
            one.zero_grad(set_to_none=step != 1)
            for part in range(3):
                loss_of(own, 10 * step + part).backward()
        assert len(runtime.log) == 12  # four parameters, three times
        assert len(far[1].log) == 0
        opt.step()
        late.step()
        assert len(runtime.log) == 12 + 4  # up; none came down again
        assert len(far[1].log) == 4 + 4
        runtime.log.clear()
        far[1].log.clear()
        assert same(model.parameters(), twin.parameters())
    assert opt.param_groups[0]["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    near = model_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ways, "link_to", lambda device: ways.Near())
        other = Offload(near.parameters(), lr=0.1)
    for step in range(3):
        other.zero_grad()
        for part in range(3):
            loss_of(near, 10 * step + part).backward()
        other.step()
    assert same(model.parameters(), near.parameters())


def test_gradients_that_were_changed_go_down_again(far):
    model, twin = model_of(), model_of()
    opt, late = Offload(model.parameters(), lr=0.1), Offload(twin.parameters(), lr=0.1, overlap=False)
    for one, own in ((opt, model), (late, twin)):
        loss_of(own, 0).backward()
        torch.nn.utils.clip_grad_norm_(own.parameters(), 0.01)
        own[0].bias.grad = torch.ones(5, dtype=BF16)
        one.step()
        own[0].bias.grad = None
        one.step()  # and are still there for another step
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for step in range(1, 4):
            one.zero_grad()
            scaler.scale(loss_of(own, step) * (torch.inf if step == 2 else 1)).backward()
            scaler.step(one)
            scaler.update()
    assert opt.state[model[0].weight]["step"] == 4
    assert same(everything(opt), everything(late))


def test_parameters_go_up_in_parts(far, monkeypatch):
    """While the next part is updated; however they are cut, random rounding has the same bits."""
    shapes = [(20_000,), (5,), (70_000,), (0,), (9,)]
    params, events = leaves(shapes=shapes), []
    opt = Offload(params, state_dtype="bfloat16", bucket_bytes=40_000)
    train(opt, params, 1)
    runtime, launch = far[0], threads.launch
    up = {p.data_ptr() for p in params if p.numel()}
    monkeypatch.setattr(
        threads,
        "launch",
        lambda launches, *others: events.extend(["pass"] * len(launches)) or launch(launches, *others),
    )
    monkeypatch.setattr(
        runtime,
        "copy",
        lambda to, source: (to.data_ptr() in up and events.append("up"), Runtime.copy(runtime, to, source)),
    )
    train(opt, params, 1, 1)
    assert events == ["pass", "up", "pass", "up", "up", "pass", "up"]
    assert not runtime.queue
    monkeypatch.undo()
    twin = leaves(shapes=shapes)
    other = Offload(twin, state_dtype="bfloat16")
    train(other, twin, 2)
    assert same(everything(opt), everything(other))


def saved(opt):
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    "own", [{}, {"master": "split16", "state_dtype": "int8"}, {"state_dtype": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("order", ["model first", "optimizer first"])
def test_checkpoints_in_the_middle_of_training(own, order):
    params = leaves()
    opt = Offload([{"params": params[:2], "lr": 0.1}, {"params": params[2:]}], **own)
    train(opt, params, 3)
    file, numbers = saved(opt), [p.detach().clone() for p in params]
    train(opt, params, 3, 3)
    twin = leaves(seed=7)
    other = Offload([{"params": twin[:2]}, {"params": twin[2:]}], **own)
    train(other, twin, 1)
    for what in (0, 1) if order == "model first" else (1, 0):
        if what == 0:
            with torch.no_grad():
                for p, q in zip(twin, numbers, strict=True):
                    p.copy_(q)
        else:
            other.load_state_dict(file)
    train(other, twin, 3, 3)
    assert same(everything(opt), everything(other))


def test_a_checkpoint_goes_from_a_device_to_another(far, monkeypatch):
    for dtype in (BF16, F32):
        params, twin = leaves(dtype), leaves(dtype)
        opt = Offload(params)
        train(opt, params, 2)
        with monkeypatch.context() as patch:
            patch.setattr(ways, "link_to", lambda device: ways.Near())
            other = Offload(twin)
        other.load_state_dict(saved(opt))
        with torch.no_grad():
            for p, q in zip(twin, params, strict=True):
                p.copy_(q)
        third = Offload(leaves(dtype))
        third.load_state_dict(saved(other))
        for one in (opt, other):
            train(one, params_of(one), 2, 2)
        assert same(weights(opt), weights(other))
        assert ("master" in other.state[twin[0]]) == (dtype is BF16)
    assert len(far) == 4


def test_a_checkpoint_of_other_weights_is_refused():
    params = leaves()
    opt = Offload(params)
    train(opt, params, 1)
    other = Offload(leaves(), master="split16")
    other.load_state_dict(opt.state_dict())
    set_grads(params_of(other), 1)
    refuse(other.step, ValueError, ["the state 'master' of params[0]['params'][0]", "bfloat16", "float32"])


@pytest.mark.parametrize("how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"])
def test_copies_and_pickles_go_on(far, how):
    model = model_of()
    opt = Offload(model.parameters(), optimizer=fastopt.Lion, nonfinite="skip")
    loss_of(model, 0).backward()
    opt.step()
    other, twin = how((opt, model))
    far[-1].log.clear()
    for one, own in ((opt, model), (other, twin)):
        one.zero_grad()
        loss_of(own, 1).backward()
        one.step()
    assert len(far[-1].log) == 8
    assert same(everything(opt), everything(other))


def test_hooks_go_with_the_optimizer(far):
    model = model_of()
    opt = Offload(model.parameters())
    loss_of(model, 0).backward()
    (runtime,) = far
    assert len(runtime.log) == 4
    opt.close()
    loss_of(model, 1).backward()
    assert len(runtime.log) == 4
    opt.step()
    assert len(runtime.log) == 12
    opt.close()
    assert not any(map(hooks_of, model.parameters()))
    opt = Offload(model.parameters())
    assert all(map(hooks_of, model.parameters()))
    gc.collect()
    gc.disable()
    try:
        del opt
        assert not any(map(hooks_of, model.parameters()))
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="rounding"):
        Offload(model.parameters(), master=None, rounding="never")
    assert not any(map(hooks_of, model.parameters()))


def hooks_of(p):
    return len(p._post_accumulate_grad_hooks or ())


def test_parameters_are_added(far):
    params, more = leaves(), leaves(seed=1)
    opt = Offload(params, lr=0.1)
    train(opt, params, 1)
    opt.add_param_group({"params": more, "lr": 0.5})
    assert all(map(hooks_of, more))
    train(opt, [*params, *more], 2, 1)
    assert [int(opt.state[p]["step"]) for p in (params[0], more[0])] == [3, 2]
    assert len(far) == 1


@pytest.mark.usefixtures("both_ways")
def test_memory_in_any_order():
    made = []
    for apart in (True, False):
        base = torch.arange(48.0).reshape(4, 12)
        numbers = [base.T.clone(), torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)]
        tensors = [n.to(BF16) if apart else n for n in numbers]
        strided = (base.to(BF16) if apart else base)[:, ::2]
        params = [*map(torch.nn.Parameter, tensors), strided.requires_grad_()]
        opt = Offload(params, lr=0.5) if apart else fused.AdamW(params, lr=0.5)
        for step in range(2):
            for p in params:
                p.grad = torch.full(p.shape, 0.5 + step, dtype=p.dtype)
            opt.step()
        made.append(weights(opt))
        outside = params[2]._base[:, 1::2] if apart else base[:, 1::2]
        assert torch.equal(outside.float(), torch.arange(48.0).reshape(4, 12)[:, 1::2])
        if apart:
            assert all(torch.equal(p.detach(), w.to(BF16)) for p, w in zip(params, made[0], strict=True))
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b)


def test_autograd_sees_the_change():
    p = torch.nn.Parameter(torch.ones(3, dtype=BF16))
    loss = (p * p).sum()
    p.grad = torch.ones(3, dtype=BF16)
    Offload([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.usefixtures("far")
def test_a_graph_cannot_hold_a_step(monkeypatch):
    params = leaves()
    opt = Offload(params)
    set_grads(params, 0)
    monkeypatch.setattr(Runtime, "capturing", True)
    refuse(opt.step, RuntimeError, ["no graph can hold it"])
    assert not any(opt.state.values())


class Own(fastopt.GD):
    """An optimizer of the user's."""


def test_what_is_refused():
    params = leaves()
    for optimizer, words in (
        (fused.AdamW, ["optimizer", "fastopt.AdamW", "fastopt.torch"]),
        (torch.optim.SGD, ["fastopt.AdamW", "torch.optim.sgd.SGD"]),
        (fastopt.Optimizer, ["optimizer"]),
        ("AdamW", ["'AdamW'"]),
    ):
        refuse(lambda optimizer=optimizer: Offload(params, optimizer=optimizer), TypeError, words)
    for name, value in (("ema", 0.9), ("copy_to", params), ("zero_grads", True), ("capturable", True)):
        refuse(lambda own={name: value}: Offload(params, **own), TypeError, [f"does not take {name!r}"])
    refuse(lambda: Offload(params, grad_scale=2.0), TypeError, ["'grad_scale'", "GradScaler"])
    refuse(lambda: Offload(params, momentum=0.9), TypeError, ["Offload of AdamW", "'momentum'", "betas"])
    refuse(lambda: Offload(params, lr=lambda step: 0.1), TypeError, ["lr"])
    refuse(lambda: Offload(params, lr=-1.0), ValueError, ["lr", "-1.0"])
    refuse(lambda: Offload(params, clip_norm=-1.0), ValueError, ["clip_norm", "-1.0"])
    refuse(lambda: Offload(params, master="bfloat16"), ValueError, ["master", "'split16'", "'bfloat16'"])
    refuse(lambda: Offload(params, rounding="stochastic"), TypeError, ["rounding", "16 bits", "float32"])
    refuse(lambda: Offload(leaves(F32), master="split16"), TypeError, ["master", "bfloat16", "float32"])
    refuse(lambda: Offload(params, bucket_bytes=0), ValueError, ["bucket_bytes"])
    refuse(lambda: Offload(params, optimizer=fastopt.GD, state_dtype="int8"), TypeError, ["state_dtype"])
    refuse(lambda: Offload([{"params": params, "clip_norm": 1.0}]), TypeError, ["'clip_norm'", "clip_grad_norm_"])
    refuse(lambda: Offload([{"params": params, "betas": (0.9, 1.0)}]), ValueError, ["betas", "1.0"])
    for tensor, words in (
        (torch.ones(3, device="meta"), ["params[0]['params'][0]", '"meta"']),
        (torch.ones(3, dtype=torch.int32), ["params[0]['params'][0]", "int32"]),
        (torch.ones(3, dtype=torch.complex64), ["params[0]['params'][0]", "complex64", "view_as_real"]),
    ):
        refuse(lambda tensor=tensor: Offload([tensor]), TypeError, words)
    opt = Offload(params, optimizer=Own, lr=0.5, weight_decay=0.0)
    refuse(lambda: opt.add_param_group({"params": torch.ones(2, dtype=torch.int8)}), TypeError, ["params[1]", "int8"])
    assert len(opt.param_groups) == 1
    opt.step()
    assert not opt.state
    set_grads(params, 0)
    expected = [p.detach().float() - 0.5 * p.grad.float() for p in params]
    opt.step()
    assert same(weights(opt), expected)


#: Those that are not above; all but two take as long to compile as they say little.
OTHERS = [
    name if name in ("RMSprop", "LAMB") else pytest.param(name, marks=pytest.mark.ci)
    for name in sorted(OPTIMIZERS.keys() - {name for name, _ in CASES} - {"ScheduleFreeSGD", "ScheduleFreeAdamW"})
]


@pytest.mark.parametrize("name", OTHERS)
def test_other_optimizers(name):
    params = leaves(shapes=[(5,), (3,)])
    plain, kind = wide(params), getattr(fastopt, name)
    opt, reference = Offload(params, optimizer=kind, reproducible=True), kind(plain, reproducible=True)
    assert opt.defaults.keys() >= {"lr", "weight_decay"}
    train(opt, params, 2)
    for step in range(2):
        set_grads(params, step)
        reference.step([p.grad for p in params])
    assert same(weights(opt), plain)
    assert not same(weights(opt), wide(leaves(shapes=[(5,), (3,)])))


def test_a_checkpoint_of_another_optimizer_is_refused():
    """Its states would be left where they are, and the steps that they were made in counted."""
    p = torch.nn.Parameter(torch.ones(4))
    other = torch.optim.AdamW([p])
    p.grad = torch.ones(4)
    other.step()
    lion = fastopt.torch.Offload([p], optimizer=fastopt.Lion)
    lion.step()
    q = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    opt = fastopt.torch.Offload([q], optimizer=fastopt.AdamW)
    with pytest.raises(ValueError, match=r"Offload of AdamW has for each parameter m, v; got .*exp_avg"):
        opt.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"has for each parameter m, v; got .* without 'v'"):
        opt.load_state_dict(lion.state_dict())
    assert not opt.state


def test_what_a_group_cannot_have():
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    for own in (
        {"optimizer": fastopt.Lion},
        {"state_dtype": "int8"},
        {"master": None},
        {"bucket_bytes": 1},
        {"seed": 3},
    ):
        with pytest.raises(TypeError, match=f"a group has {next(iter(own))}="):
            fastopt.torch.Offload([{"params": [p], **own}])
    with pytest.raises(TypeError, match=r"clip_grad_norm_"):
        fastopt.torch.Offload([{"params": [p], "clip_norm": 1.0}])
    with pytest.raises(TypeError, match=r"a group has state_dtype='int8'"):
        fastopt.torch.AdamW([{"params": [p], "state_dtype": "int8"}])
    # ZeroRedundancyOptimizer puts all arguments there.
    same = {"state_dtype": torch.bfloat16, "clip_value": 0.5, "reproducible": True, "optimizer": fastopt.Lion}
    p._fsdp_flattened = True  # as FullyShardedDataParallel marks parameters: none of it is about all gradients
    fastopt.torch.Offload([{"params": [p], **same}], **same)


@pytest.mark.usefixtures("both_ways")
def test_parameters_that_share_memory():
    whole = torch.ones(4, dtype=torch.bfloat16)
    p, q = torch.nn.Parameter(whole), torch.nn.Parameter(whole.detach())
    opt = fastopt.torch.Offload([p, q])
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    with pytest.raises(ValueError, match=r"params\[0\]\['params'\]\[0\] and params\[0\]\['params'\]\[1\] share memory"):
        opt.step()
    assert not any(opt.state.values())


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("end", "apart"), [(4, False), (2, True)])
def test_columns_that_share_elements(end, apart):
    base = torch.ones(4, 6, dtype=torch.bfloat16)
    params = [torch.nn.Parameter(base[:, own]) for own in (slice(0, end), slice(2, 6))]
    opt = fastopt.torch.Offload(params, lr=0.5)
    for p in params:
        p.grad = torch.ones_like(p)
    if apart:
        opt.step()
        assert not (base == 1).any()
        return
    with pytest.raises(ValueError, match=r"params\[0\]\['params'\]\[0\] and params\[0\]\['params'\]\[1\] share memory"):
        opt.step()
    assert (base == 1).all()


def test_an_average_that_nobody_could_ask_for():
    with pytest.raises(TypeError, match=r"got ScheduleFreeAdamW, of which averaged\(\)"):
        fastopt.torch.Offload([torch.nn.Parameter(torch.ones(4))], optimizer=fastopt.ScheduleFreeAdamW)


def test_weights_lie_together():
    """In one piece of memory, which the system can have in large pages."""
    params = [torch.ones(2**13, dtype=torch.bfloat16) for _ in range(40)]
    for p in params:
        p.grad = torch.ones_like(p)
    opt = fastopt.torch.Offload(params, optimizer=fastopt.AdamW)
    opt.step()
    weights = [opt.state[p]["master"] for p in params]
    ends = [t.data_ptr() for t in weights] + [t.data_ptr() + t.nbytes for t in weights]
    assert max(ends) - min(ends) <= sum(t.nbytes + 4096 for t in weights)
