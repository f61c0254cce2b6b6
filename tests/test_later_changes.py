"""What happened to arrays, collections and attributes since the optimizer was made is noticed or refused."""

import contextlib
import copy
import gc
import itertools
import pickle
import sys
import threading
import warnings
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

import fastopt
from fastopt._engine import threads

from .refusals import F32, ones, refuse, refuse_step, written

pytestmark = [pytest.mark.internals, pytest.mark.usefixtures("both_checks")]


def test_parameters_made_read_only_later():
    a, b = ones(3), ones(4, dtype=np.float64)
    opt = fastopt.Adam({"a": a, "b": b})
    b.setflags(write=False)
    grads = {"a": ones(3), "b": ones(4, dtype=np.float64)}
    words = ["params['b']", "writable", "read-only"]
    refuse_step(opt, grads, ValueError, words, mend=lambda o: o.params["b"].setflags(write=True))


@pytest.mark.parametrize("kwargs", [{}, {"state_dtype": "int8"}], ids=str)
def test_states_are_looked_at_as_parameters_are(kwargs):
    opt = fastopt.Adam([ones(5), ones(3000)], **kwargs)
    grads = [ones(5), ones(3000)]
    opt.step(grads)
    for name, row in opt._states.items():
        for t, array in enumerate(row):
            array.setflags(write=False)
            words = [f"the state '{name}' of params[{t}]", "writable", "read-only"]
            refuse(lambda: opt.step(grads), ValueError, words, *written(opt))
            array.setflags(write=True)
    opt.step(grads)
    assert opt.step_count == 2


def test_a_resized_state(nothing_runs):
    opt = copy.deepcopy(fastopt.Momentum(ones(100)))  # whose arrays have memory of their own
    opt.state["v"].resize(50, refcheck=False)
    with pytest.raises(ValueError, match="the state 'v' of params was resized"):
        opt.step(ones(100))


def test_a_parameter_whose_dtype_was_changed_in_place(nothing_runs):
    a, b = ones(4), ones(4)
    opt = fastopt.GD([a, b])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of what is tried here
        for other in (np.int32, ">f4"):
            b.dtype = other
            with pytest.raises(ValueError, match=r"params\[1\] was given the dtype .* since .* made with float32"):
                opt.step([ones(4), ones(4)])


