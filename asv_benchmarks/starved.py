"""Measure AdamW steps of many processes on few cores, as where each GPU of a machine has a process with one thread.

Gradients come in bfloat16, and parameters are wanted in bfloat16; weights and states are kept in the host's memory. All
processes wait for a word, take one step, and wait again; contenders take turns, in another order in each round. A turn
is from the first process that begins to the last that is done. So that all fits into memory, there are several sets of
processes, one after the other, each with some of the contenders and fastopt beside them.

Parameters, weights, states and gradients of a process are the same memory for all contenders that store them alike, so
none of them has the better place; PyTorch and DeepSpeed have gradients in float32 beside. Their casts are part of their
steps, each one call over all tensors.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import render
import torch

import fastopt.torch
from fastopt._bench import measure as _measure

OPTIONS = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}
OURS, OURS_NARROW = "fastopt Offload", "fastopt Offload, bfloat16 states"
#: What is measured together, beside the first of all.
SETS = (("PyTorch fused", "DeepSpeed CPUAdam", "torchao CPU offload"), ("PyTorch foreach",), (OURS_NARROW,))
#: Bytes of an element that a process has: parameter, gradient in two dtypes, weight and two states, and what is between
#: the operations of foreach.
BYTES = 2 + 2 + 4 + 4 + 4 + 4 + 8
_TOLERANCE = 1e-6
#: What the answers of a process begin with; libraries say other things.
_MARK = "starved: "


class Missing(Exception):  # noqa: N818  no error
    """A contender cannot run here; the text says why."""


class Worker:
    """One process: its arrays, and what takes a step on them.

    Parameters
    ----------
    tensors, elements : int
        How many, and of how many elements each.
    """

    def __init__(self, tensors: int, elements: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.params = [torch.randn(elements, generator=draw).bfloat16() for _ in range(tensors)]
        for p in self.params:
            p.grad = torch.randn(elements, generator=draw).bfloat16()
        self._first = fastopt.torch.Offload(self._same_params(), **OPTIONS)
        self._first.step()  # which makes weights and states
        own = [*self._first.state.values()]
        self.weights, self.m, self.v = ([state[key] for state in own] for key in ("master", "m", "v"))
        self._grads: list[torch.Tensor] = []

    def _same_params(self) -> list[torch.Tensor]:
        """Return the same parameters, in which Offload does not see that others wrote: it would look what that was."""
        same = [p.data for p in self.params]
        for p, q in zip(same, self.params, strict=True):
            p.grad = q.grad
        return same

    def make(self, name: str) -> Callable[[], object]:
        """Return what takes a step."""
        if name == OURS:
            return self._first.step
        if name == OURS_NARROW:
            opt = fastopt.torch.Offload(same := self._same_params(), **OPTIONS, state_dtype="bfloat16")
            for p, weight in zip(same, self.weights, strict=True):
                opt.state[p]["master"] = weight
            return opt.step
        if name.startswith("torchao"):
            if importlib.util.find_spec("torchao") is None:
                raise Missing("not installed")
            raise Missing("needs a GPU: it has no offload from the host to itself")
        leaves = [weight.requires_grad_() for weight in (w.detach() for w in self.weights)]
        self._grads = self._grads or [torch.empty_like(w) for w in self.weights]
        for leaf, grad in zip(leaves, self._grads, strict=True):
            leaf.grad = grad
        opt, first = self._peer(name, leaves)
        for leaf, m, v in zip(leaves, self.m, self.v, strict=True):
            opt.state[leaf] = {"step": first, "exp_avg": m, "exp_avg_sq": v}
            first = first.clone() if isinstance(first, torch.Tensor) else first
        given = [p.grad for p in self.params]

        def step() -> None:
            torch._foreach_copy_(self._grads, given)
            opt.step()
            torch._foreach_copy_(self.params, self.weights)

        return step

    @staticmethod
    def _peer(name: str, leaves: list[torch.Tensor]) -> tuple[torch.optim.Optimizer, Any]:
        """Return an optimizer, and the number of steps behind it as it has it."""
        if name.startswith("PyTorch"):
            return torch.optim.AdamW(leaves, **OPTIONS, **{name.split()[1]: True}), torch.tensor(1.0)
        if importlib.util.find_spec("deepspeed") is None:
            raise Missing("not installed")
        try:
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            return DeepSpeedCPUAdam(leaves, **OPTIONS, adamw_mode=True, fp32_optimizer_states=True), 1
        except (ImportError, RuntimeError, OSError, AssertionError) as error:
            raise Missing(f"cannot be built: {str(error).splitlines()[0]}") from None

    def differs(self, step: Callable[[], object]) -> float:
        """Return by how much the weights after a second step differ from those after ours, at most; and undo both."""
        kept = [t[0].detach().clone() for t in (self.weights, self.m, self.v)]
        for state in self._first.state.values():
            state["step"].fill_(1)
        found = []
        for one in (self._first.step, step):
            one()
            found.append(self.weights[0].detach().clone())
            for row, old in zip((self.weights, self.m, self.v), kept, strict=True):
                row[0].detach().copy_(old)
        return float((found[0] - found[1]).abs().max())


def serve(tensors: int, elements: int, names: list[str]) -> None:
    """Take a step for each name that comes, and say when it began and ended."""
    torch.set_num_threads(1)
    worker, steps, missing, wrong = Worker(tensors, elements), {}, {}, {}
    for name in names:
        try:
            steps[name] = worker.make(name)
        except Missing as error:
            missing[name] = str(error)
            continue
        if name not in (OURS, OURS_NARROW):
            with torch.no_grad():
                wrong[name] = worker.differs(steps[name])
        steps[name]()
    say({"missing": missing, "wrong": wrong})
    for line in sys.stdin:
        step, start = steps[line.rstrip("\n")], time.monotonic()
        step()
        say([start, time.monotonic()])


def say(answer: Any) -> None:
    print(f"{_MARK}{json.dumps(answer)}", flush=True)


def started(processes: int, words: list[str]) -> list[subprocess.Popen[str]]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, env=os.environ | one, **pipes) for _ in range(processes)]


def answers(workers: list[subprocess.Popen[str]]) -> list[Any]:
    """Return what each worker says next."""
    found = []
    for worker in workers:
        assert worker.stdout is not None
        while not (line := worker.stdout.readline()).startswith(_MARK):
            if not line:
                raise RuntimeError(f"a process ended, with exit status {worker.wait()}")
        found.append(json.loads(line.removeprefix(_MARK)))
    return found


def measure(workers: list[subprocess.Popen[str]], names: list[str], rounds: int) -> dict[str, list[float]]:
    """Return how long each contender took in each round, in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    order, shuffle = list(names), random.Random(0).shuffle  # noqa: S311  an order, not a secret
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(f"{name}\n")
                worker.stdin.flush()
            starts, ends = zip(*answers(workers), strict=True)
            taken[name].append(max(ends) - min(starts))
    return taken


