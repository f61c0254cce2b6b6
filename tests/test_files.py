"""save and load: the file is the old or the new one, whole; anybody can read it; a changed one is refused."""

import json
import os
import pathlib
import random as chance
import stat
import tracemalloc

import numpy as np
import pytest

import fastopt
from fastopt._api import files, safetensors
from fastopt._bench import storages

from .cases import FEW_STORAGES, assert_same_bits, every_one_of, random
from .own_optimizers import Lion


def parts(path):
    """Return the header of a file and the bytes after it, read as the format says."""
    content = pathlib.Path(path).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def stepped(cls=fastopt.Adam, params=None, **options):
    """Return an optimizer that has taken a step."""
    params = [random((7, 3), np.float32, 1), random(5, np.float64, 2)] if params is None else params
    opt = cls(params, **options)
    opt.step([np.full_like(p, 0.3) for p in params])
    return opt


def everything(opt):
    """Return all that a checkpoint has, and the parameters, as bytes."""
    saved = opt.state_dict() | {f"params/{t}": p for t, p in enumerate(opt.params)}
    return {key: a.tobytes() if isinstance(a, np.ndarray) else a for key, a in saved.items()}


def refuses(opt, path, error, *words):
    """Assert that a file is refused with its path and all of `words`, and nothing is changed."""
    before = everything(opt)
    with pytest.raises(error) as caught:
        opt.load(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert everything(opt) == before


@every_one_of(FEW_STORAGES.values())
@pytest.mark.parametrize("cls", [fastopt.Adam, Lion])
def test_resumed_equals_unbroken(storage, cls, tmp_path):
    path = tmp_path / "a.safetensors"
    params, grads = storages.params_and_grads(storage, (3000, 5))
    resumed = [np.zeros_like(p) for p in params]
    opt = cls(params, lr=1 / 3, seed=7, **storage.options)
    opt.step(grads)
    opt.step(grads)
    opt.save(path, params=True)
    other = cls(resumed, **storage.options)
    other.load(path)
    assert other.seed == 7
    assert list(other.describe()) == list(opt.describe())
    for each in (opt, other):
        each.step(grads)
    assert_same_bits(resumed, params)
    assert everything(other) == everything(opt)


def test_parameters_are_part_of_it_only_if_asked_for(tmp_path):
    opt = stepped()
    opt.save(tmp_path / "states")
    opt.save(tmp_path / "all", params=True)
    other = fastopt.Adam([np.zeros((7, 3), np.float32), np.zeros(5)])
    kept = list(other.params)
    other.load(tmp_path / "states")
    assert not any(p.any() for p in other.params)
    other.load(tmp_path / "all")
    assert all(a is b for a, b in zip(other.params, kept, strict=True))
    assert everything(other) == everything(opt)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4), (1,)])
@pytest.mark.parametrize("order", "CF")
def test_shapes_and_orders(shape, order, tmp_path):
    numbers = random(shape, np.float64, 1, zeros=False)
    params = np.array(numbers, order=order)
    opt = fastopt.Momentum(params)
    opt.step(np.array(numbers, order=order))
    opt.save(tmp_path / "a", params=True)
    for other_order in "CF":
        other = fastopt.Momentum(np.zeros(shape, order=other_order))
        other.load(tmp_path / "a")
        np.testing.assert_array_equal(other.params, params)
        np.testing.assert_array_equal(other.state["v"], opt.state["v"])


def test_keys_of_any_kind(tmp_path):
    names = ["x", "x.npy", "a/b", "ü", "\ud800", '"digest":"' + "0" * 64, "__metadata__", ""]
    opt = fastopt.Momentum({name: np.zeros(3) for name in names}, beta=0.0)
    opt.step({name: np.full(3, float(k)) for k, name in enumerate(names, 1)})
    opt.save(tmp_path / "a", params=True)
    other = fastopt.Momentum({name: np.zeros(3) for name in names[::-1]})
    other.load(tmp_path / "a")
    assert [other.state["v"][name][0] for name in names] == list(range(1, len(names) + 1))


