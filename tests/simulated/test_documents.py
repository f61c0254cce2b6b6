"""What the documents show for a GPU, run in the simulator: README's block, the example of graphs, the benchmarks."""

import contextlib
import doctest
import functools
import re
import sys

import numpy as np
import pytest

import fastopt

from ..documents import DOCUMENTS, blocks, run_script
from ..test_asv import called, classes
from . import libraries


class Graph:
    """A stand-in for a graph: what is asked of the device while it is captured is kept, and done at each replay."""

    def __init__(self, monkeypatch):
        self._monkeypatch, self._kept, self._capturing = monkeypatch, [], False

    def watch(self, owner, name, answer):
        """Keep the calls of a function; while one is kept, it returns the argument `answer` of its own."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def call(*given, **kwargs):
            if not self._capturing:
                return function(*given, **kwargs)
            self._kept.append(functools.partial(function, *given, **kwargs))
            return kwargs.get(answer, given[0])

        self._monkeypatch.setattr(owner, name, call)

    @contextlib.contextmanager
    def capture(self):
        assert not self._kept
        self._capturing = True
        yield
        self._capturing = False
        assert self._kept

    def replay(self):
        for call in self._kept:
            call()


@pytest.fixture
def graph(monkeypatch):
    made = Graph(monkeypatch)
    made.watch(fastopt.Optimizer, "step", None)
    return made


def in_torch(monkeypatch, graph):
    torch = libraries.torch()
    libraries.imitate_torch(monkeypatch)
    graph.watch(torch, "sub", "out")
    monkeypatch.setattr(libraries.Tensor, "mul_", torch.Tensor.mul_, raising=False)
    graph.watch(libraries.Tensor, "mul_", None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda given: given.capture())


def in_cupy(monkeypatch, graph):
    libraries.imitate_cupy(monkeypatch)
    cupy = sys.modules["cupy"]
    for name in ("subtract", "multiply"):
        ufunc = getattr(np, name)
        setattr(cupy, name, lambda a, b, out, ufunc=ufunc: ufunc(a.array, b, out=out.array))
        graph.watch(cupy, name, "out")
    open_ = []

    def begin(stream):
        open_.append(graph.capture())
        open_[-1].__enter__()

    def end(stream):
        open_.pop().__exit__(None, None, None)
        graph.launch = graph.replay
        return graph

    monkeypatch.setattr(libraries.Stream, "begin_capture", begin, raising=False)
    monkeypatch.setattr(libraries.Stream, "end_capture", end, raising=False)


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_graphs(library, graph, tmp_path, monkeypatch, capsys):
    """The example takes the steps that plain ones are, with its change of lr in between."""
    {"torch": in_torch, "cupy": in_cupy}[library](monkeypatch, graph)
    arguments = [library, "--elements", "3", "--replays", "6"]
    assert run_script("examples/cuda_graph.py", arguments, tmp_path, monkeypatch) == 0
    theta = np.zeros(3, np.float32)
    opt = fastopt.Adam(theta, lr=0.1)
    for step in range(7):
        if library == "torch" and step == 4:
            opt.lr = 0.01
        opt.step(2 * (theta - 3))
    assert capsys.readouterr().out == f"theta = {theta[0]:.4f} after 7 steps\n"


def test_the_block_of_the_readme(monkeypatch):
    torch = libraries.torch()
    libraries.imitate_torch(monkeypatch)
    linear = torch.nn.Linear

    def on_device(*sizes, device):
        assert device == "cuda"
        model = linear(*sizes)
        for name, p in list(model.named_parameters()):
            parameter = torch.nn.Parameter(libraries.Tensor.of(p.detach()))
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", libraries.Tensor.of(p.grad)))
            setattr(model, name, parameter)
        return model

    monkeypatch.setattr(torch.nn, "Linear", on_device)
    (block,) = [block for block in blocks(DOCUMENTS["README.md"], "python") if "SKIP" in block and "cuda" in block]
    examples = doctest.DocTestParser().get_examples(re.sub(r"\b1000\b", "3", block))
    session = {"fastopt": fastopt}
    for example in examples[:-1]:
        exec(example.source, session)
    before = [p.detach().clone() for p in session["model"].parameters()]
    exec(examples[-1].source, session)
    for old, new in zip(before, session["model"].parameters(), strict=True):
        assert (old != new).any()


def test_the_benchmarks_of_a_gpu():
    assert dict(called(classes()["cuda.Step"])).keys() == {"time_step", "time_host"}
