"""fastopt bench --device cuda: every baseline computes the same, a wrong one shows, what does not fit is refused."""

import json

import numpy as np
import pytest

import fastopt
from fastopt._bench import command_line, device, gpu, run, storages
from fastopt._bench.catalog import OPTIMIZERS

from . import libraries

QUICK = ["bench", "--device", "cuda", "--sizes", "16", "--models", "--roofline", "10", "--seconds", "0.01"]


@pytest.mark.parametrize("name", [name for name in gpu.PEERS if name != "PyTorch graph"])
def test_every_baseline_is_right(name, monkeypatch):
    """CuPy is a stand-in, whose kernel's C is read as Python; PyTorch and Optax are those of the CPU."""
    libraries.imitate_cupy(monkeypatch)
    if name.startswith("PyTorch"):
        pytest.importorskip("torch", reason="needs PyTorch")
    if name.startswith("Optax"):
        pytest.importorskip("optax", reason="needs Optax")
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (50,), (1,)]]
    grads = [rng.uniform(0.5, 1.5, p.shape).astype(np.float32) for p in params]
    before = [p.copy() for p in params]
    _, error = run.start(gpu.PEERS[name], params, grads)
    assert error < 1e-6
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p, old)  # each has memory of its own


def test_what_is_measured_is_written(tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert command_line.main([*QUICK, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "one float32 Adam step, simulated" in out
    assert "CuPy: not measured: cupy is not installed" in out
    assert "PyTorch graph: not measured" in out
    result = json.loads(file.read_text())
    assert result["machine"]["device"] == "cuda"
    found = {row["peer"]: row for row in result["rows"]}
    assert found.keys() >= {"fastopt", "fastopt bound", "fastopt graph", "streaming"}
    assert all(row["error"] < 1e-6 and row["seconds"] > 0 for row in found.values())
    assert {row["optimizer"] for row in result["roofline"]} == set(OPTIMIZERS)


def test_a_wrong_baseline_shows(monkeypatch, capsys):
    def wrong(params, grads):
        step, read = gpu.fastopt(params, grads)
        return step, lambda: [p + np.float32(1e-3) for p in read()]

    monkeypatch.setitem(gpu.PEERS, "CuPy", wrong)
    assert command_line.main([*QUICK, "--only", "CuPy"]) == 1
    assert "WRONG" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--threads", "1"], "is for --device cpu"), (["--only", "NumPy"], "not on --device cuda")],
)
def test_what_is_for_the_cpu_is_refused(arguments, words, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main([*QUICK, *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_more_than_the_memory_of_the_gpu_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(device, "room", lambda: 2**20)
    with pytest.raises(SystemExit) as caught:
        command_line.main([*QUICK, "--sizes", "2^20"])
    assert caught.value.code == 2
    assert "1_048_576 elements take 0.0 GiB of the GPU's memory; 0.0 are free" in capsys.readouterr().err


def test_what_does_not_fit_is_measured_in_turn_with_fastopt(monkeypatch):
    names = list(gpu.PEERS)
    monkeypatch.setattr(device, "room", lambda: 10**9)
    assert list(gpu.batches(100, names)) == [(1, names)]
    monkeypatch.setattr(device, "room", lambda: 100 * 48)
    found = list(gpu.batches(100, names))
    assert all(copies == 1 and together[0] == "fastopt" for copies, together in found)
    assert [name for _, together in found for name in together[1:]] == names[1:]
    assert found[0] == (1, ["fastopt", "fastopt bound", "fastopt graph"])
    assert (1, ["fastopt", "Optax"]) in found  # alone, although it needs more than is there: it may still fit


def test_a_copy_moves_what_it_says(monkeypatch):
    monkeypatch.setattr(device, "_PIECE", 8)
    for nbytes, count in [(0, 1), (2, 1), (16, 8), (46, 23)]:
        copy = device.Copy(nbytes)
        assert sum(copy._pieces) == count
        copy._arrays[1].copy_to_device(np.arange(1, min(count, 8) + 1, dtype=np.uint8))
        copy()
        np.testing.assert_array_equal(copy._arrays[0].copy_to_host(), np.arange(1, min(count, 8) + 1))


def test_repeated_numbers():
    values = np.arange(5, dtype=np.float32)
    for count in (0, 3, 5, 12):
        np.testing.assert_array_equal(device.put(values, count).copy_to_host(), np.resize(values, count))


def test_a_captured_step_is_the_same_step():
    p, g = (gpu.on_device([np.ones(5, np.float32)]) for _ in range(2))
    opt = fastopt.GD(p, lr=0.25, capturable=True)
    opt.bind(g)
    graph = device.Graph(lambda handle: opt.step(stream=handle))
    graph()
    graph()
    assert gpu.on_host(p)[0].tolist() == [0.5] * 5
    assert opt.step_count == 2


def test_different_bits_are_counted(monkeypatch):
    storage = storages.STORAGES["float32, bfloat16 states"]
    assert storages.differing("Momentum", storage, [5, 1]) == {}
    on_host = gpu.on_host

    def changed(arrays):
        found = on_host(arrays)
        found[0].view(np.uint8)[3] ^= 1
        return found

    monkeypatch.setattr(gpu, "on_host", changed)
    assert storages.differing("Momentum", storage, [5, 1]) == {"params": 1}


@pytest.mark.parametrize("name", ["numba-cuda", "torch", "cupy"])
def test_the_arrays_of_each_library_come_back(name, monkeypatch):
    libraries.imitate_cupy(monkeypatch)
    if name == "torch":
        pytest.importorskip("torch", reason="needs PyTorch")
    for dtype in (np.float32, np.uint16):
        array = np.arange(3, dtype=dtype)
        (found,) = gpu.on_host(gpu.on_device([array], name))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, array)
