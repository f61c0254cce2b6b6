"""What the processes of tests/test_distributed.py do; each function is run in all of them at once.

Where each sum has one order, results are those of one process to the bit.
"""

import contextlib
import os
import signal
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import fastopt.torch as fused
from fastopt.torch import link

from .refusals import refuse
from .test_offload import Runtime

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, that torch.jit is old
    from torch.distributed.optim import ZeroRedundancyOptimizer

#: How long one process waits for another.
PATIENCE = 40


def process(work, rank, world, store, pipe, arguments):
    """Do the work of a process, and send what it returns or the error; anything that is a warning is an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # of its own making
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=PATIENCE)
            )
            pipe.send((True, globals()[work](*arguments)))
            torch.distributed.destroy_process_group()
    except BaseException:  # noqa: BLE001  also what pytest raises
        pipe.send((False, traceback.format_exc()))
        os._exit(1)  # what waits for others must not keep it from ending


def rank():
    return torch.distributed.get_rank()


def world_size():
    return torch.distributed.get_world_size()


def model(dtype=torch.float32):
    """Return a network whose shards are uneven among 2 and 4 processes, and some empty."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1)).to(dtype)


def batches(steps):
    """Return the data of some steps, of 8 samples each."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 5, generator=generator) for _ in range(steps)]


def own_part(x):
    return x.chunk(world_size())[rank()]


def loss_of(net, x):
    return net(x).square().mean()


def sharded(net, **keywords):
    """Return a network whose layers are each fully sharded."""
    mesh = init_device_mesh("cpu", (world_size(),))
    for layer in net:
        if list(layer.parameters()):
            fully_shard(layer, mesh=mesh, **keywords)
    return fully_shard(net, mesh=mesh, **keywords)


def whole(tensor):
    if tensor.dtype is torch.int16:  # which gloo does not send
        return whole(tensor.int()).short()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def wholes(params):
    return [whole(p) for p in params]


def assert_same(ours, theirs, **tolerances):
    for a, b in zip(ours, theirs, strict=True):
        if tolerances:
            torch.testing.assert_close(a, b, **tolerances)
        else:
            assert torch.equal(a, b)


def assert_same_everywhere(numbers):
    """Check that all processes have the same numbers, to the bit."""
    every = [None] * world_size()
    torch.distributed.all_gather_object(every, [n.tolist() if isinstance(n, torch.Tensor) else n for n in numbers])
    assert all(own == every[0] for own in every)


def one_process(name, steps, **keywords):
    """Return the parameters of a network that one process trains, with a gradient for each part of a batch."""
    net = model()
    opt = getattr(fused, name)(net.parameters(), **keywords)
    for x in batches(steps):
        opt.zero_grad()
        for part in x.chunk(world_size()):
            (loss_of(net, part) / world_size()).backward()
        opt.step()
    return [p.detach() for p in net.parameters()], opt


#: Sums of 2 have one order, of more they have not.
def tolerances():
    return {} if world_size() == 2 else {"rtol": 1e-5, "atol": 1e-6}


def train_ddp():
    for keywords in ({}, {"clip_norm": 0.05, "nonfinite": "skip"}):
        net = model()
        net = DistributedDataParallel(net)
        opt = fused.SGD(net.parameters(), lr=0.1, momentum=0.9, **keywords)
        for x in batches(5):
            opt.zero_grad()
            loss_of(net, own_part(x)).backward()
            opt.step()
        theirs, other = one_process("SGD", 5, lr=0.1, momentum=0.9, **keywords)
        assert_same([p.detach() for p in net.parameters()], theirs, **tolerances())
        assert_same_everywhere([*net.parameters(), opt.grad_norm])
        assert keywords == {} or abs(opt.grad_norm / other.grad_norm - 1) < 1e-5


def train_ddp_in_16_bits(far):
    """By Offload, whose hooks would take gradients down before DDP has averaged them."""
    if far:
        link.link_to = lambda device: link.Far(Runtime())
    net, other = model(torch.bfloat16), model(torch.bfloat16)
    parallel = DistributedDataParallel(net)
    ours, alone = (fused.Offload(own.parameters(), lr=0.1, overlap=False) for own in (net, other))
    for x in batches(5):
        ours.zero_grad()
        alone.zero_grad()
        loss_of(parallel, own_part(x).bfloat16()).backward()
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
        ours.step()
        alone.step()
    assert_same(net.parameters(), other.parameters())
    assert_same_everywhere([*net.parameters(), *(ours.state[p]["master"] for p in net.parameters())])
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), model(torch.bfloat16).parameters(), strict=True))


def train_zero():
    x = batches(6)
    for more in ({}, {"parameters_as_bucket_view": True}, {"state_dtype": "bfloat16"}, {"state_dtype": "int8"}):
        net, whole = model(), model()
        opt = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=fused.AdamW, lr=1e-2, **more)
        own = {key: value for key, value in more.items() if key == "state_dtype"}
        exact = not own  # what stochastic rounding draws depends on which parameters a process has
        other = fused.AdamW(whole.parameters(), lr=1e-2, **own)
        for k in range(6):
            if k == 3:
                opt.consolidate_state_dict(to=0)
                state = [opt.state_dict() if rank() == 0 else None]
                torch.distributed.broadcast_object_list(state, 0)
                if exact:  # what it saves is what one process saves
                    resumed = fused.AdamW(whole.parameters())
                    resumed.load_state_dict(state[0])
                    assert_same(*([p["exp_avg"] for p in o.state_dict()["state"].values()] for o in (resumed, other)))
                opt = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=fused.AdamW, lr=0.5, **more)
                opt.load_state_dict(state[0])  # which takes it apart
            for each in (net, whole):
                each.zero_grad()
                loss_of(each, x[k]).backward()
                nn.utils.clip_grad_norm_(each.parameters(), 0.1)
            opt.step()
            other.step()
        assert_same(net.parameters(), whole.parameters(), **({} if exact else {"rtol": 0.2, "atol": 1e-2}))
        assert_same_everywhere(list(net.parameters()))
    for limit in ({"clip_norm": 1.0}, {"nonfinite": "skip"}, {"clip_norm": float("inf")}):
        (name,) = limit
        words = [repr(name), "ZeroRedundancyOptimizer", "clip_grad_norm_"]
        make = {"params": model().parameters(), "optimizer_class": fused.AdamW, "lr": 0.1, **limit}
        refuse(lambda make=make: ZeroRedundancyOptimizer(**make), TypeError, words)
    # More processes than parameters: some have none.
    p = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    opt = ZeroRedundancyOptimizer([p], optimizer_class=fused.SGD, lr=0.5, master="split8")
    p.grad = torch.ones_like(p)
    opt.step()
    assert p.tolist() == [0.5] * 3


#: How numbers are stored of parameters in float32 and bfloat16; all of these round to nearest.
STORAGES = [
    ("AdamW", torch.float32, {"lr": 1e-2, "amsgrad": True}),
    ("SGD", torch.float32, {"lr": 1e-2, "momentum": 0.9}),
    ("AdamW", torch.bfloat16, {"lr": 1e-2, "rounding": "kahan"}),
    ("NAdam", torch.bfloat16, {"lr": 1e-2, "master": "split16"}),
    ("Adagrad", torch.float64, {"lr": 1e-2, "state_dtype": "float32"}),
]


def train_fully_sharded():
    offload = {"offload_policy": CPUOffloadPolicy(pin_memory=False)}
    for k, (name, dtype, keywords) in enumerate(STORAGES):
        for policy in ({}, offload) if k == 0 else ({},):
            net = sharded(model(dtype), **policy)
            params = list(net.parameters())
            opt, plain = getattr(fused, name)(params, **keywords), [nn.Parameter(p) for p in wholes(params)]
            other = getattr(fused, name)(plain, **keywords)
            for step, x in enumerate(batches(4)):
                opt.zero_grad()
                loss_of(net, own_part(x).to(dtype)).backward()
                if step == 2:  # memory of states that moves is noticed
                    own = opt.state[params[0]]
                    key = next(key for key in own if isinstance(own[key], DTensor))
                    own[key]._local_tensor = own[key]._local_tensor.clone()
                for p, q in zip(params, plain, strict=True):
                    q.grad = p.grad.full_tensor()
                opt.step()
                other.step()
            assert_same(wholes(params), plain)
            for p, q in zip(params, plain, strict=True):
                ours, theirs = opt.state[p], other.state[q]
                assert ours.keys() == theirs.keys()
                for key in ours.keys() - {"step", "mu_product"}:
                    assert isinstance(ours[key], DTensor)
                    assert ours[key].placements == p.placements
                    assert torch.equal(whole(ours[key]), theirs[key])
    for limit in ({}, {"clip_norm": 0.05}):  # and by gradients of the same sums, in another order
        net = sharded(model())
        opt = fused.SGD(net.parameters(), lr=0.1, momentum=0.9, **limit)
        for x in batches(5):
            opt.zero_grad()
            loss_of(net, own_part(x)).backward()
            opt.step()
        theirs, other = one_process("SGD", 5, lr=0.1, momentum=0.9, **limit)
        assert_same(wholes(net.parameters()), theirs, rtol=1e-5, atol=1e-6)
        assert limit == {} or abs(opt.grad_norm / other.grad_norm - 1) < 1e-5


def train_in_two_dimensions():
    """Replicas of shards, and shards of the layers that tensor parallelism divides already."""
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    for tensor_parallel in (False, True):
        net = model()[:3]
        if tensor_parallel:
            net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
            parallelize_module(net, square["model"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(net, mesh=square["data"] if tensor_parallel else square)
        params = list(net.parameters())
        plain = [nn.Parameter(p) for p in wholes(params)]
        opt, other = (fused.AdamW(own, lr=1e-2, clip_norm=0.05) for own in (params, plain))
        for x in batches(4):
            opt.zero_grad()
            loss_of(net, x).backward()
            for p, q in zip(params, plain, strict=True):
                q.grad = whole(p.grad)
            opt.step()
            other.step()
            assert abs(opt.grad_norm / other.grad_norm - 1) < 1e-14
        assert_same(wholes(params), plain, rtol=1e-6, atol=1e-7)
        assert_same_everywhere([opt.grad_norm])
        state = get_optimizer_state_dict(net, opt)["state"]
        assert all(own["exp_avg"].placements == p.placements for own, p in zip(state.values(), params, strict=True))


def distributed(mesh, placements, shapes=((5, 3), (1,), (4, 2), (3,), ())):
    """Return parameters on a mesh, all but the last two with these placements, one a replica, one no DTensor."""
    generator = torch.Generator().manual_seed(2)
    whole = [torch.randn(shape, generator=generator) for shape in shapes]
    every = [placements] * (len(whole) - 2) + [[Replicate()] * mesh.ndim, None]
    pairs = zip(whole, every, strict=True)
    made = [nn.Parameter(t if own is None else distribute_tensor(t, mesh, own)) for t, own in pairs]
    return made, [nn.Parameter(t.clone()) for t in whole]


def give(params, plain, step):
    """Give all parameters their gradients of a step."""
    generator = torch.Generator().manual_seed(100 + step)
    for p, q in zip(params, plain, strict=True):
        q.grad = torch.randn(q.shape, generator=generator, dtype=torch.float64).to(q.dtype)
        distributed_one = isinstance(p, DTensor)
        p.grad = distribute_tensor(q.grad, p.device_mesh, p.placements) if distributed_one else q.grad.clone()


def meshes():
    """Yield meshes of all processes, and placements on them."""
    line = init_device_mesh("cpu", (world_size(),))
    yield line, [Shard(0)]
    if world_size() == 4:
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
        yield square, [Replicate(), Shard(0)]
        yield square, [Shard(0), Shard(0)]
        yield square["shards"], [Shard(0)]


def take_norms():
    nan = float("nan")
    if world_size() == 4:  # two meshes in one optimizer
        (line, halves), (square, pairs), *_ = meshes()
        both = [a + b for a, b in zip(distributed(line, halves), distributed(square, pairs), strict=True)]
        opt, other = (fused.SGD(own, clip_norm=1.0) for own in both)
        give(*both, 0)
        opt.step()
        other.step()
        assert abs(opt.grad_norm / other.grad_norm - 1) < 1e-14
        assert_same_everywhere([opt.grad_norm])
    for mesh, placements in meshes():
        params, plain = distributed(mesh, placements)
        opt, other = (fused.AdamW(own, lr=0.1, clip_norm=0.5, nonfinite="skip") for own in (params, plain))
        for step in range(3):
            give(params, plain, step)
            opt.step()
            other.step()
            assert abs(opt.grad_norm / other.grad_norm - 1) < 1e-14
            assert_same_everywhere([opt.grad_norm])
        assert_same(wholes(params), plain, rtol=1e-6, atol=1e-7)
        before = wholes(params)
        for t, value in ((2, nan), (0, float("inf")), (3, nan), (4, nan)):
            give(params, plain, 3)
            plain[t].grad.reshape(-1)[-1] = value  # in the shard of one process
            if isinstance(params[t], DTensor):
                params[t].grad = distribute_tensor(plain[t].grad, mesh, params[t].placements)
            else:
                params[t].grad = plain[t].grad
            opt.step()
            strict = fused.AdamW(params, clip_norm=0.5, nonfinite="raise")
            refuse(strict.step, FloatingPointError, [f"grads[0][{t}]", "NaN", "nothing has been written"])
            assert not any(strict.state.values())
        assert opt.skipped == 4
        assert_same(wholes(params), before)
        # Beyond float32, not beyond float64: no process may take it for infinite.
        large = nn.Parameter(distribute_tensor(torch.ones(3, dtype=torch.float64), mesh, placements))
        large.grad = distribute_tensor(torch.tensor([1.0, 1e100, 1.0], dtype=torch.float64), mesh, placements)
        one = fused.SGD([large], lr=1.0, clip_norm=1.0, nonfinite="raise")
        one.step()
        assert_same(wholes([large]), [torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)], rtol=1e-12, atol=1e-12)


def meet_the_unusual():
    mesh = init_device_mesh("cpu", (world_size(),))
    other_mesh = init_device_mesh("cpu", (world_size(),), mesh_dim_names=("other",))
    del other_mesh
    # Gradients with other placements are redistributed, and Partial ones added up.
    whole = torch.arange(15.0).reshape(5, 3)
    for placements in ([Shard(0)], [Shard(1)], [Replicate()]):
        for of_grad in ([Partial()], [Replicate()], [Shard(1)], [Shard(0)]):
            p = nn.Parameter(distribute_tensor(whole.clone(), mesh, placements))
            if of_grad == [Partial()]:
                grad = DTensor.from_local(torch.full((5, 3), 1.0), mesh, of_grad)
                if placements == [Replicate()]:  # by a communication that is under way
                    grad = grad.redistribute(placements=placements, async_op=True)
            else:
                grad = distribute_tensor(torch.full((5, 3), float(world_size())), mesh, of_grad)
            p.grad = grad
            opt = fused.SGD([p], lr=0.5, clip_norm=float("inf"))
            opt.step()
            assert_same(wholes([p]), [whole - world_size() / 2])
            assert abs(opt.grad_norm - world_size() * 15**0.5) < 1e-12
    # What cannot be is refused by name, by all, before anything is written.
    p = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]))
    p.grad = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])
    opt = fused.AdamW([p], state_dtype="int8")
    refuse(opt.step, TypeError, ["'exp_avg_scale'", "params[0]['params'][0]", "int8", "Shard"])
    assert not any(opt.state.values())
    refuse(lambda: fused.Offload([p]), TypeError, ["params[0]['params'][0]", "DTensor"])
    plain = nn.Parameter(torch.ones(4, 2))
    plain.grad = torch.ones(4, 2)
    other = fused.AdamW([plain])
    other.step()
    opt = fused.AdamW([p])
    opt.load_state_dict(other.state_dict())
    refuse(opt.step, TypeError, ["'exp_avg'", "params[0]['params'][0]", "must be a DTensor"])
    few = nn.Parameter(distribute_tensor(torch.ones(3), mesh, [Shard(0)]))  # as long as its scales, in one process
    few.grad = distribute_tensor(torch.ones(3), mesh, [Shard(0)])
    refuse(fused.AdamW([few], state_dtype="int8").step, TypeError, ["'exp_avg_scale'"])
    z = nn.Parameter(distribute_tensor(torch.ones(4, 2, dtype=torch.complex64), mesh, [Shard(0)]))
    z.grad = distribute_tensor(torch.ones(4, 2, dtype=torch.complex64), mesh, [Shard(0)])
    refuse(fused.AdamW([z], state_dtype="bfloat16").step, TypeError, ["params[0]['params'][0]", "complex"])
    fused.AdamW([z], lr=0.5).step()
    summand = DTensor.from_local(torch.ones(4), mesh, [Partial()])
    summand.grad = DTensor.from_local(torch.ones(4), mesh, [Partial()])
    refuse(fused.SGD([summand]).step, TypeError, ["params[0]['params'][0]", "Partial", "redistribute"])
    # A replica can have states of 8 bits, and stochastic rounding draws the same for all replicas.
    for keywords in ({"state_dtype": "int8"}, {"state_dtype": "bfloat16"}, {"rounding": "stochastic"}):
        uneven = nn.Parameter(distribute_tensor(torch.ones(5, 2, dtype=torch.bfloat16), mesh, [Shard(0)]))
        r = nn.Parameter(distribute_tensor(torch.ones(3000, dtype=torch.bfloat16), mesh, [Replicate()]))
        params = [r] if "int8" in keywords.values() else [uneven, r]
        opt = fused.AdamW(params, lr=0.1, **keywords)
        for _ in range(3):
            for own in params:
                own.grad = distribute_tensor(torch.full(own.shape, 0.1).bfloat16(), mesh, own.placements)
            opt.step()
        states = [t.to_local().float() for t in opt.state[r].values() if t.dim()]
        assert_same_everywhere([r.to_local().float(), *states])
    # FullyShardedDataParallel has plain tensors, of which nobody can tell but by its mark.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, that it is old
        net = FullyShardedDataParallel(model(), use_orig_params=True, device_id=torch.device("cpu"))
    params = list(net.parameters())
    words = ["clip_norm", "FullyShardedDataParallel", "fully_shard"]
    refuse(lambda: fused.AdamW(params, clip_norm=1.0), TypeError, words)
    refuse(lambda: fused.AdamW(params, nonfinite="raise"), TypeError, ["nonfinite", "fully_shard"])


class Weights(nn.Module):
    """Parameters of shapes that are divided unevenly."""

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        draw = lambda *shape: nn.Parameter(torch.randn(shape, generator=generator).to(dtype))  # noqa: E731
        self.one, self.two, self.three = draw(5, 3), draw(1), draw(9, 2)


def cases_of_checkpoints(folder):
    """Yield sharded weights with their optimizer, plain ones with theirs, and where their checkpoint is."""
    for k, (name, dtype, keywords) in enumerate(STORAGES):
        mesh = init_device_mesh("cpu", (world_size(),))
        net, whole = fully_shard(Weights(dtype), mesh=mesh), Weights(dtype)
        opt, other = (getattr(fused, name)(own.parameters(), **keywords) for own in (net, whole))
        yield net, opt, whole, other, Path(folder) / str(k)


def state_of(net, opt):
    return {"net": net.state_dict(), "opt": get_optimizer_state_dict(net, opt)}


def save_checkpoints(folder):
    for net, opt, whole, other, place in cases_of_checkpoints(folder):
        for step in range(3):
            give(list(net.parameters()), list(whole.parameters()), step)
            opt.step()
            other.step()
        assert_same(wholes(net.parameters()), whole.parameters())
        dcp.save(state_of(net, opt), checkpoint_id=place)


def resume_checkpoints(folder):
    for net, opt, whole, other, place in cases_of_checkpoints(folder):
        for p in net.parameters():
            p.detach().zero_()
        state = state_of(net, opt)
        dcp.load(state, checkpoint_id=place)
        net.load_state_dict(state["net"])
        set_optimizer_state_dict(net, opt, state["opt"])
        for step in range(6):
            give(list(net.parameters()), list(whole.parameters()), step)
            if step >= 3:
                opt.step()
            other.step()
        assert_same(wholes(net.parameters()), whole.parameters())
        assert [float(s.get("step", 6)) for s in opt.state.values()] == [6] * len(opt.state)


def go_both_ways():
    for first, second in ((torch.optim, fused), (fused, torch.optim)):
        net, mesh = Weights(torch.float32), init_device_mesh("cpu", (world_size(),))
        fully_shard(net, mesh=mesh)
        whole = Weights(torch.float32)
        opt, other = first.AdamW(net.parameters(), lr=0.1), torch.optim.AdamW(whole.parameters(), lr=0.1)
        for step in range(6):
            if step == 3:  # as shards, or whole
                options = StateDictOptions(full_state_dict=first is fused)
                state = get_optimizer_state_dict(net, opt, options=options)
                opt = second.AdamW(net.parameters())
                opt.zero_grad()  # else PyTorch makes no states to be loaded
                set_optimizer_state_dict(net, opt, state, options=options)
            give(list(net.parameters()), list(whole.parameters()), step)
            opt.step()
            other.step()
        assert_same(wholes(net.parameters()), [p.detach() for p in whole.parameters()], rtol=1e-5, atol=1e-6)


def die_between_steps():
    net = sharded(model())
    opt = fused.AdamW(net.parameters(), clip_norm=1.0)
    for x in batches(2):
        opt.zero_grad()
        loss_of(net, own_part(x)).backward()
        if opt.state and rank() == world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        before = [p.to_local().clone() for p in net.parameters()]
        if opt.state:
            with pytest.raises(RuntimeError):
                opt.step()
            assert_same([p.to_local() for p in net.parameters()], before)
            assert {float(own["step"]) for own in opt.state.values()} == {1.0}
            with contextlib.suppress(RuntimeError):
                torch.distributed.destroy_process_group()
            return "an error"
        opt.step()
    return None
