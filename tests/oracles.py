"""What each optimizer should compute, and how far rounding may lead from it; never imports fastopt.

``answer(class name, p, g, states, step, **hyperparameters)`` returns the new parameter and states, computed by
the equations of the papers in ``numpy.longdouble`` (64 bits of mantissa on x86): beside float32 and float64 as
good as exact. Each comes with a bound on the error, so no test needs a tolerance of its own.
"""

from types import SimpleNamespace

import numpy as np

EXACT = np.longdouble


class Exact(np.lib.mixins.NDArrayOperatorsMixin):
    """A value, and how far off it may be where each operation on the way to it was rounded to `dtype`.

    This is a running error analysis (N. Higham, "Accuracy and stability of numerical algorithms", 3.3): an
    operation passes on what its operands are off, and adds half a unit in the last place of its result, or half
    the smallest subnormal number. A float64 scalar that meets a float32 array is rounded to float32 first. The
    dtype None is that of whole numbers, which are exact.
    """

    def __init__(self, value, dtype=None, error=0.0):
        self.value, self.dtype = np.asarray(value, EXACT), dtype
        self.error = np.asarray(error, EXACT)

    def __bool__(self):
        return bool(self.value)

    def __array_ufunc__(self, ufunc, method, *operands):
        operands = [x if isinstance(x, Exact) else Exact(x) for x in operands]
        sizes = [x.dtype.itemsize for x in operands if x.dtype is not None]
        dtype = np.dtype(f"f{min(sizes)}") if sizes else None
        operands = [x if x.dtype is None or x.dtype == dtype else x.rounded(dtype) for x in operands]
        with np.errstate(all="ignore"):
            value = ufunc(*(x.value for x in operands))
            result = Exact(value, dtype, PASSED_ON[ufunc](np.abs(value), *operands))
            return result.rounded(dtype) if dtype and ufunc not in UNROUNDED else result

    def rounded(self, dtype):
        info = np.finfo(dtype)
        half = EXACT(info.eps) / 2 * (np.abs(self.value) + self.error)
        return Exact(self.value, dtype, self.error + np.maximum(half, EXACT(info.smallest_subnormal) / 2))

    def excess(self, actual):
        """Return the error of each element of `actual` in units of what it may be; NaN and inf must agree."""
        same = (actual == self.value) | (np.isnan(actual) & np.isnan(self.value))
        unknown = np.isfinite(self.value) & ~np.isfinite(self.error)  # such as a quotient of two underflows
        with np.errstate(invalid="ignore"):
            return np.where(same | unknown, 0, np.abs(actual - self.value) / self.error)


# By ufunc: how far off its result r is, given operands that are off, without its own rounding.
PASSED_ON = {
    np.add: lambda r, x, y: x.error + y.error,
    np.subtract: lambda r, x, y: x.error + y.error,
    np.negative: lambda r, x: x.error,
    np.absolute: lambda r, x: x.error,
    np.sign: lambda r, x: np.where((np.abs(x.value) > x.error) | (x.error == 0), 0, 2),
    np.maximum: lambda r, x, y: np.maximum(x.error, y.error),
    np.minimum: lambda r, x, y: np.maximum(x.error, y.error),
    np.multiply: lambda r, x, y: np.abs(x.value) * y.error + (np.abs(y.value) + y.error) * x.error,
    np.divide: lambda r, x, y: (x.error + r * y.error) / np.maximum(np.abs(y.value) - y.error, 0),
    np.power: lambda r, x, n: (np.abs(x.value) + x.error) ** n.value - r,
    np.sqrt: lambda r, x: np.fmin(x.error / r, np.sqrt(x.error)),
}
UNROUNDED = (np.negative, np.absolute, np.sign, np.maximum, np.minimum)


def gd(h, p, g):
    return [p - h.lr * g]


def momentum(h, p, g, v):
    gain = 1 - (h.beta if h.dampening is None else h.dampening)
    v = h.beta * v + gain * g
    direction = h.beta * v + gain * g if h.nesterov else v
    return [p - h.lr * direction, v]


def rmsprop(h, p, g, s, *more):
    s = h.beta * s + (1 - h.beta) * g**2
    variance, new = s, [s]
    if h.centered:
        mu = h.beta * more[0] + (1 - h.beta) * g
        variance = np.maximum(s - mu**2, 0)
        new.append(mu)
    update = g / (np.sqrt(variance + h.eps_root) + h.eps)
    if h.momentum:
        update = h.momentum * more[-1] + update
        new.append(update)
    return [p - h.lr * update, *new]


