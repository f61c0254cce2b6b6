"""Tensors of PyTorch in the host's memory are parameters and gradients as NumPy arrays are, without a copy."""

import copy
import pickle

import numpy as np
import pytest

import fastopt
from fastopt._arrays import exchange

from .refusals import refuse

torch = pytest.importorskip("torch", reason="needs the extra `torch`")

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
pytestmark = pytest.mark.usefixtures("both_checks")


def numbers(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))


def bits(tensor):
    plain = tensor.detach()
    return (plain.view(torch.uint16) if plain.dtype is torch.bfloat16 else plain).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_those_of_arrays(dtype):
    shapes = [(3, 5), (), (0, 2), (7,)]
    leaves = [torch.nn.Parameter(numbers(shape, dtype, k)) for k, shape in enumerate(shapes)]
    arrays = [bits(p).copy() for p in leaves]
    places = [p.data_ptr() for p in leaves]
    ours, theirs = fastopt.AdamW(leaves, lr=0.1), fastopt.AdamW(arrays, lr=0.1)
    for step in range(3):
        for k, p in enumerate(leaves):
            p.grad = numbers(shapes[k], dtype, 10 * step + k)
        ours.step([p.grad for p in leaves])
        theirs.step([bits(p.grad) for p in leaves])
    for p, array in zip(leaves, arrays, strict=True):
        np.testing.assert_array_equal(bits(p), array, strict=True)
    assert [p.data_ptr() for p in leaves] == places
    assert all(ours_ is p for ours_, p in zip(ours.params, leaves, strict=True))


def test_every_arrangement():
    one, named = torch.ones(3), {"a": torch.ones(3), "b": np.ones(2, np.float32)}
    fastopt.GD(one, lr=1.0).step(torch.ones(3))
    opt = fastopt.GD(named, lr=1.0)
    opt.step({"a": np.ones(3, np.float32), "b": torch.ones(2)})
    opt.add_params({"c": torch.ones(4)}, lr=2.0)
    opt.step({"a": torch.ones(3), "b": torch.ones(2), "c": torch.ones(4)})
    assert (opt.params["c"] == -1).all()
    assert (named["a"] == -1).all()
    assert (named["b"] == -1).all()
    assert opt.groups[1].params["c"] is opt.params["c"]
    layers = torch.nn.Linear(2, 3)
    grouped = fastopt.GD([{"params": layers.parameters()}, {"params": torch.ones(1), "lr": 0.5}], lr=1.0)
    grouped.step([[torch.ones(3, 2), torch.ones(3)], torch.ones(1)])
    assert (grouped.params[1] == 0.5).all()
    assert (one == 0).all()
    turned = torch.zeros(2, 3).T  # contiguous in Fortran order
    fastopt.GD(turned, lr=1.0).step(torch.ones(2, 3).T)
    assert (turned == -1).all()


def test_bound_gradients_are_read_where_they_are():
    p, g = torch.zeros(3), torch.zeros(3)
    opt = fastopt.GD([p], lr=1.0)
    opt.bind([g])
    for _ in range(2):
        g += 1
        opt.step()
    assert (p == -3).all()


def test_copies_and_pickles_have_their_own_memory():
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    opt = fastopt.Adam([p], lr=0.1)
    opt.step([torch.ones_like(p)])
    opt.step([torch.ones_like(p)])
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        before = p.detach().clone()
        other.step([torch.ones_like(p)])
        assert (p == before).all()
        assert (other.params[0] < before).all()
        assert other.step_count == 3
    fresh = fastopt.Adam([p], lr=0.1)
    fresh.load_state_dict(opt.state_dict())
    fresh.step([torch.ones_like(p)])
    assert (p == other.params[0]).all()


def test_what_cannot_be_seen_as_an_array_is_refused():
    of = fastopt.Adam
    refuse(lambda: of(torch.ones(3).to_sparse()), TypeError, ["params", "sparse_coo", ".to_dense()"])
    refuse(lambda: of([torch.ones(3, device="meta")]), TypeError, ["params[0]", '"meta"', "no memory"])
    refuse(
        lambda: of(torch.ones(3, 4)[:, ::2]), ValueError, ["params", "contiguous", "(3, 2)", "pass a contiguous copy"]
    )
    refuse(lambda: of(torch.ones(3, dtype=torch.complex64)), TypeError, ["params", "complex64"])
    p = torch.ones(3)
    negated = torch.ones(3, dtype=torch.complex64).conj().imag
    for grad, error, words in (
        (torch.ones(3).to_sparse(), TypeError, ["sparse_coo"]),
        (torch.ones(6)[::2], ValueError, ["contiguous"]),
        (negated, TypeError, [".resolve_neg()"]),
        (torch.ones(4), ValueError, ["(3,)", "(4,)"]),
        (torch.ones(3, dtype=torch.float64), TypeError, ["float64"]),
        (p, ValueError, ["share memory"]),
    ):
        opt = of([p])
        refuse(lambda opt=opt, grad=grad: opt.step([grad]), error, ["grads[0]", *words])
        assert opt.step_count == 0
    refuse(lambda: of([torch.ones(2), torch.ones(2)]).step(torch.ones(2, 2)), TypeError, ["grads", "sequence"])
    assert (p == 1).all()


@pytest.mark.parametrize("listed", [list, tuple, lambda params: params[0]])
def test_other_memory_is_noticed(listed):
    p = torch.nn.Parameter(torch.ones(3))
    opt = fastopt.GD(listed([p]))
    p.data = torch.zeros(3)
    refuse(lambda: opt.step(listed([torch.ones(3)])), ValueError, ["params", "other memory", ".copy_(values)"])
    assert (p == 0).all()


def test_what_describes_tensors_is_used_in_the_version_that_is_known(monkeypatch):
    class Without:
        pass

    assert exchange.function_of(torch.Tensor) != 0
    assert exchange.function_of(Without) == 0
    monkeypatch.setattr(exchange, "_MAJOR", 2)
    assert exchange.function_of(torch.Tensor) == 0


def test_nothing_imports_pytorch(run_script):
    script = """
    import sys
    import numpy as np
    import fastopt
    p = np.ones(3)
    opt = fastopt.Adam([p])
    opt.step([np.ones(3)])
    try:
        opt.step(["no array"])
    except TypeError:
        print("torch" in sys.modules)
    """
    assert run_script(script) == "False"


def test_autograd_notes_a_step():
    """As of every change in place: a gradient of what was there before the step would be wrong."""
    w, x = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    loss = (w * x).sum()
    fastopt.GD([w], lr=1.0).step([torch.ones(3)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
