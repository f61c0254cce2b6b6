"""Faults planted in the kernels of the package: each is seen, so that a kernel that passes has none of them."""

import re

import numpy as np
import pytest

from fastopt._bench.storages import STORAGES

from .check import LAYOUTS, check_against_the_cpu, check_against_the_expression
from .memory import KernelError


def replaced(pattern, by, which=0):
    """Return a change of a text: the match number `which` of a pattern is replaced."""

    def change(text):
        found = list(re.finditer(pattern, text))[which]
        return text[: found.start()] + found.expand(by) + text[found.end() :]

    return change


def write_to_the_gradient(text):
    """Exchange the address of a store with the one that only a load has."""
    loads, stores = (set(re.findall(rf"{kind}\.global\.v4\.f32.*\[(%rd\d+)\]", text)) for kind in ("ld", "st"))
    (gradient,) = loads - stores
    return replaced(r"(st\.global\.v4\.f32\s+)\[%rd\d+\]", rf"\1[{gradient}]")(text)


DIFFER = "differ|Mismatch"
ADAM = {
    "a vector one element further": (replaced(r"(st\.global\.v4\.f32\s+\[%rd\d+)\]", r"\1+4]"), "misaligned"),
    "a vector at the place of the next": (
        replaced(r"(st\.global\.v4\.f32\s+\[%rd\d+)\]", r"\1+16]"),
        "race|out of bounds",
    ),
    "a vector read one vector further": (
        replaced(r"(ld\.global\.v4\.f32.*\[%rd\d+)\]", r"\1+16]"),
        "race|out of bounds",
    ),
    "the last element one further": (replaced(r"(st\.global\.f32\s+\[%rd\d+)\]", r"\1+4]"), "race|out of bounds"),
    "a single element read before the first": (
        replaced(r"(ld\.global\.f32.*\[%rd\d+)\]", r"\1+-4]"),
        "race|out of bounds",
    ),
    "the table read beyond its end": (replaced(r"(ld\.global\.u64.*\[%rd\d+)\]", r"\1+8000]"), "out of bounds"),
    "all blocks take the first chunk": (replaced(r"%ctaid\.x", "0"), "race"),
    "the gradient is written": (write_to_the_gradient, "only to be read"),
    "an approximate root": (replaced(r"sqrt\.rn\.f32", "sqrt.approx.f32"), "unknown instruction sqrt.approx.f32"),
    "an approximate quotient": (replaced(r"div\.rn\.f32", "div.full.f32"), "unknown instruction div.full.f32"),
    "a sum of which a part is subtracted": (replaced(r"add(\.rn)?\.f32", r"sub\1.f32"), DIFFER),
    "an element that is not written": (replaced(r"st\.global\.f32.*;", ""), DIFFER),
    "a vector that is not written": (replaced(r"st\.global\.v4\.f32.*;", ""), DIFFER),
}


@pytest.mark.parametrize("what", ADAM)
def test_in_a_sweep(what, device):
    change, message = ADAM[what]
    with device.changed(change), pytest.raises((KernelError, AssertionError), match=message):
        for layout in LAYOUTS:
            device.reset()
            check_against_the_expression(device, ("Adam", {}), np.float32, layout)


INT8, STOCHASTIC = "float32, int8 states", "bfloat16, stochastic, bfloat16 states, float16 gradients"
TIES = {"lr": 0.25, "beta": 0.5, "dampening": 0.5, "nesterov": False}  # products are exact
STORED = {
    "no barrier before the shared memory is cleared": (INT8, replaced(r"bar\.sync\s+0;", "", 0), "race: shared memory"),
    "no barrier after it is cleared": (INT8, replaced(r"bar\.sync\s+0;", "", 1), "race: shared memory"),
    "no barrier before the maximum is read": (INT8, replaced(r"bar\.sync\s+0;", "", 2), "race: shared memory"),
    "no maximum over threads": (INT8, replaced(r"atom\.shared\.max.*;", ""), DIFFER),
    "the scale of another block": (INT8, replaced(r"(st\.global\.u16\s+\[%rd\d+)\]", r"\1+2]"), "out of bounds|race"),
    "half is rounded up": ("bfloat16", replaced(r"(add\.s32.*) 32767;", r"\1 32768;"), DIFFER),
    "cut off": ("bfloat16", replaced(r"(add\.s32.*) 32767;", r"\1 0;"), DIFFER),
    "a conversion toward zero": ("float16", replaced(r"cvt\.rn\.f16", "cvt.rz.f16"), r"unknown instruction cvt\.rz"),
    "other random bits": (STOCHASTIC, replaced(r"xor\.b32", "or.b32"), DIFFER),
    "random bits of another step": (STOCHASTIC, replaced(r"mul\.lo\.s32(.*), -?\d+;", r"mul.lo.s32\1, 3;"), DIFFER),
}


@pytest.mark.parametrize("what", STORED)
def test_in_a_storage(what, device):
    storage, change, message = STORED[what]
    hyper = TIES if what == "half is rounded up" else {}
    with device.changed(change), pytest.raises((KernelError, AssertionError), match=message):
        for layout in LAYOUTS:
            device.reset()
            check_against_the_cpu(device, "Momentum", STORAGES[storage], layout, hyper)


def test_in_the_counter_of_steps(device):
    def change(text):
        return replaced(r"(add\.s64.*) 1;", r"\1 2;")(text) if "make_counter" in text else text

    with device.changed(change), pytest.raises(AssertionError):
        check_against_the_expression(device, ("Adam", {}), np.float32, LAYOUTS[0], capturable=True)


def test_without_a_change_there_is_none(device):
    with device.changed(lambda text: text):
        for layout in LAYOUTS:
            device.reset()
            check_against_the_expression(device, ("Adam", {}), np.float32, layout)
