"""Learning-rate schedules: immutable callables of the step number, to be given as `lr` of any optimizer.

A schedule returns the learning rate of update number `step`; the first update is step 1. PyTorch's schedulers and
Optax's schedules count the updates that came before instead. With that count, :math:`t = step - 1`, the formulas of
each docstring are written, so that ``schedule(step)`` is what a scheduler of PyTorch's that is stepped after every
update has set for this update, and what Optax computes from ``count = step - 1``. Whatever counts steps here counts
updates:

- ``steps=1000`` spans 1000 updates. Update 1 has the first value, update 1001 the last one, and so have all that
  follow: no schedule goes on beyond its end or begins anew.
- ``boundaries=[1000]`` changes after 1000 updates: update 1000 is the last of what was, update 1001 the first of what
  follows, which counts its own steps from 1 again.

:class:`warmup` and :class:`sequence` combine schedules, functions of your own, Optax's schedules (of ``step - 1``),
and numbers. Arithmetic is Python's, in float64. Schedules are compared by value, can be pickled, and their
``repr`` is the call that makes them. None of them is a part of ``state_dict()``: give the optimizer that continues a
run the same schedule.

Examples
--------
>>> import numpy as np, fastopt
>>> from fastopt.schedules import cosine, linear, sequence, warmup
>>> opt = fastopt.AdamW(np.zeros(3), lr=warmup(cosine(1e-3, steps=900, end=1e-4), steps=100))
>>> [round(opt.lr(step), 6) for step in (1, 51, 101, 551, 1001, 5000)]
[0.0, 0.0005, 0.001, 0.00055, 0.0001, 0.0001]

Warm-up, a constant rate, and a decay to zero:

>>> stable = warmup(sequence([1e-3, linear(1e-3, 0.0, steps=200)], boundaries=[700]), steps=100)
>>> [round(stable(step), 6) for step in (1, 101, 800, 801, 901, 1001)]
[0.0, 0.001, 0.001, 0.001, 0.0005, 0.0]
"""

from .combined import sequence, warmup
from .constants import constant, piecewise_constant
from .decays import exponential, inverse_sqrt
from .transitions import cosine, linear, one_cycle, polynomial

__all__ = [
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "linear",
    "one_cycle",
    "piecewise_constant",
    "polynomial",
    "sequence",
    "warmup",
]