def adam(h, p, g, m, v, *more):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    new, correction1, correction2 = [m, v], 1 - beta1**h.step, 1 - beta2**h.step
    if h.amsgrad:
        new.append(np.maximum(more[0], v))
    m_hat, v_hat = m / correction1, new[-1] / correction2
    u = h.lr * m_hat / (np.sqrt(v_hat + h.eps_root) + (h.eps + h.eps_hat / np.sqrt(correction2)))
    return [p - (cautious(u, m, g) if h.cautious else u), *new]


def cautious(u, m, g):
    """Return a change as a cautious optimizer makes it, given what has its sign."""
    mask = np.maximum(np.sign(m) * np.sign(g), 0)
    every, kept = norm(Exact(np.ones_like(g.value), g.dtype)), norm(mask)
    return every * every / (kept * kept + 1) * (mask * u)


def lion(h, p, g, m):
    beta1, beta2 = h.betas
    update = np.sign(beta1 * m + (1 - beta1) * g)
    update = cautious(update, update, g) if h.cautious else update
    return [p - h.lr * update, beta2 * m + (1 - beta2) * g]


def adagrad(h, p, g, s):
    s = s + g**2
    return [p - h.lr * g / (np.sqrt(s + h.eps_root) + h.eps), s]


def nadam(h, p, g, m, v):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_bar = beta1 * m / (1 - beta1 ** (h.step + 1)) + (1 - beta1) * g / (1 - beta1**h.step)
    v_hat = v / (1 - beta2**h.step)
    return [p - h.lr * m_bar / (np.sqrt(v_hat + h.eps_root) + h.eps), m, v]


def adamax(h, p, g, m, u):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    u = np.maximum(beta2 * u, np.abs(g) + h.eps)
    return [p - h.lr / (1 - beta1**h.step) * m / u, m, u]


def adadelta(h, p, g, s, u):
    s = h.rho * s + (1 - h.rho) * g**2
    update = np.sqrt(u + h.eps_root) / np.sqrt(s + h.eps_root) * g
    return [p - h.lr * update, s, h.rho * u + (1 - h.rho) * update**2]


def radam(h, p, g, m, v):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    correction2 = 1 - beta2**h.step
    m_hat, v_hat = m / (1 - beta1**h.step), v / correction2
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * h.step * beta2**h.step / correction2
    if length.value <= 5:
        return [p - h.lr * m_hat, m, v]
    r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return [p - h.lr * r * m_hat / (np.sqrt(v_hat + h.eps_root) + (h.eps + h.eps_hat / np.sqrt(correction2))), m, v]


def signsgd(h, p, g, *m):
    m = [h.momentum * m[0] + (1 - h.momentum) * g] if h.momentum else []
    return [p - h.lr * np.sign(m[0] if m else g), *m]


def yogi(h, p, g, m, v):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    v = v - (1 - beta2) * np.sign(v - g**2) * g**2
    m_hat, v_hat = m / (1 - beta1**h.step), v / (1 - beta2**h.step)
    return [p - h.lr * m_hat / (np.sqrt(v_hat + h.eps_root) + h.eps), m, v]


def adabelief(h, p, g, m, v):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g - m) ** 2 + h.eps_root
    m_hat, v_hat = m / (1 - beta1**h.step), v / (1 - beta2**h.step)
    return [p - h.lr * m_hat / (np.sqrt(v_hat) + h.eps), m, v]


def adan(h, p, g, m, v, n, last):
    beta1, beta2 = h.betas
    d = (h.step > 1) * (g - last)  # NaN, not 0, where the first gradient is infinite
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * d
    n = h.beta3 * n + (1 - h.beta3) * (g + beta2 * d) ** 2
    m_hat, v_hat, n_hat = m / (1 - beta1**h.step), v / (1 - beta2**h.step), n / (1 - h.beta3**h.step)
    return [p - h.lr * (m_hat + beta2 * v_hat) / (np.sqrt(n_hat + h.eps_root) + h.eps), m, v, n, g]


def adopt(h, p, g, m, v):
    (beta1, beta2), eps = h.betas, h.eps
    if h.step == 1:
        beta2, eps = _number(0.0, 1), _number(1.0, 1)
    bound = (h.step - 1) ** _number(0.25, h.step)
    u = np.minimum(np.maximum(g / np.maximum(np.sqrt(v), eps), -bound), bound)
    m = beta1 * m + (1 - beta1) * u
    return [p - h.lr * m, m, beta2 * v + (1 - beta2) * g**2]


