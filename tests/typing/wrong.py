"""What users get wrong: a type checker refuses every line that has a comment, and Python too when the line runs."""

from __future__ import annotations

import numpy as np

import fastopt
from fastopt.rules import betas, decay, flag, rate, state

p = np.ones(3, np.float32)
g, m, v = p.copy(), p.copy(), p.copy()
opt = fastopt.Adam(np.ones(3))
momentum = fastopt.Momentum([np.ones(3)])

fastopt.Adam()  # type: ignore[call-arg]
fastopt.Adam("p")  # type: ignore[arg-type]
fastopt.Adam(1.0)  # type: ignore[arg-type]
fastopt.Adam([1.0, 2.0])  # type: ignore[list-item]
fastopt.Adam({1: p})  # type: ignore[arg-type]
fastopt.Adam(p, "x")  # type: ignore[arg-type]
fastopt.Adam(p, lr="x")  # type: ignore[arg-type]
fastopt.Adam(p, lr=None)  # type: ignore[arg-type]
fastopt.Adam(p, 0.1, (0.9, 0.99))  # type: ignore[call-arg,arg-type]
fastopt.Adam(p, learning_rate=0.1)  # type: ignore[call-arg]
fastopt.Adam(p, m=m)  # type: ignore[call-arg]
fastopt.Adam(p, step=1)  # type: ignore[call-arg]
fastopt.Adam(p, betas=0.9)  # type: ignore[arg-type]
fastopt.Adam(p, betas=(0.9,))  # type: ignore[arg-type]
fastopt.Adam(p, betas=("0.9", "0.99"))  # type: ignore[arg-type]
fastopt.Adam(p, eps="1e-8")  # type: ignore[arg-type]
fastopt.Adam(p, nesterov=True)  # type: ignore[call-arg]
fastopt.AdamW(p, weight_decay=None)  # type: ignore[arg-type]
fastopt.AdamW(p, decoupled="yes")  # type: ignore[arg-type]
fastopt.GD(p, maximize=1)  # type: ignore[arg-type]
fastopt.GD(p, reproducible="no")  # type: ignore[arg-type]
fastopt.GD(p, beta=0.9)  # type: ignore[call-arg]
fastopt.GD(p, rounding="up")  # type: ignore[arg-type]
fastopt.GD(p, master="split4")  # type: ignore[arg-type]
fastopt.GD(p, seed="1")  # type: ignore[arg-type]
fastopt.Adam(p, state_dtype="int9")  # type: ignore[arg-type]
fastopt.Momentum(p, nesterov=1)  # type: ignore[arg-type]
fastopt.Momentum(p, nesterov="yes")  # type: ignore[arg-type]
fastopt.Momentum(p, beta=None)  # type: ignore[arg-type]
fastopt.Momentum(p, dampening="none")  # type: ignore[arg-type]
fastopt.RMSprop(p, centered=0.5)  # type: ignore[arg-type]
fastopt.RMSprop(p, momentum=(0.9, 0.99))  # type: ignore[arg-type]

opt.lr = "x"  # type: ignore[assignment]
opt.betas = 0.9  # type: ignore[assignment]
opt.learning_rate = 0.1  # type: ignore[attr-defined]
opt.params = p  # type: ignore[misc]
opt.rounding = "stochastic"  # type: ignore[misc]
opt.capturable = True  # type: ignore[misc]
opt.state = {}  # type: ignore[misc]
opt.step_count = "1"  # type: ignore[assignment]
momentum.nesterov = "yes"  # type: ignore[assignment]
repr(opt.nesterov)  # type: ignore[attr-defined]
opt.step("g")  # type: ignore[arg-type]
opt.step(g, 1)  # type: ignore[call-arg]
opt.bind(None)  # type: ignore[arg-type]
momentum.step([None])  # type: ignore[list-item]
opt.decoded(1)  # type: ignore[arg-type]
opt.load_state_dict("adam.npz")  # type: ignore[arg-type]

fastopt.adam(p, g, m, v)  # type: ignore[call-arg]
fastopt.adam(p)  # type: ignore[call-arg]
fastopt.adam(p, g, m, v, step=1, lr="x")  # type: ignore[arg-type]
fastopt.adam(p, g, m, v, step="1")  # type: ignore[arg-type]
fastopt.adam(p, g, m, [0.0] * 3, step=1)  # type: ignore[arg-type]
fastopt.adam(p, g, m, v, step=1, betas="x")  # type: ignore[arg-type]
fastopt.gd(p, g, lr=lambda step: 0.1)  # type: ignore[arg-type]
fastopt.gd(p, g, weight_decay="x")  # type: ignore[arg-type]
fastopt.gd(p, g, maximize=1)  # type: ignore[arg-type]
fastopt.gd(p, g, rounding="kahan", step=1)  # type: ignore[arg-type]
fastopt.gd(p, "g")  # type: ignore[arg-type]
fastopt.momentum("p", g, v)  # type: ignore[type-var]

fastopt.jitable(fastopt.Adam, lr=0.1)  # type: ignore[call-arg]
fastopt.jitable(fastopt.Adam, 0.1)  # type: ignore[call-arg]
fastopt.jitable(fastopt.Adam, betas=0.9)  # type: ignore[arg-type]
fastopt.jitable(fastopt.Adam, nesterov=True)  # type: ignore[call-arg]
fastopt.jitable(fastopt.adam)  # type: ignore[arg-type]
fastopt.jitable(fastopt.GD)(p, g, "1", 0.1)  # type: ignore[arg-type]
fastopt.jitable(fastopt.GD)(p, g, 1)  # type: ignore[call-arg]
fastopt.as_function(3)  # type: ignore[call-overload]
fastopt.minimize(lambda x: x**2, 1.0)  # type: ignore[call-arg]
fastopt.minimize(lambda x: x**2, 1.0, grad=lambda x: 2 * x, optimizer=fastopt.adam)  # type: ignore[arg-type]
fastopt.conventions["torch"] = {}  # type: ignore[index]

rate()  # type: ignore[call-arg]
decay()  # type: ignore[call-arg]
betas((0.9, 0.99))  # type: ignore[call-arg,arg-type]
flag()  # type: ignore[call-arg]
state(nonnegativ=True)  # type: ignore[call-arg]
