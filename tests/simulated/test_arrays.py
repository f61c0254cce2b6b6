"""What is taken, what is refused, streams, graphs, checkpoints, in the simulator."""

import ctypes
import gc
import pickle
import threading
import weakref
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from numba import cuda

import fastopt
from fastopt._arrays import gpu
from fastopt._engine import single, streams
from fastopt._kernels import compiler
from fastopt.rules import state

from .device import Device, Packed, host


def pair(n=5, dtype=np.float32):
    return np.ones(n, dtype), np.full(n, 2, dtype)


def unchanged(p, action, kind, *words):
    """Assert that `action` fails with all of `words` in its message and leaves `p` as it was."""
    before = host(p).copy()
    with pytest.raises(kind) as caught:
        action()
    for word in words:
        assert word in str(caught.value)
    np.testing.assert_array_equal(host(p), before)


@pytest.mark.parametrize("wrap", [Device, Packed, cuda.to_device])
def test_every_way_to_show_an_array(wrap):
    p, g = pair()
    given = wrap(p)
    opt = fastopt.Momentum(given, lr=0.1)
    opt.step(wrap(g))
    np.testing.assert_allclose(host(given), 1 - 0.1 * 0.2, rtol=1e-6)
    assert opt.params is given
    np.testing.assert_allclose(host(opt.state["v"]), 0.2, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (3, 0, 2)])
def test_shapes_and_orders(shape):
    for order in "CF":
        p, g = (np.full(shape, k, np.float64, order=order) for k in (1, 2))
        fastopt.GD(Device(p), lr=0.5).step(Device(g))
        assert (p == 0).all()


def test_structures_and_both_kinds_at_once():
    names = ["cpu", "gpu", "wide"]
    p = {"cpu": pair()[0], "gpu": pair()[0], "wide": pair(3, np.float64)[0]}
    g = {name: np.full_like(a, 2) for name, a in p.items()}
    shown = {"cpu": p["cpu"], "gpu": Device(p["gpu"]), "wide": Device(p["wide"])}
    opt = fastopt.GD(shown, lr=0.5)
    opt.step({"cpu": g["cpu"], "gpu": Device(g["gpu"]), "wide": Device(g["wide"])})
    assert all((p[name] == 0).all() for name in names)
    assert opt.params is shown
    with pytest.raises(TypeError, match=r"grads\['gpu'\] must be on the GPU 0"):
        opt.step(g)
    with pytest.raises(TypeError, match=r"grads\['cpu'\] must be a numpy\.ndarray"):
        opt.step({name: Device(a) for name, a in g.items()})
    assert all((p[name] == 0).all() for name in names)
    assert opt.step_count == 1


def test_what_is_refused():
    p, g = pair(8)
    given = Device(p)
    opt = fastopt.Adam(given)
    unchanged(given, lambda: opt.step(Device(g[::2])), ValueError, "grads", "contiguous")
    unchanged(given, lambda: opt.step(Device(g[:4])), ValueError, "grads", "shape")
    unchanged(given, lambda: opt.step(Device(g.astype(np.float64))), TypeError, "float64")
    unchanged(given, lambda: opt.step(Device(p)), ValueError, "share memory")
    unchanged(given, lambda: opt.step(given), ValueError, "share memory")
    unchanged(given, lambda: opt.step(Device(g, mask=Device(g))), TypeError, "mask")
    unchanged(given, lambda: opt.step(g), TypeError, "must be on the GPU 0", "numpy.ndarray")
    unchanged(given, lambda: opt.step([1.0] * 8), TypeError, "one array")
    unchanged(given, opt.step, TypeError, "bind")
    assert opt.step_count == 0
    for bad, word in [(Device(p[::2]), "contiguous"), (Device(p, data=(p.ctypes.data, True)), "read-only")]:
        with pytest.raises(ValueError, match=word):
            fastopt.Adam(bad)
    with pytest.raises(TypeError, match="int32"):
        fastopt.Adam(Device(np.ones(3, np.int32)))
    with pytest.raises(ValueError, match="share memory"):
        fastopt.GD([Device(p[:5]), Device(p[4:])])
    with pytest.raises(ValueError, match="share memory"):
        fastopt.adam(Device(p), Device(g), Device(g), Device(np.zeros(8, np.float32)), step=1)
    with pytest.raises(TypeError, match="g must be on a GPU"):
        fastopt.gd(Device(p), g)
    with pytest.raises(TypeError, match="complex"):
        fastopt.GD(Device(np.ones(3, np.complex64)))
    with pytest.raises(ValueError, match="GPUs"):
        fastopt.gd(Packed(p), Packed(g, device=1))
    with pytest.raises(ValueError, match="GPU 0"):
        opt.step(Packed(g, device=1))