def ademamix(h, p, g, m1, m2, v):
    (beta1, beta2), beta3, alpha = h.betas, h.beta3, h.alpha
    if h.step < h.alpha_warmup.value:
        alpha = alpha * h.step / h.alpha_warmup
    if h.step < h.beta3_warmup.value:
        first, last = 1 / (1 - beta1), 1 / (1 - beta3)
        beta3 = 1 - 1 / (first + (last - first) * h.step / h.beta3_warmup)
    m1 = beta1 * m1 + (1 - beta1) * g
    m2 = beta3 * m2 + (1 - beta3) * g
    v = beta2 * v + (1 - beta2) * g**2
    m1_hat, v_hat = m1 / (1 - beta1**h.step), v / (1 - beta2**h.step)
    return [p - h.lr * (m1_hat + alpha * m2) / (np.sqrt(v_hat + h.eps_root) + h.eps), m1, m2, v]


def schedulefree(h, beta, p, u, d):
    near = 1 / _number(float(h.step), h.step)
    far = beta * (1 - near)
    left = 1 - h.lr * h.weight_decay
    pull = far * (h.lr * h.weight_decay / left if h.decoupled and left.value != 0 else 0) * p
    return [p + near * d - h.lr * (1 - far) * u + pull, (1 - near) * d - h.lr * far * u - pull]


def schedulefreesgd(h, p, g, d):
    return schedulefree(h, h.beta, p, g, d)


def schedulefreeadamw(h, p, g, d, v):
    beta, beta2 = h.betas
    v = beta2 * v + (1 - beta2) * g**2
    u = g / (np.sqrt(v / (1 - beta2**h.step) + h.eps_root) + h.eps)
    return [*schedulefree(h, beta, p, u, d), v]


def norm(x):
    """Return the Euclidean norm; it is off by the norm of the errors at most, and by the sums in float64."""
    double = np.finfo(np.float64)
    with np.errstate(all="ignore"):
        value, error = (np.sqrt(np.sum(part**2)) for part in (x.value, np.broadcast_to(x.error, x.value.shape)))
        lost = np.sqrt(x.value.size * EXACT(double.smallest_subnormal))  # of squares
        return Exact(value, x.dtype, error + 32 * double.eps * value + lost).rounded(x.dtype)


def trust(size, change, coefficient=1, eps=0):
    """Return the trust ratio; nobody knows it where a norm may be 0 or not."""
    if any(0 < x.value <= x.error < np.inf for x in (size, change)):
        return Exact(1.0, size.dtype, np.inf)
    return Exact(1.0) if size.value == 0 or change.value == 0 else coefficient * size / (change + eps)


def lars(h, p, g, v):
    u = h.lr * trust(norm(p), norm(g), h.trust, h.eps) * g
    v = h.beta * v + u
    return [p - (h.beta * v + u if h.nesterov else v), v]


def lamb(h, p, g, m, v):
    beta1, beta2 = h.betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    u = m / (1 - beta1**h.step) / (np.sqrt(v / (1 - beta2**h.step) + h.eps_root) + h.eps)
    if h.decoupled:
        u = u + h.weight_decay * p
    return [p - h.lr * trust(norm(p), norm(u)) * u, m, v]


#: Those that decay parameters within their equation where that is decoupled.
OWN_DECAY = ("LAMB",)


def has_norms(name, cautious=False, **others):
    """Say whether an equation takes norms over a tensor."""
    return name in ("LARS", "LAMB") or cautious


COMMON = {"weight_decay": 0.0, "decoupled": False, "maximize": False, "reproducible": None}
#: What is done to gradients before any equation is none of its business: tests/test_gradients.py.
COMMON |= (
    GRADIENTS := {"grad_scale": None, "clip_value": None, "clip_norm": None, "nonfinite": "propagate", "ema": None}
)
ADAM = COMMON | {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0, "eps_hat": 0.0}
ADAM |= {"amsgrad": False, "cautious": False}

