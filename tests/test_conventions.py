"""Each convention held against its owner: PyTorch and Optax run, Keras by its published equations."""

import inspect
import itertools
import re
import warnings

import numpy as np
import pytest

import fastopt
from fastopt._api import conventions

DRAWS, STEPS, SIZE = 6, 10, 257
DTYPES = [np.float32, np.float64]
# Ten steps of a dozen roundings each, in another order than the owner's; relative to values of order one.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


def draw(seed):
    """Return hyperparameters at random, within what every framework takes."""
    rng = np.random.default_rng(seed)
    return {
        "lr": 10 ** rng.uniform(-4, -1),
        "beta": rng.uniform(0.1, 0.99),
        "betas": (rng.uniform(0.1, 0.95), rng.uniform(0.5, 0.999)),
        "eps": 10 ** rng.uniform(-8, -3),
        "weight_decay": rng.uniform(0.01, 0.5),
        "momentum": rng.uniform(0.1, 0.95),
        "maximize": bool(seed % 2),
        "nesterov": bool(seed // 2 % 2),
    }


def data(seed, dtype):
    """Return a parameter and gradients; none is near zero, where RMSprop and Adam turn rounding into steps."""
    rng = np.random.default_rng(1000 + seed)
    grads = rng.uniform(0.2, 1, (STEPS, SIZE)) * rng.choice([-1, 1], (STEPS, SIZE))
    return rng.normal(size=SIZE).astype(dtype), grads.astype(dtype)


def run(owner, name, dtype, seed, **changed):
    p, grads = data(seed, dtype)
    opt = getattr(fastopt, name)(p, **(dict(fastopt.conventions[owner][name]) | changed))
    for g in grads:
        opt.step(g)
    return p


def check(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


every_draw = pytest.mark.parametrize(("seed", "dtype"), list(itertools.product(range(DRAWS), DTYPES)))


# PyTorch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs the extra `peers`")


def run_torch(torch, cls, dtype, seed, **kwargs):
    start, grads = data(seed, dtype)
    p = torch.from_numpy(start).requires_grad_()
    opt = cls([p], **kwargs)
    for g in grads:
        p.grad = torch.from_numpy(g)
        opt.step()
    return p.detach().numpy()


@every_draw
def test_torch_sgd(torch, seed, dtype):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "weight_decay", "maximize")}
    check(run("torch", "GD", dtype, seed, **shared), run_torch(torch, torch.optim.SGD, dtype, seed, **shared), dtype)
    check(
        run("torch", "Momentum", dtype, seed, **shared, beta=h["momentum"], nesterov=h["nesterov"]),
        run_torch(torch, torch.optim.SGD, dtype, seed, **shared, momentum=h["momentum"], nesterov=h["nesterov"]),
        dtype,
    )


@every_draw
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_torch_rmsprop(torch, seed, dtype, momentum, centered):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "weight_decay", "maximize")} | {"centered": centered, "eps": h["eps"]}
    if centered:
        # PyTorch has no floor under the variance; one step in, with beta from one half up, it is far from zero.
        h["beta"] = max(h["beta"], 0.5)
    shared["momentum"] = h["momentum"] if momentum else 0.0
    check(
        run("torch", "RMSprop", dtype, seed, **shared, beta=h["beta"]),
        run_torch(torch, torch.optim.RMSprop, dtype, seed, **shared, alpha=h["beta"]),
        dtype,
    )


@every_draw
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_torch_adam(torch, seed, dtype, fused, amsgrad, name):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "betas", "eps", "weight_decay", "maximize")} | {"amsgrad": amsgrad}
    theirs = run_torch(torch, getattr(torch.optim, name), dtype, seed, **shared, fused=fused)
    check(run("torch", name, dtype, seed, **shared), theirs, dtype)


@every_draw
def test_torch_adagrad(torch, seed, dtype):
    h = draw(seed)
    more = {"initial_accumulator_value": h["momentum"]}
    shared = {k: h[k] for k in ("eps", "weight_decay", "maximize")} | more
    theirs = run_torch(torch, torch.optim.Adagrad, dtype, seed, lr=h["lr"], lr_decay=0.1, **shared)
    ours = run("torch", "Adagrad", dtype, seed, lr=lambda step: h["lr"] / (1 + (step - 1) * 0.1), **shared)
    check(ours, theirs, dtype)


