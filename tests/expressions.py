"""What each optimizer computes to the last bit, as NumPy expressions in the compute dtype; never imports fastopt.

Each operation is rounded by itself as IEEE 754 says, in the order that is written here. Scalars are worked out in
float64 and rounded once. Where :mod:`tests.oracles` says what is right and how far rounding may lead from it, this says
what the roundings are.
"""

import math
from decimal import Context, Decimal
from types import SimpleNamespace

import numpy as np

from .oracles import ORACLES, OWN_DECAY


def power(base, exponent):
    """Return the float64 nearest to a power."""
    return float(Context(prec=80).power(Decimal(base), exponent))


def gd(h, f, p, g):
    return [p - f(h.lr) * g]


def momentum(h, f, p, g, v):
    beta, gain = f(h.beta), f(1 - (h.beta if h.dampening is None else h.dampening))
    v = beta * v + gain * g
    return [p - f(h.lr) * (beta * v + gain * g if h.nesterov else v), v]


def rmsprop(h, f, p, g, s, *more):
    beta, gain = f(h.beta), f(1 - h.beta)
    s = beta * s + gain * (g * g)
    variance, new = s, [s]
    if h.centered:
        mu = beta * more[0] + gain * g
        variance = np.maximum(s - mu * mu, f(0))
        new.append(mu)
    update = g / (np.sqrt(variance + f(h.eps_root)) + f(h.eps))
    if h.momentum:
        update = f(h.momentum) * more[-1] + update
        new.append(update)
    return [p - f(h.lr) * update, *new]


def adam(h, f, p, g, m, v, *more):
    beta1, beta2 = h.betas
    correction1, correction2 = 1 - power(beta1, h.step), 1 - power(beta2, h.step)
    m = f(beta1) * m + f(1 - beta1) * g
    v = f(beta2) * v + f(1 - beta2) * (g * g)
    new = [m, v, np.maximum(more[0], v)] if h.amsgrad else [m, v]
    root = np.sqrt(f(1 / correction2) * new[-1] + f(h.eps_root))
    u = f(h.lr / correction1) * m / (root + f(h.eps + h.eps_hat / math.sqrt(correction2)))
    return [p - (cautious(f, u, m, g) if h.cautious else u), *new]


def cautious(f, u, m, g):
    mask = np.maximum(np.sign(m) * np.sign(g), f(0))
    every, kept = (f(np.sqrt(sum_of_squares(x))) for x in (np.ones_like(g), mask))
    return every * every / (kept * kept + f(1)) * (mask * u)


def lion(h, f, p, g, m):
    beta1, beta2 = h.betas
    update = f(h.lr) * np.sign(f(beta1) * m + f(1 - beta1) * g)
    update = cautious(f, update, update, g) if h.cautious else update
    return [p - update, f(beta2) * m + f(1 - beta2) * g]


def adagrad(h, f, p, g, s):
    s = s + g * g
    return [p - f(h.lr) * g / (np.sqrt(s + f(h.eps_root)) + f(h.eps)), s]


def nadam(h, f, p, g, m, v):
    beta1, beta2 = h.betas
    m = f(beta1) * m + f(1 - beta1) * g
    v = f(beta2) * v + f(1 - beta2) * (g * g)
    m_bar = f(beta1 / (1 - power(beta1, h.step + 1))) * m + f((1 - beta1) / (1 - power(beta1, h.step))) * g
    root = np.sqrt(f(1 / (1 - power(beta2, h.step))) * v + f(h.eps_root))
    return [p - f(h.lr) * m_bar / (root + f(h.eps)), m, v]


def adamax(h, f, p, g, m, u):
    beta1, beta2 = h.betas
    m = f(beta1) * m + f(1 - beta1) * g
    u = np.maximum(f(beta2) * u, np.abs(g) + f(h.eps))
    return [p - f(h.lr / (1 - power(beta1, h.step))) * m / u, m, u]


def adadelta(h, f, p, g, s, u):
    rho, gain, eps = f(h.rho), f(1 - h.rho), f(h.eps_root)
    s = rho * s + gain * (g * g)
    update = np.sqrt((u + eps) / (s + eps)) * g
    return [p - f(h.lr) * update, s, rho * u + gain * (update * update)]


