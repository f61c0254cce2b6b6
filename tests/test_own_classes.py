"""Optimizers of a user's own: nothing is taken from their defaults, their names or numbers that they never see."""

from typing import NamedTuple

import numpy as np
import pytest

import fastopt
from fastopt._bench import article, catalog
from fastopt.rules import nonnegative, rate


class Scalars(NamedTuple):
    lr: float


class Warm(fastopt.Optimizer):
    """Gradient descent whose first steps are shorter, if so wished."""

    lr = rate(1.0)
    warm_up = nonnegative(0.0)

    @staticmethod
    def scalars(step, lr, warm_up) -> Scalars:
        return Scalars(lr=lr * step / warm_up if step < warm_up else lr)

    @staticmethod
    def rule(s, g, p):
        return p - s.lr * g


def test_a_step_number_that_the_defaults_have_no_use_for_is_needed_all_the_same():
    warm = fastopt.as_function(Warm)
    p = np.zeros(2)
    with pytest.raises(TypeError, match="step"):
        warm(p, np.ones(2), warm_up=4.0)
    for step in range(1, 5):
        warm(p, np.ones(2), step=step, warm_up=4.0)
    assert (p == -(0.25 + 0.5 + 0.75 + 1)).all()


def scalars_of_every_form():
    def used(step, lr) -> Scalars:
        return Scalars(lr / step)

    def in_an_inner_function(step, lr) -> Scalars:
        def inner():
            return step

        return Scalars(lr / inner())

    def beside_others(step, lr, beta) -> Scalars:
        return Scalars(lr * beta * step)

    def unused(step, lr) -> Scalars:
        return Scalars(lr)

    def thrown_away(step, lr) -> Scalars:
        del step
        return Scalars(lr)

    return {f: f in (used, in_an_inner_function, beside_others) for f in locals().copy().values()}


@pytest.mark.parametrize(
    ("scalars", "timed"), scalars_of_every_form().items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_whether_a_step_number_is_needed_is_read_from_the_code(scalars, timed):
    own = type("Own", (Warm,), {"scalars": staticmethod(scalars), "beta": nonnegative(0.5)})
    parameters = fastopt.as_function(own).__signature__.parameters
    assert (parameters["step"].default is parameters["step"].empty) == timed


class PerRate(fastopt.Optimizer):
    """A rule that has no meaning for a learning rate of 0, which it is never given."""

    lr = rate(0.5)

    @staticmethod
    def scalars(step, lr) -> Scalars:
        return Scalars(lr=1.0 / lr)

    @staticmethod
    def rule(s, g, p):
        return p - g / s.lr


def test_scalars_are_computed_for_the_learning_rate_that_is_set_alone():
    p, q, r = np.zeros(3), np.zeros(3), np.zeros(3)
    fastopt.jitable(PerRate)(r, np.ones(3), 1, 0.5)
    PerRate(p).step(np.ones(3))
    fastopt.as_function(PerRate)(q, np.ones(3))
    assert (p == -0.5).all()
    assert (q == -0.5).all()
    assert (r == -0.5).all()
    asked = []
    PerRate(p, lr=lambda step: asked.append(step) or 0.5).step(np.ones(3))
    assert asked == [1]


def test_scalars_are_as_many_each_time():
    def scalars(step, lr) -> Scalars:
        return (lr,) * step

    opt = type("Own", (Warm,), {"scalars": staticmethod(scalars)})(np.zeros(3))
    opt.step(np.ones(3))
    with pytest.raises(TypeError, match=r"scalars returned \(.*\), where a step takes 1 numbers, as before"):
        opt.step(np.ones(3))
    assert opt.step_count == 1


def test_what_is_no_optimizer_has_no_update():
    for form in (fastopt.jitable, fastopt.as_function):
        with pytest.raises(TypeError, match=r"such as fastopt\.Adam"):
            form(fastopt.Optimizer)
    with pytest.raises(TypeError, match="the update of Adam"):
        fastopt.jitable(fastopt.Adam)(np.zeros(3), step=1)


def test_a_class_with_the_name_of_ours_does_not_take_its_place():
    theirs, before, every = fastopt.Adam, article.computed("Adam"), list(catalog.OPTIMIZERS.items())
    assert {"Adam", "AdamW", "GD", "Momentum", "RMSprop"} <= set(catalog.OPTIMIZERS)
    own = type("Adam", (Warm,), {})
    assert own.__name__ == "Adam"
    assert catalog.OPTIMIZERS["Adam"] is theirs
    assert list(catalog.OPTIMIZERS.items()) == every
    assert article.computed("Adam") == before
