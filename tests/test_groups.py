"""Groups of parameters in the engine: one launch, and to each tensor the scalars of its group."""

import numpy as np
import pytest

import fastopt
from fastopt._engine.arrange import Plan, make_groups
from fastopt._engine.gather import Gather

RATES = [0.1, 0.01, 0.5]
GROUP_OF = [0, 2, 1, 1, 0]
SIZES = [5, 9000, 1, 300, 2**16]


def numbers(dtype, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=n).astype(dtype) for n in SIZES]


def grouped(params):
    """Return an optimizer whose plan has groups of parameters, and the plan."""
    opt = fastopt.Adam(params)
    arrays = (opt._structure, opt._arrays, opt._states)
    groups = make_groups(*arrays, opt._codecs, opt._state_names, 0, opt, False, GROUP_OF)
    return opt, groups, Plan(groups, Gather(params, *arrays, groups))


def take(opt, groups, plan, grads, step):
    methods = [fastopt.Adam.with_hyperparameters(lr=lr) for lr in RATES]
    rows = [method.values(step) for method in methods]
    plan.gather(grads)
    for group in groups:
        group.prepare(opt, rows, None)
    plan.run(step)
    plan.release()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_tensor_has_the_bits_of_an_optimizer_with_the_rate_of_its_group(dtype):
    params = numbers(dtype, 0)
    alone = [p.copy() for p in params]
    opt, groups, plan = grouped(params)
    others = [fastopt.Adam(p, lr=RATES[g]) for p, g in zip(alone, GROUP_OF, strict=True)]
    assert len(groups) == 1  # one launch
    for step in (1, 2, 3):
        grads = numbers(dtype, step)
        take(opt, groups, plan, grads, step)
        for other, g in zip(others, grads, strict=True):
            other.step(g)
    for p, q in zip(params, alone, strict=True):
        np.testing.assert_array_equal(p, q)


def test_a_scalar_that_is_too_large_for_one_group_changes_nothing():
    params = numbers(np.float32, 0)
    before = [p.copy() for p in params]
    opt, groups, plan = grouped(params)
    plan.gather(numbers(np.float32, 1))
    rows = [fastopt.Adam.with_hyperparameters(lr=lr).values(1) for lr in (0.1, 1e300, 0.1)]
    with pytest.raises(ValueError, match="too large for float32"):
        groups[0].prepare(opt, rows, None)
    assert all((p == q).all() for p, q in zip(params, before, strict=True))


def test_a_row_for_each_group():
    opt, groups, _ = grouped(numbers(np.float32, 0))
    with pytest.raises(ValueError, match="scalars for 3 groups, got 1"):
        groups[0].prepare(opt, [opt.values(1)], None)


SIMULATED = """
import numpy as np, fastopt
from tests.simulated.device import Device
from tests import test_groups as t

t.SIZES[1:] = [900, 1, 30, 70]
params = t.numbers(np.float32, 0)
alone = [p.copy() for p in params]
opt, groups, plan = t.grouped([Device(p) for p in params])
cpu, cpu_groups, cpu_plan = t.grouped(alone)
for step in (1, 2, 3):
    grads = t.numbers(np.float32, step)
    t.take(opt, groups, plan, [Device(g) for g in grads], step)
    t.take(cpu, cpu_groups, cpu_plan, grads, step)
print(len(groups), all((p == q).all() for p, q in zip(params, alone)))
"""


def test_simulator(run_script):
    assert run_script(SIMULATED, NUMBA_ENABLE_CUDASIM=1, PYTHONPATH=".") == "1 True"