@every_draw
def test_torch_adamax(torch, seed, dtype):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "betas", "eps", "weight_decay", "maximize")}
    theirs = run_torch(torch, torch.optim.Adamax, dtype, seed, **shared)
    check(run("torch", "Adamax", dtype, seed, **shared), theirs, dtype)


@every_draw
def test_torch_adadelta(torch, seed, dtype):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "weight_decay", "maximize")}
    theirs = run_torch(torch, torch.optim.Adadelta, dtype, seed, **shared, rho=h["beta"], eps=h["eps"])
    check(run("torch", "Adadelta", dtype, seed, **shared, rho=h["beta"], eps_root=h["eps"]), theirs, dtype)


@every_draw
@pytest.mark.parametrize("decoupled", [False, True])
def test_torch_radam(torch, seed, dtype, decoupled):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "betas", "weight_decay", "maximize")}
    theirs = {"eps": h["eps"], "decoupled_weight_decay": decoupled}
    check(
        run("torch", "RAdam", dtype, seed, **shared, eps_hat=h["eps"], decoupled=decoupled),
        run_torch(torch, torch.optim.RAdam, dtype, seed, **shared, **theirs),
        dtype,
    )


def test_torch_defaults(torch):
    def defaults(cls):
        return {k: p.default for k, p in inspect.signature(cls).parameters.items()}

    ours = fastopt.conventions["torch"]
    theirs = defaults(torch.optim.SGD)
    rates = documented_rates()
    assert rates["torch"]["GD"] == rates["torch"]["Momentum"] == theirs["lr"]
    assert ours["Momentum"]["dampening"] == theirs["dampening"]
    assert ours["RMSprop"]["beta"] == defaults(torch.optim.RMSprop)["alpha"]
    for name in rates["torch"].keys() - {"GD", "Momentum"}:
        theirs = defaults(getattr(torch.optim, name)) if hasattr(torch.optim, name) else {"lr": None}
        assert rates["torch"][name] == theirs["lr"]
        if name in ours:
            check_defaults("torch", name, theirs)


def check_defaults(owner, name, theirs):
    """Compare what is called alike there and here; epsilon may stand elsewhere."""
    complete = dict(getattr(fastopt, name).hyperparameters) | dict(fastopt.conventions[owner][name])
    for hyper in complete.keys() & theirs.keys() - {"lr", "eps", "eps_root", "momentum"}:
        assert complete[hyper] == theirs[hyper], (name, hyper)
    places = ("eps", "eps_root", "eps_hat")
    assert [x for k in places if (x := complete.get(k))] == [x for k in places if (x := theirs.get(k))], name


# Optax


@pytest.fixture(scope="module")
def optax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("jax", reason="needs the extra `peers`")
        optax = pytest.importorskip("optax", reason="needs the extra `peers`")
        import jax

        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield optax
        jax.config.update("jax_enable_x64", before)