def test_a_dtype_that_only_dlpack_has():
    class Bfloat16(Packed):
        @property
        def __cuda_array_interface__(self):
            raise TypeError("unsupported")

        def __dlpack__(self, *, stream):
            capsule = super().__dlpack__(stream=stream)
            get = ctypes.pythonapi.PyCapsule_GetPointer
            get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
            tensor = gpu._Tensor.from_address(get(capsule, b"dltensor"))
            assert (tensor.code, tensor.bits) == (1, 16)
            tensor.code = 4
            return capsule

    bits = np.full(3, 0x3F80, np.uint16)
    fastopt.GD(Bfloat16(bits), lr=0.5).step(Bfloat16(np.full(3, 0x3F80, np.uint16)))
    assert (bits == 0x3F00).all()  # 1 - 0.5 * 1


def test_jax_is_refused_with_the_reason():
    kind = type("ArrayImpl", (Packed,), {"__module__": "jaxlib.xla_extension"})
    with pytest.raises(TypeError, match=r"params\[0\] is a JAX array, which is immutable"):
        fastopt.GD([kind(np.ones(3))])
    p, _ = pair()
    with pytest.raises(TypeError, match="grads is a JAX array"):
        fastopt.GD(Device(p)).step(kind(np.ones(5, np.float32)))


def test_bound_gradients():
    p, g = pair()
    opt = fastopt.GD(Device(p), lr=0.5)
    opt.bind(Device(g))
    opt.step()
    g[:] = 4
    opt.step()
    assert (p == 1 - 1 - 2).all()
    opt.step(Device(np.full(5, 8, np.float32)))
    opt.step()
    assert (p == -2 - 4 - 2).all()


def test_gradients_are_let_go():
    p, g = pair()
    opt = fastopt.GD(Device(p))
    grad = Device(g)
    gone = weakref.ref(grad)
    opt.step(grad)
    del grad
    gc.collect()
    assert gone() is None


def test_gradients_at_new_places():
    p, _ = pair()
    opt = fastopt.GD(Device(p), lr=1.0)
    kept = [np.full(5, k, np.float32) for k in range(12)]  # more than the rows of addresses on their way
    for g in kept:
        opt.step(Device(g))
    assert (p == 1 - sum(range(12))).all()


STREAMS = [
    0,
    7,
    SimpleNamespace(cuda_stream=7),
    SimpleNamespace(ptr=7),
    SimpleNamespace(handle=7),
    SimpleNamespace(handle=SimpleNamespace(value=None)),
    SimpleNamespace(__cuda_stream__=lambda: (0, 7)),
    SimpleNamespace(__cuda_stream__=(0, 7)),
]


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_streams(stream, monkeypatch):
    seen = []
    monkeypatch.setattr(streams, "stream", lambda handle: seen.append(handle) or cuda.stream())
    p, g = pair()
    fastopt.GD(Device(p), lr=0.5).step(Device(g), stream=stream)
    fastopt.gd(Device(p), Device(g), lr=0.5, stream=stream)
    assert (p == -1).all()
    assert set(seen) <= {0, 7}
    assert seen == [gpu.stream_handle(stream, None)] * 2


@pytest.mark.parametrize(
    ("stream", "error"),
    [("main", TypeError), (-1, ValueError), (2**64, ValueError), (True, TypeError), (1.5, TypeError)],
)
def test_what_is_no_stream(stream, error):
    p, g = pair()
    given = Device(p)
    opt = fastopt.GD(given)
    unchanged(given, lambda: opt.step(Device(g), stream=stream), error, "stream", repr(stream))
    unchanged(given, lambda: fastopt.gd(given, Device(g), stream=stream), error, "stream")


def test_the_stream_of_the_library(monkeypatch):
    """PyTorch's and CuPy's current streams are asked for, of the device of the array."""
    asked = []

    def current(device):
        asked.append(device)
        return SimpleNamespace(cuda_stream=11, ptr=12)

    fake = SimpleNamespace(cuda=SimpleNamespace(current_stream=current, get_current_stream=current))
    monkeypatch.setitem(gpu.sys.modules, "torch", fake)
    monkeypatch.setitem(gpu.sys.modules, "cupy", fake)
    for library, handle in [("torch", 11), ("cupy", 12)]:
        kind = type("Array", (Packed,), {"__module__": library, "detach": lambda self: self})
        assert gpu.stream_handle(None, gpu.view("p", kind(np.ones(3), device=0))) == handle
    assert asked == [0, 0]
    assert gpu.stream_handle(None, gpu.view("p", Device(np.ones(3)))) == 0