def test_a_lazy_mapping_or_sequence_is_refused(tmp_path):
    np.savez(tmp_path / "p.npz", w=np.zeros(3))
    words = ["params['w']", "another object each time", "dict(params)"]
    with np.load(tmp_path / "p.npz") as lazy:
        refuse(lambda: fastopt.GD(lazy), TypeError, words)
        params = dict(lazy)
        fastopt.GD(params, lr=1.0).step(lazy)  # gradients may come from a file
    assert (params["w"] == 0).all()

    class Lazy(Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index > 1:
                raise IndexError
            return ones(3)

    refuse(lambda: fastopt.GD(Lazy()), TypeError, ["params[0]", "another object each time"])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_knows_what_was_replaced(duplicate):
    for params, key in (([ones(3), ones(2)], 0), ({"a": ones(3), "b": ones(2)}, "a")):
        opt = fastopt.GD(params)
        params[key] = ones(3)
        other = duplicate(opt)
        grads = opt._structure.pack([ones(3), ones(2)])
        refuse(lambda: other.step(grads), ValueError, [f"params[{key!r}] was replaced"])  # noqa: B023


def test_a_list_of_gradients_that_is_shorter_than_it_says():
    class Short(list):
        def __iter__(self):
            return iter(())

    opt = fastopt.GD([ones(3), ones(2)])
    refuse_step(opt, Short([ones(3), ones(2)]), ValueError, ["grads", "2", "0"], bind=False)


def test_a_list_of_gradients_that_changes_meanwhile():
    """Another thread takes one out and puts it back: either there are too few, or the step is taken with all."""
    grads = [ones(4) for _ in range(50)]
    opt = fastopt.GD([ones(4) for _ in grads], lr=1.0)
    done = []

    def disturb():
        for n in itertools.takewhile(lambda _: not done, itertools.count()):
            grads.append(grads.pop())
            sum(range(n % 50))  # so that the two threads do not take turns at one place

    thread, before = threading.Thread(target=disturb), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for n in range(100_000):
            with contextlib.suppress(ValueError):
                opt.step(grads)
            if n > 2000 and opt.step_count > 0:
                break
    finally:
        done.append(True)
        thread.join()
        sys.setswitchinterval(before)
    assert opt.step_count > 0
    assert all((p == 1 - opt.step_count).all() for p in opt.params)


def test_a_replaced_entry_of_params_is_refused():
    as_list, as_dict = [ones(3), ones(2)], {"a": ones(3), "b": ones(2)}
    for params, key in ((as_list, 1), (as_dict, "b")):
        opt = fastopt.GD(params)
        grads = type(params)(params)
        grads = {k: g.copy() for k, g in params.items()} if params is as_dict else [g.copy() for g in params]
        opt.step(grads)
        old = params[key]
        params[key] = old.copy()
        words = [f"params[{key!r}] was replaced", f"params[{key!r}][...] = values"]
        refuse(lambda: opt.step(grads), ValueError, words, *written(opt))  # noqa: B023
        params[key] = old
        opt.step(grads)
        assert opt.step_count == 2
    as_list.append(ones(4))
    refuse(lambda: fastopt.GD(as_list[:2]).step([ones(3)]), ValueError, ["2", "1"])
    opt = fastopt.GD(as_dict)
    as_dict["c"] = ones(1)
    words = ["params had 2 arrays", "has 3 now"]
    refuse(lambda: opt.step({"a": ones(3), "b": ones(2)}), ValueError, words)
    del as_dict["c"], as_dict["a"]
    refuse(lambda: opt.step({"a": ones(3), "b": ones(2)}), ValueError, ["params had 2 arrays", "has 1 now"])
    reordered = {"b": as_dict["b"], "a": opt._arrays[0]}
    as_dict.clear()
    as_dict.update(reordered)
    opt.step({"a": ones(3), "b": ones(2)})


def test_a_schedule_that_changes_arrays_or_steps(nothing_runs):
    """It is asked before anything is looked at."""
    p = np.ones(1000)

    def shrink(step):
        p.resize(10, refcheck=False)
        return 0.1

    opt = fastopt.GD(p, lr=shrink)
    with pytest.raises(ValueError, match="params was resized"):
        opt.step(np.ones(1000))

    def step_inside(step):
        if step == 1:
            other.step_count = 5
        return 0.1

    other = fastopt.GD(np.ones(3), lr=step_inside)
    with pytest.raises(RuntimeError, match=r"step 1 was taken within itself, by lr\(1\)"):
        other.step(np.ones(3))


def test_gradients_that_step_the_optimizer_themselves():
    """They are asked for before anything else; what they do is a step before this one."""

    class Stepping(dict):
        def __getitem__(self, key):
            if not asked:
                asked.append(key)
                opt.step({"a": np.ones(2)})
            return super().__getitem__(key)

    asked, p = [], np.zeros(2)
    opt = fastopt.GD({"a": p}, lr=1.0)
    opt.step(Stepping(a=np.ones(2)))
    assert opt.step_count == 2
    assert (p == -2).all()


def test_bind_refuses_gradients_that_are_new_ones_each_time(tmp_path):
    """What a loop writes into such arrays is lost."""
    np.savez(tmp_path / "g.npz", w=ones(3))
    opt = fastopt.GD({"w": ones(3)})
    with np.load(tmp_path / "g.npz") as lazy:
        refuse(lambda: opt.bind(lazy), TypeError, ["grads['w']", "another object each time"])
        opt.step(lazy)


def test_bind_refuses_numbers():
    """NumPy makes a number of the gradient of a 0-d parameter: into it nobody can write the next one."""
    theta = np.array(1.0)
    opt = fastopt.GD(theta, lr=1.0)
    refuse(lambda: opt.bind(2 * theta), TypeError, ["grads", "scalar", "give an array"], theta)
    opt.bind(np.array(0.5))
    opt.step()
    assert theta == 0.5


def test_a_refused_gradient_is_let_go():
    opt = fastopt.GD([ones(3), ones(4)])
    grads = [ones(3), ones(5)]
    gone = [weakref.ref(g) for g in grads]
    refuse(lambda: opt.step(grads), ValueError, ["grads[1]"])
    grads.clear()
    gc.collect()
    assert [g() for g in gone] == [None, None]
    opt.lr = 1e300  # what is wrong shows after the gradients were looked at
    grads = [ones(3), ones(4)]
    gone = [weakref.ref(g) for g in grads]
    refuse(lambda: opt.step(grads), ValueError, ["too large"])
    grads.clear()
    gc.collect()
    assert [g() for g in gone] == [None, None]


def test_a_refusal_leaves_the_bound_gradients():
    p, q = ones(3), ones(3)
    opt, twin = fastopt.Adam(p), fastopt.Adam(q)
    opt.bind(np.full(3, 2, F32))
    for _ in range(2):
        refuse(lambda: opt.bind(ones(4)), ValueError, ["grads"], *written(opt))
        refuse(lambda: opt.step(p), ValueError, ["grads"], *written(opt))
        opt.step()
        twin.step(np.full(3, 2, F32))
    assert p.tobytes() == q.tobytes()


@pytest.fixture
def nothing_runs(monkeypatch):
    """Fail the test, rather than write to memory that is gone, if a sweep is launched."""
    monkeypatch.setattr(threads, "launch", lambda *arguments: pytest.fail("the sweep was launched"))


# From and to: moved; grown in place or moved; shrunk in place, where the address stays.


RESIZES = [(10, 100_000), (10, 11), (1000, 999), (1000, 10), (1000, 0), (100_000, 90_000)]


@pytest.mark.parametrize(("old", "new"), RESIZES)
def test_a_parameter_that_was_resized(old, new, nothing_runs):
    p, q = np.ones(old), np.ones(5)
    opt = fastopt.Adam([q, p])
    p.resize(new, refcheck=False)
    refuse(lambda: opt.step([np.ones(5), np.ones(new)]), ValueError, [r"params[1] was resized"], *written(opt))
    with pytest.raises(ValueError, match=r"params\[1\] was resized|shape"):
        opt.step([np.ones(5), np.ones(old)])


def reshape(array, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from NumPy 2.5 on
        array.shape = shape


def test_a_parameter_that_was_reshaped():
    p = ones(6)
    opt = fastopt.GD(p)
    reshape(p, (2, 3))
    refuse_step(opt, ones(6), ValueError, ["(2, 3)", "(6,)"], mend=lambda o: reshape(o.params, 6))


def test_a_misspelt_attribute_is_refused():
    opt = fastopt.Adam(ones(3))
    with pytest.raises(AttributeError, match=r"learning_rate.*lr"):
        opt.learning_rate = 0.1
    with pytest.raises(AttributeError, match="momentum"):
        opt.momentum = 0.1


@pytest.mark.parametrize("name", ["params", "state", "step", "bind", "capturable", "states", "scalars", "rule", "spec"])
def test_what_cannot_be_set_is_refused(name):
    opt = fastopt.Adam(ones(3))
    before = getattr(opt, name)
    with pytest.raises(AttributeError, match=f"{name}.*lr"):
        setattr(opt, name, ones(3))
    assert getattr(opt, name) == before if name != "params" else opt.params is before


@pytest.mark.parametrize(
    ("step", "error"), [(-5, ValueError), (1.5, TypeError), ("x", TypeError), (None, TypeError), (2**63, ValueError)]
)
def test_step_count_is_checked(step, error):
    opt = fastopt.Adam(ones(3))
    opt.step_count = np.int64(7)
    with pytest.raises(error, match="step_count must be an integer >= 0"):
        opt.step_count = step
    assert opt.step_count == 7
