"""fastopt bench: the baselines compute the same, a wrong one shows, and figures can be compared."""

import json
import math

import numpy as np
import pytest

import fastopt
from fastopt._bench import cli, command_line, measure, peers, run
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._engine import chunks
from fastopt._kernels import compiler

from . import oracles
from .documents import load_script

QUICK = ["bench", "--only", "NumPy", "--sizes", "64", "2^12", "--roofline", "100", "--seconds", "0.05", "--models"]


def test_models():
    sizes = {name: sum(map(math.prod, shapes)) for name, shapes in run.models().items()}
    assert sizes == {"ResNet-50": 25_557_032, "GPT-2 124M": 124_439_808, "LoRA r=8 of Llama-2-7B": 4_194_304}


def test_the_exact_equation_is_the_oracles():
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(2, 50))
    wanted, states = p, [np.zeros(50), np.zeros(50)]
    for step in (1, 2, 3):
        exact = oracles.answer("Adam", wanted, g, states, step, lr=peers.LR, betas=peers.BETAS, eps=peers.EPS)
        wanted, *states = (e.value.astype(float) for e in exact)
    np.testing.assert_allclose(run.exact(p, g, 3), wanted, rtol=1e-13)


@pytest.mark.parametrize("name", peers.PEERS)
def test_every_rival_that_is_here_is_right(name):
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (5000,), (1,)]]
    grads = [rng.uniform(0.5, 1.5, p.shape).astype(np.float32) for p in params]
    before = [p.copy() for p in params]
    if name == "DeepSpeed":
        pytest.skip("builds C++ for a minute; `fastopt bench` checks it wherever it is measured")
    try:
        _, error = run.start(peers.PEERS[name], params, grads)
    except peers.MissingPeerError as reason:
        pytest.skip(str(reason))
    assert error < 1e-6
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p, old)  # each baseline has memory of its own


def test_table_json_and_picture(tmp_path, capsys):
    file, image = tmp_path / "figures.json", tmp_path / "picture.png"
    arguments = [*QUICK, "LoRA r=8 of Llama-2-7B"]
    assert command_line.main([*arguments, "--json", str(file), "--plot", str(image)]) == 0
    out = capsys.readouterr().out
    result = json.loads(file.read_text())
    cases = {row["case"]: row for row in result["rows"]}
    assert set(cases) == {"64", "4_096", "LoRA r=8 of Llama-2-7B"}
    assert cases["LoRA r=8 of Llama-2-7B"]["tensors"] == 128
    for row in result["rows"]:
        assert 0 < row["low"] <= row["seconds"] <= row["high"]
        assert row["error"] < 1e-6
        assert row["peer"] in out
        assert row["ratio"] == 1 if row["peer"] == "fastopt" else row["ratio"] > 0
    assert {row["optimizer"] for row in result["roofline"]} >= set(OPTIMIZERS)
    assert all(row["elements"] == 100 and row["streaming_fraction"] > 0 for row in result["roofline"])
    assert image.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_rival_shows(monkeypatch, capsys):
    def wrong(params, grads):
        step, read = peers.numpy(params, grads)
        return step, lambda: [p + np.float32(1e-3) for p in read()]

    monkeypatch.setitem(peers.PEERS, "NumPy", wrong)
    assert command_line.main(QUICK) == 1
    assert "WRONG" in capsys.readouterr().out


@pytest.mark.parametrize("states", range(5))
def test_streaming_reads_and_writes_every_array(states):
    arrays = [np.full(1000, k + 1, np.float32) for k in range(2 + states)]
    spec = compiler.Spec(measure._make_stream(states), 1, ("float32",) * len(arrays))
    table = np.array([[a.ctypes.data] for a in arrays], np.uint64)
    values, groups = np.full((1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    compiler.sweep(spec, False)(table, *chunks.chunks_of([1000]), groups, values, 0, 0)
    for k, array in enumerate(arrays):
        assert (array == k + 1 + 0.5 * (k > 0)).all()


def test_a_missing_rival_is_named(monkeypatch, capsys):
    def missing(params, grads):
        raise peers.MissingPeerError("it is not installed")

    monkeypatch.setitem(peers.PEERS, "NumPy", missing)
    assert command_line.main(QUICK) == 0
    assert "NumPy: not measured: it is not installed" in capsys.readouterr().out


def test_comparison(tmp_path, capsys):
    from fastopt._bench import report

    def figures(own, streaming):
        rows = [
            run.Row("64", 1, 64, peer, seconds, seconds, seconds, seconds / own, 0.0)._asdict()
            for peer, seconds in [("fastopt", own), ("streaming", streaming)]
        ]
        return {"rows": rows}

    old = figures(2.0, 1.0)
    assert report.comparison(figures(2.2, 1.0), old, 1.25) == []
    assert report.comparison(figures(4.0, 2.0), old, 1.25) == []  # the whole machine was slower
    assert report.comparison(figures(2.0, 0.5), old, 1.25) == ["64: fastopt"]
    assert "SLOWER" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "status"), [("1000", 0), ("0.000001", 1)])