def run_optax(optax, transformation, dtype, seed):
    import jax.numpy as jnp

    start, grads = data(seed, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = jnp.asarray(start)
        state = transformation.init(p)
        for g in grads:
            updates, state = transformation.update(jnp.asarray(g), state, p)
            p = optax.apply_updates(p, updates)
        assert p.dtype == dtype
        return np.asarray(p)


@every_draw
def test_optax_sgd(optax, seed, dtype):
    h = draw(seed)
    check(run("optax", "GD", dtype, seed, lr=h["lr"]), run_optax(optax, optax.sgd(h["lr"]), dtype, seed), dtype)
    check(
        run("optax", "Momentum", dtype, seed, lr=h["lr"], beta=h["momentum"], nesterov=h["nesterov"]),
        run_optax(optax, optax.sgd(h["lr"], momentum=h["momentum"], nesterov=h["nesterov"]), dtype, seed),
        dtype,
    )


@every_draw
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_optax_rmsprop(optax, seed, dtype, momentum, centered):
    h = draw(seed)
    rho = h["momentum"] if momentum else 0.0
    beta = max(h["beta"], 0.5)
    ours = run(
        "optax", "RMSprop", dtype, seed, lr=h["lr"], beta=beta, eps_root=h["eps"], centered=centered, momentum=rho
    )
    theirs = optax.rmsprop(h["lr"], decay=beta, eps=h["eps"], centered=centered, momentum=rho or None)
    check(ours, run_optax(optax, theirs, dtype, seed), dtype)


@every_draw
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_optax_adam(optax, seed, dtype, name):
    h = draw(seed)
    theirs = {"learning_rate": h["lr"], "b1": h["betas"][0], "b2": h["betas"][1], "eps": h["eps"], "eps_root": 1e-6}
    ours = {k: h[k] for k in ("lr", "betas", "eps")} | {"eps_root": 1e-6}
    if name == "AdamW":
        theirs["weight_decay"] = ours["weight_decay"] = h["weight_decay"]
    check(
        run("optax", name, dtype, seed, **ours),
        run_optax(optax, getattr(optax, name.lower())(**theirs), dtype, seed),
        dtype,
    )


@every_draw
def test_optax_lion(optax, seed, dtype):
    h = draw(seed)
    theirs = optax.lion(h["lr"], *h["betas"], weight_decay=h["weight_decay"])
    shared = {k: h[k] for k in ("lr", "betas", "weight_decay")}
    check(run("optax", "Lion", dtype, seed, **shared), run_optax(optax, theirs, dtype, seed), dtype)


@every_draw
@pytest.mark.parametrize("nesterov", [False, True])
def test_optax_lars(optax, seed, dtype, nesterov):
    h = draw(seed)
    shared = {"weight_decay": h["weight_decay"], "nesterov": nesterov}
    theirs = optax.lars(h["lr"], trust_coefficient=0.01, eps=h["eps"], momentum=h["momentum"], **shared)
    ours = run("optax", "LARS", dtype, seed, lr=h["lr"], beta=h["momentum"], trust=0.01, eps=h["eps"], **shared)
    check(ours, run_optax(optax, theirs, dtype, seed), dtype)


@every_draw
def test_optax_lamb(optax, seed, dtype):
    h = draw(seed)
    theirs = optax.lamb(h["lr"], *h["betas"], eps=h["eps"], eps_root=1e-6, weight_decay=h["weight_decay"])
    shared = {k: h[k] for k in ("lr", "betas", "eps", "weight_decay")}
    ours = run("optax", "LAMB", dtype, seed, eps_root=1e-6, **shared)
    check(ours, run_optax(optax, theirs, dtype, seed), dtype)


@every_draw
def test_optax_adagrad(optax, seed, dtype):
    h = draw(seed)
    theirs = optax.adagrad(h["lr"], initial_accumulator_value=h["momentum"], eps=h["eps"])
    more = {"initial_accumulator_value": h["momentum"], "eps_root": h["eps"]}
    check(run("optax", "Adagrad", dtype, seed, lr=h["lr"], **more), run_optax(optax, theirs, dtype, seed), dtype)


@every_draw
@pytest.mark.parametrize("decoupled", [False, True])
def test_optax_nadam(optax, seed, dtype, decoupled):
    h = draw(seed)
    theirs = {"learning_rate": h["lr"], "b1": h["betas"][0], "b2": h["betas"][1], "eps": h["eps"], "eps_root": 1e-6}
    ours = {k: h[k] for k in ("lr", "betas", "eps")} | {"eps_root": 1e-6}
    if decoupled:
        theirs["weight_decay"] = h["weight_decay"]
        ours |= {"weight_decay": h["weight_decay"], "decoupled": True}
    transformation = (optax.nadamw if decoupled else optax.nadam)(**theirs)
    check(run("optax", "NAdam", dtype, seed, **ours), run_optax(optax, transformation, dtype, seed), dtype)


@every_draw
def test_optax_adamax(optax, seed, dtype):
    h = draw(seed)
    theirs = run_optax(optax, optax.adamax(h["lr"], *h["betas"], eps=h["eps"]), dtype, seed)
    check(run("optax", "Adamax", dtype, seed, lr=h["lr"], betas=h["betas"], eps=h["eps"]), theirs, dtype)


@every_draw
def test_optax_adadelta(optax, seed, dtype):
    h = draw(seed)
    theirs = run_optax(optax, optax.adadelta(h["lr"], rho=h["beta"], eps=h["eps"]), dtype, seed)
    check(run("optax", "Adadelta", dtype, seed, lr=h["lr"], rho=h["beta"], eps_root=h["eps"]), theirs, dtype)


@every_draw
def test_optax_radam(optax, seed, dtype):
    h = draw(seed)
    theirs = run_optax(optax, optax.radam(h["lr"], *h["betas"], eps=h["eps"], eps_root=1e-6), dtype, seed)
    ours = run("optax", "RAdam", dtype, seed, lr=h["lr"], betas=h["betas"], eps=h["eps"], eps_root=1e-6)
    check(ours, theirs, dtype)


@every_draw
def test_optax_signsgd(optax, seed, dtype):
    h = draw(seed)
    theirs = run_optax(optax, optax.sign_sgd(h["lr"]), dtype, seed)
    check(run("optax", "SignSGD", dtype, seed, lr=h["lr"]), theirs, dtype)
    theirs = run_optax(optax, optax.signum(h["lr"], beta=h["momentum"]), dtype, seed)
    check(run("optax", "SignSGD", dtype, seed, lr=h["lr"], momentum=h["momentum"]), theirs, dtype)


@every_draw
def test_optax_yogi(optax, seed, dtype):
    h = draw(seed)
    more = {"eps": h["eps"], "eps_root": 1e-6, "initial_accumulator_value": h["momentum"]}
    theirs = optax.chain(optax.scale_by_yogi(*h["betas"], **more), optax.scale(-h["lr"]))
    ours = run("optax", "Yogi", dtype, seed, lr=h["lr"], betas=h["betas"], **more)
    check(ours, run_optax(optax, theirs, dtype, seed), dtype)
    theirs = run_optax(optax, optax.yogi(h["lr"], *h["betas"], eps=h["eps"]), dtype, seed)
    check(run("optax", "Yogi", dtype, seed, lr=h["lr"], betas=h["betas"], eps=h["eps"]), theirs, dtype)


@every_draw
def test_optax_adabelief(optax, seed, dtype):
    h = draw(seed)
    theirs = run_optax(optax, optax.adabelief(h["lr"], *h["betas"], eps=h["eps"], eps_root=1e-6), dtype, seed)
    ours = run("optax", "AdaBelief", dtype, seed, lr=h["lr"], betas=h["betas"], eps=h["eps"], eps_root=1e-6)
    check(ours, theirs, dtype)


@every_draw
def test_optax_adan(optax, seed, dtype):
    """Optax has 1 - b2 where the paper has what is b2 here: at one half, and nowhere else, they agree."""
    h = draw(seed)
    shared = {"eps": h["eps"], "eps_root": 1e-6, "weight_decay": h["weight_decay"]}

    def apart(b2):
        theirs = optax.adan(h["lr"], b1=h["betas"][0], b2=b2, b3=h["betas"][1], **shared)
        p, grads = data(seed, dtype)
        opt = fastopt.Adan(p, lr=h["lr"], betas=(h["betas"][0], b2), beta3=h["betas"][1], **shared)
        for g in grads:
            opt.step(g)
        return p, run_optax(optax, theirs, dtype, seed)

    check(*apart(0.5), dtype)
    p, other = apart(0.92)
    assert np.max(np.abs(p - other)) > 0.1 * h["lr"]


@every_draw
def test_optax_adopt(optax, seed, dtype):
    h = draw(seed)
    theirs = run_optax(optax, optax.contrib.adopt(h["lr"], *h["betas"], eps=h["eps"]), dtype, seed)
    check(run("optax", "ADOPT", dtype, seed, lr=h["lr"], betas=h["betas"], eps=h["eps"]), theirs, dtype)


@every_draw
@pytest.mark.parametrize("warmup", [0.0, 7.0])
def test_optax_ademamix(optax, seed, dtype, warmup):
    import jax.numpy as jnp

    h = draw(seed)
    beta1, first, last = h["betas"][0], 1 / (1 - h["betas"][0]), 1 / (1 - h["beta"])

    def part(count):  # Optax counts from 0
        return jnp.minimum((count + 1) / warmup, 1.0)

    theirs = {"b1": beta1, "b2": h["betas"][1], "b3": h["beta"], "alpha": 10 * h["momentum"]}
    if warmup:
        theirs["alpha"] = lambda count: 10 * h["momentum"] * part(count)
        theirs["b3"] = lambda count: 1 - 1 / (first + (last - first) * part(count))
    shared = {"eps": h["eps"], "eps_root": 1e-6, "weight_decay": h["weight_decay"]}
    ours = {"lr": h["lr"], "betas": h["betas"], "beta3": h["beta"], "alpha": 10 * h["momentum"]}
    ours |= {"beta3_warmup": warmup, "alpha_warmup": warmup}
    theirs = run_optax(optax, optax.contrib.ademamix(h["lr"], **theirs, **shared), dtype, seed)
    check(run("optax", "AdEMAMix", dtype, seed, **ours, **shared), theirs, dtype)


@pytest.mark.parametrize(("beta1", "beta3"), [(0.9, 0.9999), (0.9, 0.99), (0.95, 0.99999), (0.99, 0.999)])
def test_the_warm_up_of_ademamix_is_close_to_the_papers(beta1, beta3):
    steps = 1000
    given = {"lr": 1e-3, "betas": (beta1, 0.999), "beta3": beta3, "alpha": 5.0, "eps": 1e-8, "eps_root": 0.0}
    for step in range(1, steps + 2):
        s = fastopt.AdEMAMix.scalars(step, **given, beta3_warmup=steps, alpha_warmup=steps)
        part = min(step / steps, 1)
        log1, log3 = np.log(beta1), np.log(beta3)
        papers = np.exp(log1 * log3 / ((1 - part) * log3 + part * log1))
        assert abs(s.gain3 / (1 - papers) - 1) < 1e-3
        assert s.part2 == pytest.approx(5e-3 * part, rel=1e-15)


@every_draw
@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_optax_schedule_free(optax, seed, dtype, name, decoupled):
    import jax.numpy as jnp

    h = draw(seed)
    beta = h["betas"][0]
    shared = {"weight_decay": h["weight_decay"]}
    if name == "ScheduleFreeSGD":
        ours, transformation = {"beta": beta}, optax.contrib.schedule_free_sgd(h["lr"], b1=beta, **shared)
    else:
        ours = {"betas": h["betas"], "eps": h["eps"]}
        more = {"b1": beta, "b2": h["betas"][1], "eps": h["eps"]}
        if not decoupled:  # Optax has what is beside the quotient alone
            ours["weight_decay"] = shared["weight_decay"] = 0.0
        transformation = optax.contrib.schedule_free_adamw(h["lr"], **more, **shared)
    start, grads = data(seed, dtype)
    p = start.copy()
    convention = dict(fastopt.conventions["optax"][name])
    opt = getattr(fastopt, name)(p, **(convention | {"lr": h["lr"], "decoupled": decoupled} | shared | ours))
    y = jnp.asarray(start)
    state = transformation.init(y)
    for g in grads:
        opt.step(g)
        updates, state = transformation.update(jnp.asarray(g), state, y)
        y = optax.apply_updates(y, updates)
    check(p, np.asarray(y), dtype)
    averaged = opt.averaged()
    assert averaged.dtype == dtype
    # What is off in y and z is off by as many times more in x, which both have from the two.
    x = np.asarray(optax.contrib.schedule_free_eval_params(state, y))
    check(beta * averaged, beta * x, dtype)


def test_optax_defaults(optax):
    ours = fastopt.conventions["optax"]
    theirs = inspect.signature(optax.rmsprop).parameters
    assert (ours["RMSprop"]["beta"], ours["RMSprop"]["eps_root"]) == (theirs["decay"].default, theirs["eps"].default)
    assert theirs["eps_in_sqrt"].default is True
    functions = {k.replace("_", ""): f for module in (optax.contrib, optax) for k, f in vars(module).items()}
    for name in ours.keys() - {"GD", "Momentum", "RMSprop"}:
        theirs = {k: p.default for k, p in inspect.signature(functions[name.lower()]).parameters.items()}
        rate = theirs["learning_rate"]
        assert documented_rates()["optax"][name] == (None if rate is inspect.Parameter.empty else rate), name
        if "betas" in ours[name]:
            theirs["betas"] = theirs["b1"], theirs["b2"]
        if "beta" in ours[name]:
            theirs["beta"] = theirs.get("momentum", theirs.get("b1"))
        if name in ("LARS", "LAMB"):
            theirs["trust"], theirs["decoupled"] = theirs.get("trust_coefficient"), name == "LAMB"
        if theirs.get("weight_decay", 0.0) is None:  # none
            theirs["weight_decay"] = 0.0
        check_defaults("optax", name, theirs)


# Keras 3: the equations of keras/src/optimizers/{sgd,rmsprop,adam}.py, in float64


def keras_sgd(p, grads, lr, momentum=0.0, nesterov=False):
    velocity = np.zeros_like(p)
    for g in grads:
        velocity = momentum * velocity - lr * g
        p = p + (momentum * velocity - lr * g if nesterov else velocity)
    return p


def keras_rmsprop(p, grads, lr, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    velocity, average, moment = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for g in grads:
        velocity = rho * velocity + (1 - rho) * g**2
        if centered:
            average = rho * average + (1 - rho) * g
        denominator = velocity - average**2 + epsilon
        moment = momentum * moment + lr * g / np.sqrt(denominator)
        p = p - moment
    return p


def keras_adam(p, grads, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=0.0):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(grads, start=1):
        p = p - p * weight_decay * lr
        alpha = lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        m = m + (g - m) * (1 - beta_1)
        v = v + (g**2 - v) * (1 - beta_2)
        p = p - m * alpha / (np.sqrt(v) + epsilon)
    return p


def keras_lion(p, grads, lr, beta_1=0.9, beta_2=0.99, weight_decay=0.0):
    m = np.zeros_like(p)
    for g in grads:
        p = p - p * weight_decay * lr
        p = p - lr * np.sign(m * beta_1 + g * (1.0 - beta_1))
        m = m * beta_2 + g * (1.0 - beta_2)
    return p


def keras_adagrad(p, grads, lr, initial_accumulator_value=0.1, epsilon=1e-7):
    accumulator = np.full_like(p, initial_accumulator_value)
    for g in grads:
        accumulator = accumulator + g**2
        p = p - lr * g / np.sqrt(accumulator + epsilon)
    return p


def keras_adadelta(p, grads, lr, rho=0.95, epsilon=1e-7):
    accumulated_grad, accumulated_delta = np.zeros_like(p), np.zeros_like(p)
    for g in grads:
        accumulated_grad = rho * accumulated_grad + (1 - rho) * g**2
        delta = -np.sqrt(accumulated_delta + epsilon) * g / np.sqrt(accumulated_grad + epsilon)
        accumulated_delta = rho * accumulated_delta + (1 - rho) * delta**2
        p = p + lr * delta
    return p


def exact(seed, dtype):
    p, grads = data(seed, dtype)
    return p.astype(np.float64), grads.astype(np.float64)


@every_draw
def test_keras_sgd(seed, dtype):
    h = draw(seed)
    check(run("keras", "GD", dtype, seed, lr=h["lr"]), keras_sgd(*exact(seed, dtype), h["lr"]), dtype)
    check(
        run("keras", "Momentum", dtype, seed, lr=h["lr"], beta=h["momentum"], nesterov=h["nesterov"]),
        keras_sgd(*exact(seed, dtype), h["lr"], h["momentum"], h["nesterov"]),
        dtype,
    )


@every_draw
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("centered", [False, True])
def test_keras_rmsprop(seed, dtype, momentum, centered):
    h = draw(seed)
    rho = h["momentum"] if momentum else 0.0
    beta = max(h["beta"], 0.5)
    ours = run(
        "keras", "RMSprop", dtype, seed, lr=h["lr"], beta=beta, eps_root=h["eps"], centered=centered, momentum=rho
    )
    check(ours, keras_rmsprop(*exact(seed, dtype), h["lr"], beta, rho, h["eps"], centered), dtype)


@every_draw
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_keras_adam(seed, dtype, name):
    h = draw(seed)
    ours = {"lr": h["lr"], "betas": h["betas"], "eps_hat": h["eps"]}
    if name == "AdamW":
        ours["weight_decay"] = h["weight_decay"]
    theirs = keras_adam(*exact(seed, dtype), h["lr"], *h["betas"], h["eps"], ours.get("weight_decay", 0.0))
    check(run("keras", name, dtype, seed, **ours), theirs, dtype)


@every_draw
def test_keras_lion(seed, dtype):
    h = draw(seed)
    shared = {k: h[k] for k in ("lr", "betas", "weight_decay")}
    theirs = keras_lion(*exact(seed, dtype), h["lr"], *h["betas"], h["weight_decay"])
    check(run("keras", "Lion", dtype, seed, **shared), theirs, dtype)


@every_draw
def test_keras_adagrad(seed, dtype):
    h = draw(seed)
    theirs = keras_adagrad(*exact(seed, dtype), h["lr"], h["momentum"], h["eps"])
    more = {"initial_accumulator_value": h["momentum"], "eps_root": h["eps"]}
    check(run("keras", "Adagrad", dtype, seed, lr=h["lr"], **more), theirs, dtype)


@every_draw
def test_keras_adadelta(seed, dtype):
    h = draw(seed)
    theirs = keras_adadelta(*exact(seed, dtype), h["lr"], h["beta"], h["eps"])
    check(run("keras", "Adadelta", dtype, seed, lr=h["lr"], rho=h["beta"], eps_root=h["eps"]), theirs, dtype)


def test_keras_epsilon_is_not_the_papers():
    """A large epsilon tells the two apart, so this cannot pass with either in place of the other."""
    p, grads = exact(0, np.float64)
    theirs = keras_adam(p, grads, 0.1, epsilon=0.1)
    check(run("keras", "Adam", np.float64, 0, lr=0.1, eps_hat=0.1), theirs, np.float64)
    assert np.max(np.abs(run("torch", "Adam", np.float64, 0, lr=0.1, eps=0.1) - theirs)) > 0.01


# All


def documented_rates():
    """Return the learning rates in the table of the module's docstring, by owner and class."""
    (table,) = re.findall(r"^default +(.*)\n[= ]+\n((?:\w+ .*\n)+)", conventions.__doc__, re.MULTILINE)
    owners, rows = table[0].split(), [line.split() for line in table[1].splitlines()]
    by_class = {name: dict(zip(owners, rates, strict=True)) for name, *rates in rows}
    return {
        owner: {name: None if rates[owner] == "none" else float(rates[owner]) for name, rates in by_class.items()}
        for owner in owners
    }


def test_the_documented_rates_are_those_of_the_classes():
    rates = documented_rates()
    assert set(rates) == {"fastopt", *fastopt.conventions} - {"article"}
    for name, rate in rates["fastopt"].items():
        assert getattr(fastopt, name).hyperparameters["lr"] == rate


def test_every_convention_makes_an_optimizer():
    for owner, by_class in fastopt.conventions.items():
        for name, kwargs in by_class.items():
            rate = {} if owner == "article" else {"lr": 1e-3}  # beside the convention, not in place of one of its own
            opt = getattr(fastopt, name)(np.zeros(3), **rate, **kwargs)
            opt.step(np.ones(3))
            assert np.isfinite(opt.params).all()


def test_conventions_cannot_be_changed():
    with pytest.raises(TypeError):
        fastopt.conventions["torch"]["Adam"]["lr"] = 1.0
    with pytest.raises(TypeError):
        fastopt.conventions["mine"] = {}
