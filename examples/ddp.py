"""Data-parallel training with an optimizer of fastopt.torch: DistributedDataParallel on CPUs.

    torchrun --standalone --nproc-per-node 2 examples/ddp.py                (seconds)
    torchrun --standalone --nproc-per-node 2 examples/ddp.py --steps 10     (to try it)

Every process has all parameters and averaged gradients, so `clip_norm` is that of all without another word.
"""

from __future__ import annotations

import argparse
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastopt.torch


def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 64 points of a plane, and a function of them."""
    x = 4 * torch.rand(64, 2, generator=generator) - 2
    return x, torch.sin(x[:, :1]) * x[:, 1:]


def train(steps: int) -> None:
    """Train a network, each process on data of its own; the first says how well."""
    torch.manual_seed(0)  # the same parameters in every process
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    data = torch.Generator().manual_seed(1 + dist.get_rank())
    parallel = DistributedDataParallel(model)
    opt = fastopt.torch.AdamW(parallel.parameters(), lr=1e-2, clip_norm=1.0)
    for step in range(1, steps + 1):
        x, y = batch(data)
        loss = (parallel(x) - y).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step in (1, steps):
            mean = loss.detach() / dist.get_world_size()
            dist.all_reduce(mean)
            if dist.get_rank() == 0:
                print(f"step {step}: norm of the gradient {opt.grad_norm:.3g}, loss {float(mean):.4f}")


def main() -> None:
    """Join the other processes, and train with them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(minutes=1))  # how long one may wait for the others
    train(arguments.steps)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