def test_numbers_are_exact(tmp_path):
    opt = stepped(lr=0.1 + 0.2, betas=(1 / 3, 1 - 2**-53), eps=5e-324 + 1e-30, clip_norm=float("inf"), nonfinite="skip")
    opt.step_count = 2**53 + 1
    opt.save(tmp_path / "a")
    other = fastopt.Adam([np.zeros((7, 3), np.float32), np.zeros(5)])
    other.load(tmp_path / "a")
    assert dict(other.describe()) == dict(opt.describe())
    assert other.step_count == 2**53 + 1


def test_a_schedule_is_not_saved_and_stays(tmp_path):
    opt = stepped(lr=lambda step: 1.0)
    opt.save(tmp_path / "a")
    assert "lr" not in json.loads(parts(tmp_path / "a")[0]["__metadata__"]["settings"])
    schedule = opt.lr
    opt.load(tmp_path / "a")
    assert opt.lr is schedule


def test_what_is_in_it(tmp_path):
    p = np.ones((2, 3), np.uint16) << 14
    opt = stepped(params=[p], lr=0.1, state_dtype={"m": "bfloat16", "v": "int8"}, master="split16")
    opt.save(tmp_path / "a", params=True)
    header, data = parts(tmp_path / "a")
    metadata = header.pop("__metadata__")
    assert {key: metadata[key] for key in ("format", "version", "optimizer", "step")} == {
        "format": "fastopt",
        "version": "1",
        "optimizer": "Adam",
        "step": "1",
    }
    settings = json.loads(metadata["settings"])
    expected = {key: value for key, value in opt.state_dict().items() if not isinstance(value, np.ndarray)}
    expected["betas"] = list(expected["betas"])
    assert settings | {"optimizer": "Adam", "step": 1} == expected
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()} == {
        "params/0": ("BF16", [2, 3]),
        "low/0": ("I16", [2, 3]),
        "m/0": ("BF16", [2, 3]),
        "v_scale/0": ("I16", [1]),
        "v/0": ("U8", [2, 3]),
    }
    ends = [entry["data_offsets"] for entry in header.values()]
    assert [begin for begin, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == len(data)
    begin, end = header["params/0"]["data_offsets"]
    assert data[begin:end] == p.tobytes()


def test_others_can_read_it(tmp_path):
    pytest.importorskip("ml_dtypes")
    library = pytest.importorskip("safetensors")
    opt = stepped(params=[random(2000, np.float32), random((7, 3), np.float32).view(np.uint16)], state_dtype="bfloat16")
    opt.save(tmp_path / "a", params=True)
    with library.safe_open(tmp_path / "a", "np") as file:
        assert file.metadata()["optimizer"] == "Adam"
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    expected = everything(opt)
    assert {name: a.tobytes() for name, a in read.items()} == {name: expected[name] for name in read}
    assert {name: a.dtype.name for name, a in read.items()} == {
        **{f"{state}/{t}": "bfloat16" for state in "mv" for t in (0, 1)},
        "params/0": "float32",
        "params/1": "bfloat16",
    }


def test_pytorch_maps_it(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors")
    opt = stepped(params=[random(2000, np.float32)], state_dtype="bfloat16")
    opt.save(tmp_path / "a")
    with library.safe_open(tmp_path / "a", "pt") as file:
        m = file.get_tensor("m/0")
    assert m.dtype == torch.bfloat16
    assert m.data_ptr() % 2 == 0
    np.testing.assert_array_equal(m.float().numpy(), opt.decoded("m")[0])


def test_every_array_is_aligned(tmp_path):
    opt = stepped(params=[random(n, dtype) for n, dtype in ((3, "f2"), (1, "f8"), (3, "f2"), (5, "f4"))])
    opt.save(tmp_path / "a", params=True)
    header, data = parts(tmp_path / "a")
    before = (tmp_path / "a").stat().st_size - len(data)
    sizes = {"F64": 8, "F32": 4, "F16": 2}
    del header["__metadata__"]
    assert [(before + a["data_offsets"][0]) % sizes[a["dtype"]] for a in header.values()] == [0] * 12


def test_a_header_that_nobody_would_read(tmp_path, monkeypatch):
    opt = stepped()
    opt.save(tmp_path / "a")
    size = (tmp_path / "a").stat().st_size - len(parts(tmp_path / "a")[1])
    monkeypatch.setattr(safetensors, "_LONGEST_HEADER", size - 1)
    with pytest.raises(ValueError, match=f"at most {size - 1} bytes, got {size} for 4 arrays"):
        opt.save(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    refuses(opt, tmp_path / "a", ValueError, str(size))
    monkeypatch.setattr(safetensors, "_LONGEST_HEADER", size)
    opt.save(tmp_path / "a")
    opt.load(tmp_path / "a")


def test_bfloat16_without_ml_dtypes(run_script, tmp_path):
    out = run_script(
        """
        import sys
        sys.modules["ml_dtypes"] = sys.modules["safetensors"] = None
        from pathlib import Path
        import numpy as np, fastopt
        p = np.full(3, 0x3f80, np.uint16)
        opt = fastopt.Adam(p, state_dtype="bfloat16")
        opt.save("a", params=True)
        q = np.zeros(3, np.uint16)
        other = fastopt.Adam(q, state_dtype="bfloat16")
        other.load("a")
        print(q.tolist(), Path("a").read_bytes().count(b'"BF16"'))
        """
    )
    assert out == "[16256, 16256, 16256] 3"


def test_a_file_of_the_library_is_no_checkpoint(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    opt = stepped()
    numpy.save_file({"m/0": np.zeros(3)}, tmp_path / "a")
    refuses(opt, tmp_path / "a", ValueError, "not a checkpoint of fastopt", "format='fastopt'", "None")
    numpy.save_file({"m/0": np.zeros(3)}, tmp_path / "a", metadata={"format": "pt"})
    refuses(opt, tmp_path / "a", ValueError, "not a checkpoint of fastopt", "'pt'")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\0" * 8,
        b"\xff" * 8,
        b"\xff" * 1000,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0\xff\xff",
        b"\x40\x0d\x03\0\0\0\0\0" + b"[" * 200_000,
        b'\x13\0\0\0\0\0\0\0{"__metadata__": 3 }',
        b'\x26\0\0\0\0\0\0\0{"__metadata__":{"format":"fastopt"}} ',
        b'\x34\0\0\0\0\0\0\0{"__metadata__":{"format":"fastopt","version":"1"}} ',
        b'\x3c\0\0\0\0\0\0\0{"__metadata__":{"format":"fastopt","version":"1"},"a":[1]} ',
    ],
    ids=range(13),
)
def test_what_is_no_such_file(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    refuses(stepped(), tmp_path / "a", ValueError)


def test_an_npz_is_refused(tmp_path):
    opt = stepped()
    np.savez(tmp_path / "a.npz", **opt.state_dict())
    refuses(opt, tmp_path / "a.npz", ValueError, "not a safetensors file")


def test_what_is_no_file(tmp_path):
    opt = stepped()
    refuses(opt, tmp_path / "none", FileNotFoundError)
    refuses(opt, tmp_path, IsADirectoryError)
    for path in (3, None, b"a", pathlib):
        for use in (opt.load, opt.save):
            with pytest.raises(TypeError, match="path must be a str"):
                use(path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        opt.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="none/a"):
        opt.save(tmp_path / "none" / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"params": 1}, {"params": None}, {"progress": 3}])
def test_arguments_are_checked(arguments, tmp_path):
    (name, value), opt = *arguments.items(), stepped()
    with pytest.raises(TypeError, match=f"{name} must be .* got {value}"):
        opt.save(tmp_path / "a", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_every_byte_matters(tmp_path):
    path = tmp_path / "a"
    opt = stepped(params=[np.ones(3, np.float32)], state_dtype="int8")
    opt.save(path, params=True)
    whole = path.read_bytes()
    opt.step([np.ones(3, np.float32)])
    before = everything(opt)

    def refused(content):
        path.unlink()  # some file systems flush what is written over an old content
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            opt.load(path)
        assert str(path) in str(caught.value)

    for place in range(len(whole)):
        for mask in (1, ord(" ") ^ ord("\n"), 0xFF):  # JSON with another space is the same JSON
            changed = bytearray(whole)
            changed[place] ^= mask
            refused(changed)
        refused(whole[:place])
    refused(whole + b"\0")
    assert everything(opt) == before
    path.write_bytes(whole)
    opt.load(path)
    assert opt.step_count == 1


def test_an_incomplete_file_says_so(tmp_path):
    opt = stepped()
    opt.save(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:-1])
    refuses(opt, tmp_path / "a", ValueError, f"must have {len(content)} bytes", f"got {len(content) - 1}")
    (tmp_path / "a").write_bytes(content[:100])
    refuses(opt, tmp_path / "a", ValueError, "not a whole one", "got 100 bytes")


def test_another_version_is_refused(tmp_path):
    opt = stepped()
    opt.save(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content.replace(b'"version":"1"', b'"version":"2"'))
    refuses(opt, tmp_path / "a", ValueError, "version", "'1'", "'2'")


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (lambda p: stepped(fastopt.AdamW, p), ValueError, ["Adam", "AdamW"]),
        (lambda p: stepped(fastopt.Momentum, p), ValueError, ["Adam", "Momentum"]),
        (lambda p: stepped(params=p[:1]), ValueError, ["lacks", "'m/1'"]),
        (lambda p: stepped(params=[*p, np.ones(2)]), ValueError, ["extra", "'m/2'"]),
        (lambda p: stepped(params=p[::-1]), TypeError, ["float32", "float64"]),
        (lambda p: stepped(params=[p[0].T.copy(), p[1]]), ValueError, ["(7, 3)", "(3, 7)"]),
        (lambda p: stepped(params=p, state_dtype="float32"), TypeError, ["1", "float64", "float32"]),
        (lambda p: stepped(params=p[:1], rounding="nearest", state_dtype="int8"), ValueError, ["m_scale/0"]),
    ],
)
@pytest.mark.parametrize("params", [False, True])
def test_a_mismatched_file_changes_nothing(other, error, words, params, tmp_path):
    opt = stepped()
    other([p.copy() for p in opt.params]).save(tmp_path / "a", params=params)
    opt.step([np.ones_like(p) for p in opt.params])
    refuses(opt, tmp_path / "a", error, *words)