def radam(h, f, p, g, m, v):
    beta1, beta2 = h.betas
    decayed = power(beta2, h.step)
    correction1, correction2 = 1 - power(beta1, h.step), 1 - decayed
    m = f(beta1) * m + f(1 - beta1) * g
    v = f(beta2) * v + f(1 - beta2) * (g * g)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * h.step * decayed / correction2
    if length <= 5:
        return [p - f(h.lr / correction1) * m, m, v]
    r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    root = np.sqrt(f(1 / correction2) * v + f(h.eps_root)) + f(h.eps + h.eps_hat / math.sqrt(correction2))
    return [p - f(h.lr / correction1) * m * (f(r) / root), m, v]


def signsgd(h, f, p, g, *m):
    if not h.momentum:
        return [p - f(h.lr) * np.sign(g)]
    average = f(h.momentum) * m[0] + f(1 - h.momentum) * g
    return [p - f(h.lr) * np.sign(average), average]


def yogi(h, f, p, g, m, v):
    beta1, beta2 = h.betas
    m = f(beta1) * m + f(1 - beta1) * g
    v = v - f(1 - beta2) * np.sign(v - g * g) * (g * g)
    root = np.sqrt(f(1 / (1 - power(beta2, h.step))) * v + f(h.eps_root))
    return [p - f(h.lr / (1 - power(beta1, h.step))) * m / (root + f(h.eps)), m, v]


def adabelief(h, f, p, g, m, v):
    beta1, beta2 = h.betas
    m = f(beta1) * m + f(1 - beta1) * g
    v = f(beta2) * v + f(1 - beta2) * ((g - m) * (g - m)) + f(h.eps_root)
    root = np.sqrt(f(1 / (1 - power(beta2, h.step))) * v)
    return [p - f(h.lr / (1 - power(beta1, h.step))) * m / (root + f(h.eps)), m, v]


def adan(h, f, p, g, m, v, n, last):
    beta1, beta2 = h.betas
    d = f(h.step > 1) * (g - last)
    ahead = g + f(beta2) * d
    m = f(beta1) * m + f(1 - beta1) * g
    v = f(beta2) * v + f(1 - beta2) * d
    n = f(h.beta3) * n + f(1 - h.beta3) * (ahead * ahead)
    part_m, part_v = h.lr / (1 - power(beta1, h.step)), h.lr * beta2 / (1 - power(beta2, h.step))
    root = np.sqrt(f(1 / (1 - power(h.beta3, h.step))) * n + f(h.eps_root))
    return [p - (f(part_m) * m + f(part_v) * v) / (root + f(h.eps)), m, v, n, g]


def adopt(h, f, p, g, m, v):
    (beta1, beta2), eps = h.betas, h.eps
    if h.step == 1:
        beta2, eps = 0.0, 1.0
    bound = f(math.sqrt(math.sqrt(h.step - 1)))
    u = np.minimum(np.maximum(g / np.maximum(np.sqrt(v), f(eps)), -bound), bound)
    m = f(beta1) * m + f(1 - beta1) * u
    return [p - f(h.lr) * m, m, f(beta2) * v + f(1 - beta2) * (g * g)]


def ademamix(h, f, p, g, m1, m2, v):
    beta1, beta2 = h.betas
    beta3, gain3, part2 = h.beta3, 1 - h.beta3, h.lr * h.alpha
    if h.step < h.alpha_warmup:
        part2 *= h.step / h.alpha_warmup
    if h.step < h.beta3_warmup:
        first, last = 1 / (1 - beta1), 1 / (1 - beta3)
        gain3 = 1 / (first + (last - first) * (h.step / h.beta3_warmup))
        beta3 = 1 - gain3
    m1 = f(beta1) * m1 + f(1 - beta1) * g
    m2 = f(beta3) * m2 + f(gain3) * g
    v = f(beta2) * v + f(1 - beta2) * (g * g)
    root = np.sqrt(f(1 / (1 - power(beta2, h.step))) * v + f(h.eps_root)) + f(h.eps)
    return [p - (f(h.lr / (1 - power(beta1, h.step))) * m1 + f(part2) * m2) / root, m1, m2, v]


