"""On a real GPU, where there is one: every optimizer against the oracle, streams, graphs, PyTorch and CuPy."""

import numpy as np
import pytest

import fastopt
from fastopt._cuda import toolchain

from .cases import assert_same_bits, call, every_case, every_dtype, make, random
from .oracles import answer

CUDA = toolchain.describe()
if not CUDA.startswith("yes"):
    pytest.skip(f"CUDA: {CUDA}", allow_module_level=True)


@pytest.fixture
def cuda():
    from numba import cuda

    return cuda


def on_host(array):
    return array.copy_to_host() if hasattr(array, "copy_to_host") else array.cpu().numpy()


@every_case
@every_dtype
@pytest.mark.parametrize("size", [0, 1, 7, 1023, 1025, 2**20 + 3])
@pytest.mark.parametrize("shift", [0, 1])
def test_against_the_oracle(case, dtype, size, shift, cuda):
    name, kwargs = case
    whole = cuda.to_device(random(size + shift, dtype, 1))
    p = whole[shift:]
    opt = make(case, p)
    for step in (1, 2, 3):
        g = random(size, dtype, 1 + step)
        old = [on_host(a) for a in (p, *opt.state.values())]
        opt.step(cuda.to_device(g))
        right = answer(name, old[0], g, old[1:], step, **kwargs)
        for new, exact in zip([p, *opt.state.values()], right, strict=True):
            assert np.max(exact.excess(on_host(new)), initial=0) <= 1
    assert_same_bits([whole.copy_to_host()[:shift]], [random(size + shift, dtype, 1)[:shift]])


@every_case
@every_dtype
def test_functions_and_capturable_steps_are_the_classes(case, dtype, cuda):
    name, kwargs = case
    p, g = random(1000, dtype, 1), cuda.to_device(random(1000, dtype, 2))
    one, two, three = (cuda.to_device(p) for _ in range(3))
    opt = make(case, one)
    states = {key: cuda.to_device(np.zeros_like(p)) for key in opt.state}
    for step in (1, 2, 3):
        opt.step(g)
        call(case, two, g, states, step)
    assert_same_bits([one.copy_to_host()], [two.copy_to_host()])
    if not callable(kwargs.get("lr")):
        counted = getattr(fastopt, name)(three, capturable=True, **kwargs)
        for _ in range(3):
            counted.step(g)
        assert counted.step_count == 3
        np.testing.assert_allclose(three.copy_to_host(), one.copy_to_host(), rtol=1e-5, atol=1e-7)


def test_pytorch_streams_and_graphs():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    params = [torch.zeros(s, device="cuda", requires_grad=True) for s in ((3, 4), (1000,), (1,))]
    grads = [torch.full_like(p, 2) for p in params]
    opt = fastopt.GD(params, lr=0.5, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        opt.step(grads)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.step(grads)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert all((p == -4).all() for p in params)
    assert opt.step_count == 4
    opt.lr = 1.0
    graph.replay()
    torch.cuda.synchronize()
    assert all((p == -6).all() for p in params)


def test_cupy():
    cupy = pytest.importorskip("cupy", reason="needs CuPy")
    p, g = cupy.zeros(1000, cupy.float32), cupy.full(1000, 2, cupy.float32)
    opt = fastopt.Momentum(p, lr=0.5, beta=0.0)
    with cupy.cuda.Stream() as stream:
        opt.step(g)
        opt.step(g, stream=stream)
    stream.synchronize()
    assert bool((p == -2).all())
    assert type(opt.state["v"]) is type(p)
