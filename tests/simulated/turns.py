"""The threads of a block in the simulator, one after another; numba-cuda's own way takes most of the time of the tests.

There the threads of a block run at once, and meanwhile one more asks all of them, without a pause, whether they wait;
and shared memory is found by reading the stack, with a look at the file of every caller. Here each thread runs to a
barrier, or to its end, before the next begins. A barrier that is missing makes wrong results, then, every time.
"""

import sys
import threading

import numpy as np
from numba.cuda.simulator import kernel, kernelapi

_Memory = kernelapi.FakeCUDAShared


class Worker(threading.Thread):
    """Runs threads of blocks, one at a time; kept for the next block."""

    idle = []  # noqa: RUF012  one list for all

    def __init__(self):
        super().__init__(daemon=True)
        self.waits = False
        self._turn, self._back = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self.start()

    def begin(self, body):
        """Run a body to its first barrier, or to its end."""
        self._body, self.failed, self.abort = body, None, False
        self.go_on()

    def go_on(self):
        """Run to the next barrier, or to the end."""
        self.waits = False
        self._turn.release()
        self._back.acquire()

    def end(self):
        """Have a thread that waits at a barrier go no further, as another one failed."""
        self.abort = True
        if self.waits:
            self.go_on()

    def run(self):
        while True:
            self._turn.acquire()
            try:
                self._body()
            except Exception as error:  # noqa: BLE001  raised where the block is run
                self.failed = error
            self._back.release()

    def wait(self):
        """Let the others come to the barrier."""
        self.waits = True
        self._back.release()
        self._turn.acquire()
        if self.abort:
            raise RuntimeError("another thread of the block failed")


class Module(kernelapi.FakeCUDAModule):
    """What kernels see as `cuda`: which thread it is that runs now, they ask here."""

    blockIdx = threadIdx = worker = None  # noqa: N815  numba-cuda's names

    def syncthreads(self):
        self.worker.wait()


class Shared(_Memory):
    """Memory of a block that is known by the line that asks for it."""

    def array(self, *given, **named):
        caller = sys._getframe(1)
        place = caller.f_code, caller.f_lineno
        if place not in self._allocations:
            self._allocations[place] = _Memory(0).array(*given, **named)
        return self._allocations[place]


class BlockManager(kernel.BlockManager):
    """Runs the threads of a block in turn: in the calling thread of Python, or, where they wait, in one for each."""

    def run(self, grid_point, *given):
        module = kernel._get_kernel_context()
        module.blockIdx = kernelapi.Dim3(*grid_point)
        places = [kernelapi.Dim3(*point) for point in np.ndindex(*self._block_dim)]
        if "syncthreads" not in self._f.__code__.co_names:
            for module.threadIdx in places:
                self._f(*given)
            return
        workers = [Worker.idle.pop() if Worker.idle else Worker() for _ in places]
        live = list(zip(workers, places, strict=True))
        go_on = lambda worker: worker.begin(lambda: self._f(*given))  # noqa: E731
        try:
            while live:
                for module.worker, module.threadIdx in live:
                    go_on(module.worker)
                    if module.worker.failed:
                        raise module.worker.failed
                live, go_on = [(worker, place) for worker, place in live if worker.waits], Worker.go_on
        finally:
            for worker in workers:
                worker.end()
            Worker.idle += workers


def install():
    kernel.BlockManager, kernel.FakeCUDAModule, kernelapi.FakeCUDAShared = BlockManager, Module, Shared