#: By class name: the equations, and the defaults of all hyperparameters.
ORACLES = {
    "GD": (gd, COMMON | {"lr": 1e-2}),
    "Momentum": (momentum, COMMON | {"lr": 1e-2, "beta": 0.9, "dampening": None, "nesterov": False}),
    "RMSprop": (
        rmsprop,
        COMMON | {"lr": 1e-2, "beta": 0.9, "eps": 0.0, "eps_root": 1e-8, "centered": False, "momentum": 0.0},
    ),
    "Adam": (adam, ADAM),
    "AdamW": (adam, ADAM | {"weight_decay": 1e-2, "decoupled": True}),
    "Lion": (lion, COMMON | {"lr": 1e-4, "betas": (0.9, 0.99), "decoupled": True, "cautious": False}),
    "Adagrad": (adagrad, COMMON | {"lr": 1e-2, "eps": 1e-10, "eps_root": 0.0, "initial_accumulator_value": 0.0}),
    "NAdam": (nadam, COMMON | {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0}),
    "Adamax": (adamax, COMMON | {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8}),
    "Adadelta": (adadelta, COMMON | {"lr": 1.0, "rho": 0.95, "eps_root": 1e-6}),
    "RAdam": (radam, COMMON | {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0, "eps_hat": 0.0}),
    "SignSGD": (signsgd, COMMON | {"lr": 1e-4, "momentum": 0.0}),
    "Yogi": (
        yogi,
        COMMON | {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-3, "eps_root": 0.0, "initial_accumulator_value": 1e-6},
    ),
    "AdaBelief": (adabelief, COMMON | {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-16, "eps_root": 1e-16}),
    "Adan": (
        adan,
        COMMON | {"lr": 1e-3, "betas": (0.98, 0.92), "beta3": 0.99, "eps": 1e-8, "eps_root": 0.0, "decoupled": True},
    ),
    "ADOPT": (adopt, COMMON | {"lr": 1e-3, "betas": (0.9, 0.9999), "eps": 1e-6}),
    "AdEMAMix": (
        ademamix,
        COMMON
        | {"lr": 1e-3, "betas": (0.9, 0.999), "beta3": 0.9999, "alpha": 5.0, "decoupled": True}
        | {"beta3_warmup": 0.0, "alpha_warmup": 0.0, "eps": 1e-8, "eps_root": 0.0},
    ),
    "ScheduleFreeSGD": (schedulefreesgd, COMMON | {"lr": 1.0, "beta": 0.9}),
    "ScheduleFreeAdamW": (
        schedulefreeadamw,
        COMMON | {"lr": 2.5e-3, "betas": (0.9, 0.999), "eps": 1e-8, "eps_root": 0.0, "decoupled": True},
    ),
    "LARS": (lars, COMMON | {"lr": 1.0, "beta": 0.9, "trust": 1e-3, "eps": 0.0, "nesterov": False}),
    "LAMB": (lamb, COMMON | {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "eps_root": 0.0, "decoupled": True}),
}


def answer(name, p, g, states, step, **hyperparameters):
    """Return the parameter and the states after a step, each as :class:`Exact`."""
    equations, defaults = ORACLES[name]
    assert hyperparameters.keys() <= defaults.keys() - GRADIENTS
    h = SimpleNamespace(**{k: _number(v, step) for k, v in (defaults | hyperparameters).items()}, step=step)
    p, g, *states = (Exact(a, a.dtype) for a in (p, g, *states))
    if h.maximize:
        g = -g
    if h.weight_decay and h.decoupled and name not in OWN_DECAY:
        p = (1 - h.lr * h.weight_decay) * p
    elif h.weight_decay and not h.decoupled:
        g = g + h.weight_decay * p
    p, *states = equations(h, p, g, *states)
    return [p, *map(_or_zero, states)]


def _or_zero(state):
    """Allow for 0 in the place of a subnormal number, as which no state is stored."""
    size = np.abs(state.value)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        small = size - state.error < np.finfo(state.dtype).smallest_normal
    return Exact(state.value, state.dtype, np.where(small, np.maximum(state.error, size), state.error))


def _number(value, step):
    """Return a hyperparameter as a float64 scalar; a schedule is asked, a flag or None stays."""
    if isinstance(value, tuple):
        return tuple(_number(v, step) for v in value)
    if callable(value):
        value = value(step)
    return value if value is None or isinstance(value, bool | str) else Exact(value, np.dtype(np.float64))


def ulps(actual, exact):
    """Return the error of each element in units in the last place of its dtype."""
    return np.abs(actual - exact) / np.spacing(np.abs(exact.astype(actual.dtype)))
