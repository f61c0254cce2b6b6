"""Capture a training step in a CUDA graph, with PyTorch or with CuPy; needs a GPU and one of them.

python examples/cuda_graph.py torch
python examples/cuda_graph.py cupy
"""

from __future__ import annotations

import argparse

import fastopt


def with_torch(elements: int, replays: int) -> None:
    """Minimise (theta - 3)^2: gradient and update are one graph, replayed over and over."""
    import torch

    theta = torch.zeros(elements, device="cuda")
    grad = torch.empty_like(theta)
    opt = fastopt.Adam(theta, lr=0.1, capturable=True)  # the step number and lr live on the GPU
    opt.bind(grad)

    def step() -> None:
        torch.sub(theta, 3, out=grad).mul_(2)
        opt.step()

    side = torch.cuda.Stream()  # PyTorch wants the first run, which compiles, on a stream of its own
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for k in range(replays):
        if k == replays // 2:
            torch.cuda.synchronize()
            opt.lr = 0.01  # replays see it
        graph.replay()
    print(f"theta = {theta[0].item():.4f} after {opt.step_count} steps")


def with_cupy(elements: int, replays: int) -> None:
    """Do the same with CuPy."""
    import cupy

    theta = cupy.zeros(elements, cupy.float32)
    grad = cupy.empty_like(theta)
    opt = fastopt.Adam(theta, lr=0.1, capturable=True)
    opt.bind(grad)

    def step() -> None:
        cupy.subtract(theta, 3, out=grad)
        cupy.multiply(grad, 2, out=grad)
        opt.step()

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        step()  # compiles
        stream.begin_capture()
        step()
        graph = stream.end_capture()
        for _ in range(replays):
            graph.launch()
    stream.synchronize()
    print(f"theta = {float(theta[0]):.4f} after {opt.step_count} steps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Capture a training step in a CUDA graph.")
    parser.add_argument("library", nargs="?", choices=("torch", "cupy"), default="torch")
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--replays", type=int, default=1000)
    given = parser.parse_args()
    {"torch": with_torch, "cupy": with_cupy}[given.library](given.elements, given.replays)
