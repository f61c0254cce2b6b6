"""Docstrings have their sections, and those of the generated functions run."""

import doctest
import inspect
import re

import pytest

import fastopt
from fastopt._bench import measure
from fastopt._bench.catalog import OPTIMIZERS

CLASSES = sorted(OPTIMIZERS)
FUNCTIONS = [name.lower() for name in CLASSES]


def sections(thing):
    return set(re.findall(r"^(\w+)\n-{3,}$", inspect.getdoc(thing), re.MULTILINE))


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    cls = OPTIMIZERS[name]
    assert getattr(fastopt, name) is cls
    needed = {"Parameters", "Attributes", "Raises", "Notes", "References", "Examples"}
    assert needed <= sections(cls)
    text = inspect.getdoc(cls)
    assert ".. math::" in text
    assert "bytes per float32 element" in text
    for hyper in cls.hyperparameters:
        assert re.search(rf"\b{hyper}\b", text), f"{name} does not document {hyper}"
    for state in cls.states:
        assert f'state["{state}"]' in text or "As for :class:" in text, f"{name} does not document {state}"


@pytest.mark.parametrize("name", CLASSES)
def test_the_bytes_that_a_docstring_names(name):
    text = " ".join(inspect.getdoc(OPTIMIZERS[name]).split())

    def bytes_with(**hyper):
        method = OPTIMIZERS[name].with_hyperparameters(**hyper)
        return measure.bytes_of(("float32",) * (2 + len(method.active_states())))

    cls, least = OPTIMIZERS[name], bytes_with()
    assert f"Moves {least.moved} bytes per float32 element" in text
    assert f"reads {least.read}, writes {least.written}" in text or "as Adam does" in text
    for hyper in (state.when for state in cls._declared.values() if state.when):
        more = bytes_with(**{hyper: True if hyper in cls._flags else 0.5}).moved - least.moved
        assert re.search(rf"and {more} more (for each of|with) [^.]*`{hyper}`", text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function = getattr(fastopt, name)
    assert {"Parameters", "Returns", "Raises", "Notes", "Examples"} <= sections(function)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(function, name, globs={}):
        assert test.examples
        assert runner.run(test).failed == 0


@pytest.mark.parametrize("name", ["LossScaler", "MinimizeResult", "Optimizer", "info", "jitable", "minimize"])
def test_the_rest(name):
    assert sections(getattr(fastopt, name)) >= {"Raises"} - ({"Raises"} if name == "MinimizeResult" else set())
    assert sections(getattr(fastopt, name)) & {"Parameters", "Returns", "Attributes"}


@pytest.mark.parametrize("method", ["step", "bind", "state_dict", "load_state_dict", "save", "load"])
def test_methods(method):
    assert sections(getattr(fastopt.Optimizer, method)) & {"Parameters", "Returns"}


def test_everything_public_is_listed():
    here = {name for name in vars(fastopt) if not name.startswith("_")}
    modules = {name for name in here if inspect.ismodule(getattr(fastopt, name))}
    assert here - modules == set(fastopt.__all__)
