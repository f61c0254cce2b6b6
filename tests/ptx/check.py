"""Steps on the stand-in for a device, and how results are compared with the CPU's and with NumPy's expressions."""

from types import MappingProxyType
from typing import NamedTuple

import ml_dtypes
import numpy as np

import fastopt
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._storage.int8 import BLOCK

from ..cases import dtype_of, make, random
from ..expressions import expression
from ..oracles import has_norms
from .device import arrays_of, host

#: What storages are tried with. On a GPU no operations are fused; where they are not on the CPU, the bits are the same.
SETTINGS = {name: {"reproducible": True} for name in OPTIMIZERS}
SETTINGS["GD"] |= {"weight_decay": 0.1, "maximize": True}
SETTINGS["Momentum"] |= {"nesterov": True}
SETTINGS["RMSprop"] |= {"momentum": 0.9}
SETTINGS["SignSGD"] |= {"momentum": 0.9}  # with a state, so that it has every storage
SETTINGS["AdamW"] |= {"grad_scale": 3.0, "clip_value": 0.5}
#: Of what is rounded at random: of more than 32 bits.
SEED = 2**40 + 5


def raw(array):
    """Return an array that NumPy itself has the dtype of."""
    return array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array


def assert_same(ours, theirs, nan):
    """Compare bits, but for those of elements that are NaN on both sides, of which there are many."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    bits = f"u{ours.itemsize}"
    differ = np.flatnonzero((np.ascontiguousarray(ours).view(bits) != np.ascontiguousarray(theirs).view(bits)) & ~nan)
    assert not differ.size, (
        f"{differ.size} of {ours.size} differ, first at {differ[:4]}: {ours.flat[differ[:4]]} on the device, "
        f"{theirs.flat[differ[:4]]} on the CPU"
    )


def assert_like_the_cpu(params, opt, twins, cpu):
    """Compare all arrays that steps write: parameters on the device and their twins, and the states of both."""
    for param, twin in zip(params, twins, strict=True):
        ours = param.array.view(twin.dtype)
        nan = np.isnan(twin.astype("f8"))
        np.testing.assert_array_equal(np.isnan(ours.astype("f8")), nan)
        assert_same(raw(ours), raw(twin), nan)
    missing = {}
    for name in opt.active_states():
        pairs = list(zip(opt.decoded(name), cpu.decoded(name), strict=True))
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)  # NaN where the other has NaN
        missing[name] = [np.isnan(theirs) for _, theirs in pairs]
    for (name, row), own in zip(cpu._states.items(), arrays_of(opt), strict=True):
        for t, (theirs, ours) in enumerate(zip(row, own, strict=True)):
            if theirs is not None:
                nan = missing[name][t] if name in missing else np.zeros(theirs.shape, bool)
                assert_same(raw(ours), raw(theirs), nan)


def assert_like_the_expression(case, old, grad, new, step):
    """Compare the parameter and the states of one tensor after a step from `old` with NumPy's expression."""
    name, kwargs = case
    for ours, right in zip(new, expression(name, old[0], grad, old[1:], step, **kwargs), strict=True):
        nan = np.isnan(right)
        np.testing.assert_array_equal(np.isnan(ours), nan)
        assert_same(ours, right, nan)


def snapshot(params, opt):
    """Return copies of the parameter and the states of each tensor."""
    rows = [[host(p) for p in params], *arrays_of(opt)]
    return [[a.copy() for a in tensor] for tensor in zip(*rows, strict=True)]


class Layout(NamedTuple):
    """Sizes of the tensors, by how many elements they and the gradients are moved, and how blocks are executed."""

    sizes: list
    shift: int = 0
    grad_shift: int = 0
    blocks: int = 2
    reverse: bool = False


LAYOUTS = [
    Layout([1], blocks=1),
    Layout([7, 0, 1], shift=1),
    Layout([BLOCK + 1, 0, 33], grad_shift=1, reverse=True),
    Layout([BLOCK - 1, (64, 17)], shift=2, grad_shift=2, blocks=3),
    Layout([4 * BLOCK + BLOCK + 3, BLOCK + 3], reverse=True),
]


def gradients(layout, kind, step):
    """Return gradients; in step 2 with NaN and infinities, in step 3 much larger, but for a block of zeros."""
    grads = []
    for t, shape in enumerate(layout.sizes):
        g = random(shape, np.float64, 10 * step + t, zeros=step != 3 and shape not in (1, 7))
        if step == 2 and g.size > 3:
            g.flat[[1, 2, -1]] = np.nan, np.inf, -np.inf
        elif step == 3:
            g *= 1e3
            g.flat[:BLOCK] *= g.size < BLOCK
        with np.errstate(over="ignore"):
            grads.append(g.astype(kind))
    return grads


def start(device, layout, kind):
    """Return parameters on the device, and their twins."""
    device.blocks, device.reverse = layout.blocks, layout.reverse
    twins = [random(shape, np.float64, t + 1, zeros=shape != 1).astype(kind) for t, shape in enumerate(layout.sizes)]
    return [device.array(raw(p), f"params[{t}]", layout.shift) for t, p in enumerate(twins)], twins


def send(device, layout, grads):
    return [device.array(raw(g), f"grads[{t}]", layout.grad_shift, writable=False) for t, g in enumerate(grads)]


def check_against_the_expression(device, case, dtype, layout, **more):
    """Take three steps, each from what the one before left."""
    name, kwargs = case
    params, twins = start(device, layout, dtype)
    opt = getattr(fastopt, name)(list(params), **kwargs, **more)
    cpu = make(case, twins)
    for step in (1, 2, 3):
        old, grads = snapshot(params, opt), gradients(layout, dtype, step)
        opt.step(send(device, layout, grads))
        for t, new in enumerate(snapshot(params, opt)):
            assert_like_the_expression(case, old[t], grads[t], new, step)
        with np.errstate(all="ignore"):
            cpu.step(grads)
        assert_like_the_cpu(params, opt, twins, cpu)
    assert opt.step_count == 3
    # Three kernels of norms come before the update.
    assert device.launches == 3 * (1 + opt.capturable + 3 * has_norms(name, **kwargs))


def check_against_the_cpu(device, name, storage, layout, hyper=MappingProxyType({}), **more):
    """Take four steps in a storage, with hyperparameters beside the settings, and what is for the device alone."""
    params, twins = start(device, layout, dtype_of(storage.param))
    kwargs, grad = SETTINGS[name] | storage.options | {"seed": SEED} | hyper, dtype_of(storage.grad)
    opt = getattr(fastopt, name)(list(params), **kwargs, **more)
    cpu = getattr(fastopt, name)(twins, **kwargs)
    for step in (1, 2, 3, 4):
        grads = gradients(layout, grad, step)
        opt.step(send(device, layout, grads))
        with np.errstate(all="ignore"):
            cpu.step(grads)
        assert_like_the_cpu(params, opt, twins, cpu)
    assert device.launches == 4 * (1 + opt.capturable + 3 * has_norms(name, **hyper))
