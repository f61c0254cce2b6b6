"""How a refusal is tested: the error, its words, and that nothing was written."""

import itertools

import numpy as np
import pytest

F32 = np.float32


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


def refuse(action, error, words, *arrays):
    """Check that `action` raises, says the words, and leaves every byte of the arrays as it was."""
    before = [a.tobytes() for a in arrays]
    with pytest.raises(error) as caught:
        action()
    assert caught.type is error
    for word in words:
        assert str(word) in str(caught.value), caught.value
    assert [a.tobytes() for a in arrays] == before


def written(opt):
    return [*opt._arrays, *itertools.chain(*opt._states.values())]


def twin_of(opt):
    """Return an optimizer with arrays of its own that stands where `opt` does."""
    copies = [a.copy(order="K") for a in opt._arrays]
    twin = type(opt)(opt._structure.pack(copies), **dict(opt.describe()))
    for a, b in zip(written(twin), written(opt), strict=True):
        a[...] = b
    twin.step_count = opt.step_count
    return twin


def refuse_step(opt, grads, error, words, mend=None, bind=True):
    """Check the same of a step; once `mend` made the optimizer fit to go on, it goes on as if nothing had been."""
    count, twin = opt.step_count, twin_of(opt)
    given = grads.values() if isinstance(grads, dict) else grads if isinstance(grads, list) else [grads]
    arrays = [*written(opt), *(g for g in given if isinstance(g, np.ndarray))]
    refuse(lambda: opt.step(grads), error, words, *arrays)
    if bind:
        refuse(lambda: opt.bind(grads), error, words, *arrays)
    assert opt.step_count == count
    for either in (opt, twin):
        if mend is not None:
            mend(either)
        either.step(either._structure.pack([np.full_like(a, 0.5, subok=False) for a in either._arrays]))
    assert opt.step_count == count + 1
    assert [a.tobytes() for a in written(opt)] == [a.tobytes() for a in written(twin)]


def refuse_values(opt, grads, error, words):
    """Check that the numbers of a step are refused, however good its gradients are."""
    refuse_step(opt, grads, error, words, mend=lambda o: setattr(o, "lr", 0.1), bind=False)