def test_parameters_that_cannot_be_written_to(tmp_path):
    opt = stepped()
    opt.save(tmp_path / "a", params=True)
    opt.step([np.ones_like(p) for p in opt.params])
    opt.params[1].setflags(write=False)
    refuses(opt, tmp_path / "a", ValueError, "the parameter 'params/1'", "read-only")


def test_progress(tmp_path):
    opt = fastopt.Momentum([np.zeros(2**19), np.zeros(0), np.zeros(3)])
    calls = []
    opt.save(tmp_path / "a", progress=lambda *numbers: calls.append(numbers))
    written, totals = zip(*calls, strict=True)
    assert set(totals) == {(tmp_path / "a").stat().st_size} == {written[-1]}
    assert list(written) == sorted(set(written))
    assert len(calls) == 6


class StopError(Exception):
    pass


def test_what_is_raised_on_the_way_leaves_the_old_file(tmp_path, monkeypatch):
    opt = stepped()
    opt.save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    opt.step([np.ones_like(p) for p in opt.params])

    def stop(*arguments):
        raise StopError

    def fails():
        with pytest.raises(StopError):
            opt.save(tmp_path / "a", progress=stop if whole else None)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() == before

    whole = True
    fails()
    whole = False
    for thing, name in ((os, "fsync"), (pathlib.Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(thing, name, stop)
            fails()


def test_the_file_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, pathlib.Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(str(pathlib.Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd))
    )
    monkeypatch.setattr(pathlib.Path, "replace", lambda a, b: (events.append(str(b)), replace(a, b)))
    stepped().save(tmp_path / "a")
    assert events[0].endswith(".tmp")
    assert events[1:] == [str(tmp_path / "a"), str(tmp_path)]


def test_links_and_permissions(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "last").symlink_to(tmp_path / "run" / "1")
    stepped().save(tmp_path / "last")
    assert (tmp_path / "last").is_symlink()
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "run" / "1").stat().st_mode == (tmp_path / "plain").stat().st_mode
    stepped().load(str(tmp_path / "last"))


