"""What each optimizer should compute, written from the papers in extended precision; never imports fastopt.

``ORACLES[class name](p, g, states, step, **hyperparameters)`` returns the new parameter and states. Arrays come in any
dtype and are widened to ``numpy.longdouble`` (64 bits of mantissa on x86), so that against float32 and float64 the
answer is as good as exact.
"""

import numpy as np

EXACT = np.longdouble


def _decayed(p, g, lr, weight_decay, decoupled, maximize):
    p, g = p.astype(EXACT), g.astype(EXACT)
    if maximize:
        g = -g
    if weight_decay and decoupled:
        p = p - EXACT(lr) * EXACT(weight_decay) * p
    elif weight_decay:
        g = g + EXACT(weight_decay) * p
    return p, g


def gd(p, g, states, step, lr=1e-2, weight_decay=0.0, decoupled=False, maximize=False):
    p, g = _decayed(p, g, lr, weight_decay, decoupled, maximize)
    return p - EXACT(lr) * g, []


def momentum(
    p, g, states, step, lr=1e-2, beta=0.9, dampening=None, nesterov=False,
    weight_decay=0.0, decoupled=False, maximize=False,
):  # fmt: skip
    p, g = _decayed(p, g, lr, weight_decay, decoupled, maximize)
    (v,) = (s.astype(EXACT) for s in states)
    share = 1 - EXACT(beta if dampening is None else dampening)
    v = EXACT(beta) * v + share * g
    direction = EXACT(beta) * v + share * g if nesterov else v
    return p - EXACT(lr) * direction, [v]


def rmsprop(
    p, g, states, step, lr=1e-2, beta=0.9, eps=0.0, eps_root=1e-8, centered=False, momentum=0.0,
    weight_decay=0.0, decoupled=False, maximize=False,
):  # fmt: skip
    p, g = _decayed(p, g, lr, weight_decay, decoupled, maximize)
    states = [s.astype(EXACT) for s in states]
    beta = EXACT(beta)
    square = beta * states[0] + (1 - beta) * g**2
    new = [square]
    variance = square
    if centered:
        mean = beta * states[1] + (1 - beta) * g
        new.append(mean)
        variance = np.maximum(square - mean**2, 0)
    update = g / (np.sqrt(variance + EXACT(eps_root)) + EXACT(eps))
    if momentum:
        update = EXACT(momentum) * states[-1] + update
        new.append(update)
    return p - EXACT(lr) * update, new


def adam(
    p, g, states, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, eps_root=0.0, eps_hat=0.0,
    weight_decay=0.0, decoupled=False, maximize=False,
):  # fmt: skip
    p, g = _decayed(p, g, lr, weight_decay, decoupled, maximize)
    m, v = (s.astype(EXACT) for s in states)
    beta1, beta2 = map(EXACT, betas)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    denominator = np.sqrt(v_hat + EXACT(eps_root)) + EXACT(eps) + EXACT(eps_hat) / np.sqrt(1 - beta2**step)
    return p - EXACT(lr) * m_hat / denominator, [m, v]


def adamw(p, g, states, step, weight_decay=1e-2, decoupled=True, **rest):
    return adam(p, g, states, step, weight_decay=weight_decay, decoupled=decoupled, **rest)


ORACLES = {"GD": gd, "Momentum": momentum, "RMSprop": rmsprop, "Adam": adam, "AdamW": adamw}


def errors(actual, exact, scale):
    """Return the error of each element in units of the dtype's rounding error at the magnitude `scale`."""
    unit = np.finfo(actual.dtype).eps / 2 * np.maximum(scale, np.finfo(actual.dtype).smallest_normal)
    return np.abs(actual.astype(EXACT) - exact) / unit
