"""Parameters, gradients and states sharded among processes: FSDP2 (fully_shard) with an optimizer of fastopt.torch.

    torchrun --standalone --nproc-per-node 2 examples/fsdp2.py                  (seconds)
    torchrun --standalone --nproc-per-node 2 examples/fsdp2.py --steps 10       (to try it)

Each process updates its own shards; `clip_norm` is about the norm of all. ``--load FOLDER`` goes on from what
``--save FOLDER`` wrote, be it with another number of processes.
"""

from __future__ import annotations

import argparse
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import fastopt.torch


def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 64 points of a plane, and a function of them."""
    x = 4 * torch.rand(64, 2, generator=generator) - 2
    return x, torch.sin(x[:, :1]) * x[:, 1:]


def go_on(model: nn.Module, opt: torch.optim.Optimizer, folder: str) -> None:
    """Go on from a checkpoint, with the shards that this process has now."""
    weights, states = get_state_dict(model, opt)
    dcp.load({"model": weights, "optimizer": states}, checkpoint_id=folder)
    set_state_dict(model, opt, model_state_dict=weights, optim_state_dict=states)


def write(model: nn.Module, opt: torch.optim.Optimizer, folder: str) -> None:
    """Write a checkpoint, each process its own shards."""
    weights, states = get_state_dict(model, opt)
    dcp.save({"model": weights, "optimizer": states}, checkpoint_id=folder)


def train(steps: int, load: str | None, save: str | None) -> None:
    """Train a network, each process on data of its own; the first says how well."""
    torch.manual_seed(0)  # the same parameters in every process
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    data = torch.Generator().manual_seed(1 + dist.get_rank())
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model[::2]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    opt = fastopt.torch.AdamW(model.parameters(), lr=1e-2, clip_norm=1.0)
    if load:
        go_on(model, opt, load)
    for step in range(1, steps + 1):
        x, y = batch(data)
        loss = (model(x) - y).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step in (1, steps):
            mean = loss.detach() / dist.get_world_size()
            dist.all_reduce(mean)
            if dist.get_rank() == 0:
                print(f"step {step}: norm of the gradient {opt.grad_norm:.3g}, loss {float(mean):.4f}")
    if save:
        write(model, opt, save)


def main() -> None:
    """Join the other processes, and train with them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--load", metavar="FOLDER", help="a checkpoint to go on from")
    parser.add_argument("--save", metavar="FOLDER", help="where to write one at the end")
    arguments = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(minutes=1))  # how long one may wait for the others
    train(arguments.steps, arguments.load, arguments.save)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