def test_the_gate(tmp_path, factor, status):
    file = tmp_path / "old.json"
    assert command_line.main([*QUICK, "--json", str(file)]) == 0
    assert command_line.main([*QUICK, "--compare", str(file), "--factor", factor]) == status


def test_the_committed_figures():
    figures = load_script("tables").load("cpu.json")
    assert {row["peer"] for row in figures["rows"]} == {*peers.PEERS, "streaming"}
    assert all(row["error"] < 1e-6 for row in figures["rows"])


def test_losses_are_shown():
    from fastopt._bench import report

    rows = [
        run.Row("64", 1, 64, peer, 1e-6, 1e-6, 1e-6, ratio, error)._asdict()
        for peer, ratio, error in [("fastopt", 1, 0), ("NumPy", 0.5, 0), ("Optax", 2, 0), ("DeepSpeed", 0.1, 1)]
    ]
    text = report.markdown({"rows": rows, "roofline": []})
    assert "| 2^6 | 1 µs |  | **0.50** | 2.00 | WRONG |" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "missing/x.json"], "missing/x.json cannot be written"),
        (["--plot", "x.xyz"], "must end in one of"),
        (["--plot", "x"], "must end in one of"),
        (["--threads", "0"], "from 1 to"),
        (["--threads", "9999"], "from 1 to"),
        (["--threads", "abc"], "must be a number, got 'abc'"),
        (["--seconds", "abc"], "must be a number, got 'abc'"),
        (["--json", ""], "cannot be written"),
        (["--seconds", "nan"], "positive"),
        (["--factor", "-1"], "positive"),
        (["--compare", "absent.json"], "absent.json"),
        (["--compare", "empty.json"], "holds no figures"),
        (["--compare", "text.json"], "holds no figures"),
        (["--compare", "other.json"], "none of the cases"),
        (["--compare", "bare.json"], "holds no figures"),
        (["--compare", "alone.json"], "none of the cases"),
        (["--compare", "bytes.json"], "decode"),
        (["--sizes", "2^45"], "of memory"),
        (["--roofline", "2^45"], "of memory"),
    ],
)
def test_what_cannot_work_is_refused_before_measuring(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "text.json").write_text("?")
    rows = [{"case": "7", "ratio": 1.0, "peer": peer} for peer in ("fastopt", "streaming")]
    (tmp_path / "other.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "bare.json").write_text(json.dumps({"rows": [{"case": "64", "ratio": 1.0}]}))
    (tmp_path / "alone.json").write_text(json.dumps({"rows": [{"case": "64", "ratio": 1.0, "peer": "fastopt"}]}))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(run, "compare", lambda *given: pytest.fail("measured"))
    with pytest.raises(SystemExit) as caught:
        command_line.main([*QUICK, *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_without_a_gpu_the_message_says_what_is_missing(capsys, monkeypatch):
    from fastopt._arrays import driver

    monkeypatch.setattr(run, "compare", lambda *given: pytest.fail("measured"))
    reason = "the driver cannot be used: no libcuda"
    monkeypatch.setattr(driver, "why_not", lambda: reason)
    assert command_line.main(["bench", "--device", "cuda"]) == 2
    out, errors = capsys.readouterr()
    assert (out, errors) == ("", f"fastopt bench --device cuda: {reason}\n")
    assert fastopt.info()["cuda"] == f"no: {reason}"


@pytest.mark.parametrize("arguments", [["--only", "CuPy"], ["--only", "NumPy", "PyTorch graph"]])
def test_a_baseline_of_the_gpu_is_refused_on_the_cpu(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert f"{arguments[-1]}: not on --device cpu" in capsys.readouterr().err


def test_names_are_checked(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--only", "Nobody"])
    assert "Nobody" in capsys.readouterr().err