@pytest.fixture
def waits(monkeypatch):
    """Return the list of all that streams are told to wait for."""
    seen = []
    monkeypatch.setattr(streams, "wait", lambda maker, handle: seen.append((maker, handle)))
    return seen


def test_a_step_waits_for_the_streams_on_which_its_arrays_are_made(waits):
    """The third version of the interface: an entry `stream` asks for it."""
    p, g = pair()
    opt = fastopt.GD(Device(p, stream=5), lr=0.5)
    opt.step(Device(g, stream=7))
    assert sorted(waits) == [(5, 0), (7, 0)]
    waits.clear()
    opt.step(Device(g, stream=None))
    opt.step(Device(g, stream=7), stream=7)
    assert waits == []
    opt.bind(Device(g, stream=9))
    opt.step(stream=3)
    opt.step(stream=3)  # whoever writes to it now is not known
    assert waits == [(9, 3)]
    waits.clear()
    fastopt.gd(Device(p, stream=5), Device(g, stream=7), stream=7)
    assert waits == [(5, 7)]
    for wrong in (lambda: opt.step(Device(g, stream=0)), lambda: fastopt.gd(Device(p), Device(g, stream=0))):
        unchanged(p, wrong, ValueError, "the stream on which it is made", "got 0")


def test_states_of_a_library_are_made_on_its_stream(waits, monkeypatch):
    """Zeros that PyTorch writes on one stream are waited for by the first step on another."""
    kind = type("Tensor", (Device,), {"__module__": "torch", "detach": lambda self: self, "data_ptr": lambda self: 0})
    for attribute in ("shape", "stride", "dtype"):
        setattr(kind, attribute, None if attribute != "stride" else lambda self: None)
    fake = SimpleNamespace(
        cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=11)),
        zeros_like=lambda like, dtype: kind(np.zeros_like(like.array)),
        float32=np.float32,
    )
    monkeypatch.setitem(gpu.sys.modules, "torch", fake)
    p, g = pair()
    opt = fastopt.Momentum(kind(p))
    opt.step(kind(g), stream=3)
    opt.step(kind(g), stream=3)
    assert waits == [(11, 3)]


