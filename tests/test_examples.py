"""What the examples claim, from the figures that they write."""

import json
import math
import sys

import pytest

from .documents import run_script


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return what examples/exploding_gradients.py writes after half of its steps."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--steps", "750", "--json", "figures.json"]
        assert run_script("examples/exploding_gradients.py", arguments, folder, patch) == 0
    return json.loads((folder / "figures.json").read_text(encoding="utf-8"))


def test_gradients_explode_without_clipping(figures):
    run = figures["training"]["no clipping"]
    assert run["not_finite_at"] <= 10
    assert max(run["loss"]) > 1000 * run["loss"][0]
    assert max(run["grad_norm"]) > 1000 * run["grad_norm"][0]


def test_clipping_trains_the_same_network(figures):
    free, clipped = figures["training"].values()
    assert free["loss"][0] == clipped["loss"][0]  # the same start, and the same first gradient
    assert free["grad_norm"][0] == clipped["grad_norm"][0]
    assert clipped["not_finite_at"] is None
    assert len(clipped["loss"]) == 750
    assert max(clipped["loss"]) <= 2 * clipped["loss"][0]
    assert math.fsum(clipped["loss"][-50:]) / 50 < 0.12 < figures["guess"]


def test_a_gradient_through_time(figures):
    """It vanishes or explodes, more so with every step, and for a larger spectral radius it is larger."""
    norms = figures["through_time"]
    for steps in (5, 10, 19):
        by_radius = [own[steps] for _, own in sorted(norms.items(), key=lambda item: float(item[0]))]
        assert by_radius == sorted(by_radius)
    assert norms["0.7"][19] < 1e-3 * norms["0.7"][1]
    assert norms["2.0"][19] > 1e3 * norms["2.0"][1]


def test_only_the_picture_needs_matplotlib(tmp_path, monkeypatch):
    for name in {"matplotlib", "matplotlib.figure", *sys.modules}:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    assert run_script("examples/exploding_gradients.py", ["--steps", "2"], tmp_path, monkeypatch) == 0
    with pytest.raises(ImportError, match="matplotlib"):
        run_script("examples/exploding_gradients.py", ["--steps", "2", "--plot", "x.png"], tmp_path, monkeypatch)
