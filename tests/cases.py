"""One entry per configuration that is tested: (class name, keyword arguments).

A new optimizer needs its equation in oracles.py and its entries here; every test that runs over optimizers runs over
this list.
"""

import numpy as np

import fastopt

CASES = [
    ("GD", {}),
    ("GD", {"lr": 0.5, "maximize": True}),
    ("GD", {"weight_decay": 0.1}),
    ("GD", {"weight_decay": 0.1, "decoupled": True}),
    ("Momentum", {}),
    ("Momentum", {"beta": 0.5, "dampening": 0.0}),
    ("Momentum", {"dampening": 0.3, "nesterov": True}),
    ("Momentum", {"nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"beta": 0.99, "eps": 1e-6, "eps_root": 0.0}),
    ("RMSprop", {"centered": True, "eps_root": 1e-3}),
    ("RMSprop", {"momentum": 0.9}),
    (
        "RMSprop",
        {"centered": True, "momentum": 0.5, "eps_root": 1e-3, "weight_decay": 0.1, "decoupled": True},
    ),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 0.0, "eps_root": 1e-8}),
    ("Adam", {"eps": 0.0, "eps_hat": 1e-7}),
    ("Adam", {"weight_decay": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5, "eps": 1e-3}),
]
DTYPES = [np.float32, np.float64]


def name_of(case):
    name, kwargs = case
    return "-".join([name, *(f"{k}={v}" for k, v in kwargs.items())])


def make(case, params):
    name, kwargs = case
    return getattr(fastopt, name)(params, **kwargs)


def random(shape, dtype, seed=0, zeros=True):
    """Return normal numbers, some of them zero."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=shape).astype(dtype)
    if zeros and a.size:
        a.flat[:: max(7, a.size // 100)] = 0
    return a