def test_calls_on_one_stream_from_two_threads_do_not_mix(monkeypatch):
    """They share a table of addresses: nothing may come between filling it and the launch that reads it."""
    send, other = streams.Uploads.send, threading.Event()
    calls = []

    def slow(self, *arguments):
        send(self, *arguments)
        calls.append(arguments)
        if len(calls) == 1:
            other.wait(0.5)  # gives the other thread the time to fill the table, if it can
        else:
            other.set()

    monkeypatch.setattr(streams.Uploads, "send", slow)
    params = [np.full(5, k, np.float32) for k in (1, 2)]
    threads = [
        threading.Thread(target=fastopt.gd, args=(Device(p), Device(np.ones(5, np.float32))), kwargs={"lr": 1.0})
        for p in params
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 2
    assert [p.tolist() for p in params] == [[0] * 5, [1] * 5]


def test_the_default_stream_of_each_thread_has_a_table_of_its_own(monkeypatch):
    """The handle 2 is one number for all of them."""
    asked, table = [], single._table
    monkeypatch.setattr(single, "_table", lambda *key: asked.append(key) or table(*key))
    p, g = pair()
    for stream in (2, 7):
        fastopt.gd(Device(p), Device(g), stream=stream)
    assert asked == [(0, 2, threading.get_ident(), 2), (0, 7, 0, 2)]


def test_more_states_and_scalars_than_anybody_has():
    names = [f"x{k}" for k in range(80)]
    Many = NamedTuple("Many", [(name, float) for name in names])
    scope = {"Many": Many}
    exec(f"def scalars(step, lr) -> Many: return Many({', '.join(f'lr + {k}.0' for k in range(80))})", scope)
    rule = f"lambda s, g, p, {', '.join(names[:20])}: (p - g * s.x79, {', '.join(f'{n} + s.{n}' for n in names[:20])})"
    members = {"scalars": staticmethod(scope["scalars"]), "rule": staticmethod(eval(rule))}
    own = type("Own", (fastopt.Optimizer,), members | {name: state() for name in names[:20]})
    p, states = np.zeros(5), np.zeros((20, 5))
    g = np.ones(5)
    fastopt.as_function(own)(Device(p), Device(g), *map(Device, states), lr=0.0)
    assert (p == -79).all()
    np.testing.assert_array_equal(states, np.arange(20)[:, None] + np.zeros(5))
    for capturable in (False, True):
        opt = own(Device(p), lr=0.0, capturable=capturable)
        opt.step(Device(g))
        assert host(opt.state["x19"]).tolist() == [19.0] * 5
    assert (p == -3 * 79).all()


def test_functions_and_classes_are_launched_alike(monkeypatch):
    seen, launcher = [], streams.launcher
    monkeypatch.setattr(streams, "launcher", lambda kernel, *rest: seen.append(rest) or launcher(kernel, *rest))
    monkeypatch.setattr(compiler, "device_threads", lambda spec, usual: usual + 1)
    p, g = pair()
    fastopt.GD(Device(p)).step(Device(g))
    fastopt.gd(Device(p), Device(g))
    assert seen[0] == seen[1] == (1, streams.threads() + 1, 0)


class TestGraphs:
    def test_what_cannot_be_captured(self, monkeypatch):
        p, g = pair()
        given = Device(p)
        opt, plain = fastopt.Adam(given, capturable=True), fastopt.Adam(Device(p.copy()))
        grad = Device(g)
        plain.bind(Device(g.copy()))
        opt.step(grad)
        monkeypatch.setattr(streams, "capturing", lambda handle: True)
        opt.step(grad)
        unchanged(given, lambda: opt.step(Device(g.copy())), RuntimeError, "other addresses")
        unchanged(plain.params, plain.step, RuntimeError, "capturable=True")
        states = [Device(np.zeros_like(p)) for _ in range(2)]
        unchanged(given, lambda: fastopt.adam(given, grad, *states, step=1), RuntimeError, "captured")
        grad.changes["stream"] = 7
        unchanged(given, lambda: opt.step(grad), RuntimeError, "streams [7]", "on the stream that is captured")
        opt.step(grad, stream=7)
        opt.step_count = 2
        assert opt.step_count == 2

    def test_lr_can_be_changed_and_is_a_number(self):
        p, g = pair()
        opt = fastopt.GD(Device(p), lr=0.5, capturable=True)
        opt.bind(Device(g))
        opt.step()
        opt.lr = 1.0
        opt.step()
        assert (p == 1 - 1 - 2).all()
        with pytest.raises(TypeError, match="capturable"):
            opt.lr = lambda step: 0.1
        assert opt.lr == 1.0
        with pytest.raises(TypeError, match="capturable"):
            fastopt.GD(Device(p), lr=lambda step: 0.1, capturable=True)
        with pytest.raises(TypeError, match="on the CPU"):
            fastopt.GD([Device(p), pair()[0]], capturable=True)


def test_checkpoints_go_from_device_to_device_and_to_the_cpu(tmp_path):
    p, g = pair()
    opt = fastopt.Adam([Device(p)], lr=0.1)
    opt.step([Device(g)])
    np.savez(tmp_path / "a.npz", **opt.state_dict())
    saved = np.load(tmp_path / "a.npz")
    assert isinstance(opt.state_dict()["m/0"], np.ndarray)
    for capturable in (False, True):
        q = p.copy()
        other = fastopt.Adam([Device(q)], capturable=capturable)
        other.load_state_dict(saved)
        other.step([Device(g)])
        assert other.step_count == 2
        r = p.copy()
        on_cpu = fastopt.Adam([r])
        on_cpu.load_state_dict(saved)
        on_cpu.step([g])
        np.testing.assert_allclose(q, r, rtol=1e-6)
    opt.step([Device(g)])
    np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("order", "CF")
def test_files_go_from_device_to_device_and_to_the_cpu(order, tmp_path):
    p = np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)).copy(order=order)
    opt = fastopt.Adam([Device(p)], lr=0.1, state_dtype={"m": "bfloat16"})
    opt.step([Device(p + 1)])
    opt.save(tmp_path / "a", params=True)
    q, r = np.zeros_like(p), np.zeros((2, 3), np.float32)
    for given, array in ((Device(q), q), (r, r)):
        other = fastopt.Adam([given], state_dtype={"m": "bfloat16"})
        other.load(tmp_path / "a")
        np.testing.assert_array_equal(array, p)
        for name, saved in opt.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], saved)


def test_no_copies_by_pickle():
    opt = fastopt.Adam(Device(pair()[0]))
    with pytest.raises(TypeError, match="state_dict"):
        pickle.dumps(opt)


def test_a_fortran_state_survives_a_checkpoint():
    p = np.asfortranarray(np.ones((2, 3)))
    g = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    opt = fastopt.Momentum(Device(p), beta=0.0)
    opt.step(Device(g))
    saved = opt.state_dict()
    np.testing.assert_array_equal(saved["v"], g)
    saved["v"] = saved["v"] + 1
    opt.load_state_dict(saved)
    np.testing.assert_array_equal(opt.state_dict()["v"], g + 1)


def test_info_says_so():
    assert fastopt.info()["cuda"].startswith("simulated")