def schedulefree(h, f, beta, p, u, d):
    near = 1 / h.step
    far = beta * (1 - near)
    left = 1 - h.lr * h.weight_decay
    taken = h.lr * h.weight_decay / left if h.decoupled and left else 0.0
    pull = f(far * taken) * p
    return [p + f(near) * d - f(h.lr * (1 - far)) * u + pull, f(1 - near) * d - f(h.lr * far) * u - pull]


def schedulefreesgd(h, f, p, g, d):
    return schedulefree(h, f, h.beta, p, g, d)


def schedulefreeadamw(h, f, p, g, d, v):
    beta, beta2 = h.betas
    v = f(beta2) * v + f(1 - beta2) * (g * g)
    root = np.sqrt(f(1 / (1 - power(beta2, h.step))) * v + f(h.eps_root))
    return [*schedulefree(h, f, beta, p, g / (root + f(h.eps)), d), v]


def sum_of_squares(x):
    """Return the sum of squares of an array in the order of lanes and chunks that is promised, a chunk at a time."""
    lanes_of_chunk, longest = 256, 4096

    def in_lanes(terms):
        lanes = np.zeros(lanes_of_chunk)
        for start in range(0, len(terms), lanes_of_chunk):
            row = terms[start : start + lanes_of_chunk]
            lanes[: len(row)] += row
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = lanes[:half] + lanes[half:]
        return lanes[0]

    wide = x.ravel("K").astype(np.float64)
    return in_lanes(np.array([in_lanes(wide[k : k + longest] ** 2) for k in range(0, len(wide), longest)]))


def trust(f, size, change, coefficient=1, eps=0):
    return f(1) if size == 0 or change == 0 else f(coefficient) * size / (change + f(eps))


def lars(h, f, p, g, v):
    size, change = (f(np.sqrt(sum_of_squares(x))) for x in (p, g))
    u = f(h.lr) * trust(f, size, change, h.trust, h.eps) * g
    v = f(h.beta) * v + u
    return [p - (f(h.beta) * v + u if h.nesterov else v), v]


def lamb(h, f, p, g, m, v):
    beta1, beta2 = h.betas
    m = f(beta1) * m + f(1 - beta1) * g
    v = f(beta2) * v + f(1 - beta2) * (g * g)
    root = np.sqrt(f(1 / (1 - power(beta2, h.step))) * v + f(h.eps_root))
    u = f(1 / (1 - power(beta1, h.step))) * m / (root + f(h.eps))
    u = u + f(h.weight_decay if h.decoupled else 0) * p
    size, change = (f(np.sqrt(sum_of_squares(x))) for x in (p, u))
    return [p - f(h.lr) * trust(f, size, change) * u, m, v]


EXPRESSIONS = {
    "GD": gd,
    "Momentum": momentum,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adam,
    "Lion": lion,
    "Adagrad": adagrad,
    "NAdam": nadam,
    "Adamax": adamax,
    "Adadelta": adadelta,
    "RAdam": radam,
    "SignSGD": signsgd,
    "Yogi": yogi,
    "AdaBelief": adabelief,
    "Adan": adan,
    "ADOPT": adopt,
    "AdEMAMix": ademamix,
    "ScheduleFreeSGD": schedulefreesgd,
    "ScheduleFreeAdamW": schedulefreeadamw,
    "LARS": lars,
    "LAMB": lamb,
}


def expression(name, p, g, states, step, **hyperparameters):
    """Return the parameter and the states after a step, all given in the compute dtype."""
    defaults = ORACLES[name][1]
    assert hyperparameters.keys() <= defaults.keys()
    chosen = {k: v(step) if callable(v) else v for k, v in (defaults | hyperparameters).items()}
    h = SimpleNamespace(**chosen, step=step)
    f = p.dtype.type
    with np.errstate(all="ignore"):
        if h.maximize:
            g = -g
        if h.weight_decay and h.decoupled and name not in OWN_DECAY:
            p = f(1 - h.lr * h.weight_decay) * p
        elif h.weight_decay and not h.decoupled:
            g = g + f(h.weight_decay) * p
        p, *states = EXPRESSIONS[name](h, f, p, g, *states)
        small = np.finfo(f).smallest_normal  # states are stored as 0 below it
        return [p, *(np.where(np.abs(a) < small, np.copysign(f(0), a), a) for a in states)]