def test_what_killed_saves_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    opt = stepped()
    left = tmp_path / ".a.0123456789abcdef.tmp"
    others = [tmp_path / name for name in (".b.0123456789abcdef.tmp", ".a.tmp", ".a.x.0123456789abcdef.tmp")]
    for path in (left, *others):
        path.touch()

    def another(written, total):
        assert not left.exists()
        if written == total:
            opt.save(tmp_path / "a")

    opt.save(tmp_path / "a", progress=another)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", *others])


def test_no_copy_of_the_states_is_made(tmp_path):
    opt = fastopt.Adam(np.zeros(2**21, np.float32))
    opt.save(tmp_path / "a", params=True)
    opt.load(tmp_path / "a")
    tracemalloc.start()
    try:
        opt.save(tmp_path / "a", params=True)
        opt.load(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_moment(kills, run_script):
    """A child saves without end, each time other numbers; whenever it is killed, the file has those of one save."""
    out = run_script(
        f"""
        import os, pathlib, random, signal, time
        import numpy as np, fastopt

        chance = random.Random({chance.Random(kills).random()})
        folder = pathlib.Path("saved")
        folder.mkdir()
        path = folder / "a"

        def optimizer():
            return fastopt.Momentum([np.zeros(2**19, np.float32), np.zeros(1000)])

        def fill(opt, step):
            opt.step_count = step
            for a in (*opt.params, *opt.state["v"]):
                a[...] = step

        opt, reader = optimizer(), optimizer()
        opt.save(path, params=True)
        began = time.perf_counter()
        opt.save(path, params=True)
        took = time.perf_counter() - began
        last = cut = 0
        for kill in range({kills}):
            told, tell = os.pipe()
            child = os.fork()
            if child == 0:
                for step in range(last + 1, last + 10**6):
                    fill(opt, step)
                    if step == last + 1:
                        os.write(tell, b"x")
                    opt.save(path, params=True)
                os._exit(1)
            os.read(told, 1)
            time.sleep(chance.uniform(0, 4 * took))  # some saves, however busy the machine is
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            os.close(told)
            os.close(tell)
            cut += len(list(folder.glob(".a.*.tmp"))) > 0
            reader.load(path)
            assert reader.step_count >= last
            last = reader.step_count
            assert all((a == last).all() for a in (*reader.params, *reader.state["v"]))
        opt.save(path)
        assert [file.name for file in folder.iterdir()] == ["a"]
        print(last, cut)
        """,
        OPENBLAS_NUM_THREADS=1,
    )
    saves, cut = map(int, out.split())
    assert saves > 0
    assert cut > kills // 4  # within a save, not between two


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    opt, pipe = fastopt.GD(np.zeros(3)), tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is no regular file"):
        opt.save(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_who_may_read_a_file_stays(tmp_path):
    opt, file = fastopt.GD(np.zeros(3)), tmp_path / "gd.safetensors"
    opt.save(file)
    file.chmod(0o600)
    opt.save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_new_file_that_another_save_removes_is_made_again(tmp_path, monkeypatch):
    """It does so between the first moment of the file and its lock."""
    opt, file = fastopt.GD(np.zeros(3)), tmp_path / "gd.safetensors"
    lock, removed = files._lock, []

    def removing(opened):
        if len(removed) < 2:
            removed.append(opened.name)
            pathlib.Path(opened.name).unlink()
        return lock(opened)

    monkeypatch.setattr(files, "_lock", removing)
    opt.save(file)
    assert len(removed) == 2
    assert list(tmp_path.iterdir()) == [file]


def test_a_flag_of_a_later_version_has_its_default(tmp_path):
    opt = fastopt.Adam(np.zeros(3), lr=0.5)
    saved = opt.state_dict()
    del saved["amsgrad"]
    other = fastopt.Adam(np.zeros(3))
    other.load_state_dict(saved)
    assert (other.amsgrad, other.lr) == (False, 0.5)
