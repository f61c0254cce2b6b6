"""A signal never leaves half a step: all groups are updated and the step is counted, or nothing happened."""

import signal

import pytest

from fastopt._engine import signals

pytestmark = pytest.mark.internals

STORM = """
    import os, random, signal, sys, threading, time
    import numpy as np
    import fastopt
    {imports}

    armed, interrupts = False, 0

    def interrupt(number, frame):  # as Python's own handler, but not while the results are looked at
        if armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    arrays = [np.zeros(5, d) for d in ("f4", "f8", "f2", "u2")]
    grads = [np.ones(5, "f4"), np.ones(5), np.ones(5, "f2"), np.full(5, 0x3F80, "u2")]
    opt = fastopt.GD({params}, lr=0.0625{options})
    opt.bind({grads})
    opt.step()
    {warm}

    def steps():  # of the four arrays
        bits = (arrays[3].astype("u4") << 16).view("f4")
        return [set((a / -0.0625).tolist()) for a in (*arrays[:3], bits)]

    stop = False

    def send():
        while not stop:
            time.sleep(random.random() * {pause})
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        while interrupts < {count}:
            try:
                armed = True
                while opt._steps < 200:  # all these numbers are exact in bfloat16
                    opt.step()
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupts += 1
            count = opt.step_count
            assert steps() == [{{float(count)}}] * 4, (count, steps())
            if count >= 200:
                for a in arrays:
                    a[...] = 0
                opt.step_count = 0
    finally:
        armed, stop = False, True
        sender.join()
    print(interrupts)
"""
ON_CPU = {"imports": "", "params": "arrays", "grads": "grads", "options": "", "warm": "", "pause": 2e-4, "count": 400}


def test_ctrl_c_at_any_moment(run_script):
    assert run_script(STORM.format(**ON_CPU)) == "400"


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_in_a_parallel_step(run_script, threads):
    own = "from fastopt._engine import threads; threads.PARALLEL_FROM = 1"
    warm = f"import numba; numba.set_num_threads({threads}); {own}"
    options = ON_CPU | {"imports": warm, "count": 100}
    assert run_script(STORM.format(**options), NUMBA_NUM_THREADS=2) == "100"


DEVICE = """
    class Device:
        def __init__(self, array):
            self.array = array
        @property
        def __cuda_array_interface__(self):
            return self.array.__array_interface__ | {"version": 3}
    """


@pytest.mark.parametrize("mixed", [False, True])
def test_ctrl_c_on_a_device(run_script, mixed):
    where = "[Device(a) if {} else a for t, a in enumerate({})]"
    which = "t % 2" if mixed else "True"
    options = {"params": where.format(which, "arrays"), "grads": where.format(which, "grads")}
    script = STORM.format(**ON_CPU | options | {"imports": DEVICE, "pause": 2e-2, "count": 40})
    assert run_script(script, NUMBA_ENABLE_CUDASIM=1) == "40"


def test_a_signal_waits_for_the_end_of_the_block():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with signals.deferred():
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR1)
            assert seen == []
        assert seen == [signal.SIGUSR1] * 2
        signal.raise_signal(signal.SIGUSR1)
        assert len(seen) == 3
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_handlers_are_put_back_whatever_happens_within():
    # A process that a shell put into the background was told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        handlers = [signal.getsignal(number) for number in signals._NUMBERS]
        with pytest.raises(ZeroDivisionError), signals.deferred():
            1 / 0  # noqa: B018
        with pytest.raises(KeyboardInterrupt), signals.deferred():
            signal.raise_signal(signal.SIGINT)
        assert [signal.getsignal(number) for number in signals._NUMBERS] == handlers
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_of_the_device_does_not_keep_the_others_from_their_step(run_script):
    out = run_script(
        f"""
    import numpy as np
    import fastopt
    from fastopt._engine.gpu import DeviceGroup
    {DEVICE}
    arrays = [np.zeros(3, "f4"), np.zeros(3), np.zeros(3)]
    opt = fastopt.GD([Device(arrays[0]), Device(arrays[1]), arrays[2]], lr=1.0)
    grads = [np.ones(3, "f4"), np.ones(3), np.ones(3)]
    enqueue = DeviceGroup.enqueue
    def fail(self, step):
        if self.dtype == np.float32:
            raise RuntimeError("out of memory")
        enqueue(self, step)
    DeviceGroup.enqueue = fail
    try:
        opt.step([Device(grads[0]), Device(grads[1]), grads[2]])
    except RuntimeError as error:
        print(error, [a[0] for a in arrays] == [0, -1, -1], opt.step_count)
    """,
        NUMBA_ENABLE_CUDASIM=1,
    )
    assert out == "out of memory True 1"
