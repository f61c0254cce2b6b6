"""The benchmarks. Importing this fails if something public has none."""

import fastopt

from .common import OPTIMIZERS

_COVERED = {
    "LossScaler": "a step, and a few numbers",
    "MinimizeResult": "overhead.Minimize",
    "as_function": "overhead.Function",
    "Optimizer": "step.Step",
    "conventions": "a table of constants",
    "info": "overhead.Info",
    "jitable": "overhead.Jitable",
    "minimize": "overhead.Minimize",
}
_COVERED |= dict.fromkeys(OPTIMIZERS, "step.Step")
_COVERED |= {name.lower(): "overhead.Function" for name in OPTIMIZERS}

_missing = set(fastopt.__all__) - set(_COVERED)
if _missing:
    raise ImportError(f"public, but without a benchmark: {sorted(_missing)}")