def beside(given: argparse.Namespace, names: list[str]) -> tuple[dict[str, list[float]], list[Any]]:
    """Return the times of contenders in one set of processes, and what these say before."""
    words = [f"--tensors={given.tensors}", f"--elements={given.elements}", "--serve", *names]
    workers = started(given.processes, words)
    try:
        ready = answers(workers)
        return measure(workers, [name for name in names if name not in ready[0]["missing"]], given.rounds), ready
    finally:
        for worker in workers:
            worker.stdin.close()  # type: ignore[union-attr]
            worker.wait()
            worker.stdout.close()  # type: ignore[union-attr]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=8, help="each with one thread")
    parser.add_argument("--tensors", type=int, default=64, help="of each process")
    parser.add_argument("--elements", type=int, default=2**20, help="of each tensor")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.tensors, given.elements, given.serve)
        return 0
    needed = given.processes * given.tensors * given.elements * BYTES
    if needed > 0.8 * _measure.memory():
        print(f"{needed / 2**30:.1f} GiB are needed, too much for here: choose fewer processes", file=sys.stderr)
        return 2
    rows: dict[str, dict[str, float]] = {}
    missing, wrong = {}, {}
    for own in SETS:
        taken, ready = beside(given, [OURS, *own])
        missing |= ready[0]["missing"]
        wrong |= {name: off for one in ready for name, off in one["wrong"].items() if off > _TOLERANCE}
        for name, seconds in taken.items():
            ms, ours = (statistics.median(each) * 1e3 for each in (seconds, taken[OURS]))
            ratio = _measure.ratio(seconds, taken[OURS])
            rows.setdefault(name, {"ms": ms, "fastopt_ms": ours, "times_as_long": ratio})
    figures = {
        **{key: getattr(given, key) for key in ("processes", "tensors", "elements", "rounds")},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "rows": rows,
        "missing": [*missing.items()],
    }
    print(render.starved(figures))
    if wrong:
        print(f"results differ from ours: {wrong}", file=sys.stderr)
    if given.json:
        render.write(given.json, **figures)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
