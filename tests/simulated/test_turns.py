"""The simulator as the tests have it: barriers, shared memory, and faults in one thread of many."""

import numpy as np
import pytest
from numba import cuda, int32
from numba.cuda.simulator import kernel

from . import turns


def test_it_is_in_place():
    assert kernel.BlockManager is turns.BlockManager


def test_indices_and_sizes():
    @cuda.jit
    def where(out):
        k = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        out[k] = 100 * cuda.gridDim.x + k

    out = np.zeros(6, np.int64)
    where[2, 3](out)
    assert out.tolist() == [200, 201, 202, 203, 204, 205]


@cuda.jit
def reverse(array):
    shared = cuda.shared.array(4, int32)
    other = cuda.shared.array(4, int32)
    i = cuda.threadIdx.x
    shared[i] = array[i]
    other[i] = -1
    cuda.syncthreads()
    array[i] = shared[3 - i]
    cuda.syncthreads()
    cuda.atomic.max(shared, 0, 10 * i)
    cuda.syncthreads()
    array[i] += shared[0]


@cuda.jit
def reverse_without_barriers(array):
    shared = cuda.shared.array(4, int32)
    i = cuda.threadIdx.x
    if i == 0:
        shared[:] = 0
    shared[i] = array[i]
    array[i] = shared[3 - i]


def test_barriers_and_shared_memory():
    for _ in range(2):  # with threads that ran before
        array = np.array([1, 2, 3, 4])
        reverse[1, 4](array)
        assert array.tolist() == [34, 33, 32, 31]


def test_a_barrier_that_is_missing_shows():
    array = np.array([1, 2, 3, 4])
    reverse_without_barriers[1, 4](array)
    assert array.tolist() == [0, 0, 2, 1]


def test_threads_that_end_are_not_waited_for():
    @cuda.jit
    def half(array):
        if cuda.threadIdx.x < 2:
            array[cuda.threadIdx.x] = 1
            return
        cuda.syncthreads()
        array[cuda.threadIdx.x] = array[0] + array[1]

    array = np.zeros(4)
    half[1, 4](array)
    assert array.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("bad", range(3))
@pytest.mark.parametrize("late", [False, True])
def test_a_fault_in_one_thread_is_that_of_the_launch(bad, late):
    """Those that wait for it end, and the next launch is as if nothing had been."""

    @cuda.jit
    def fail(array):
        if late:
            cuda.syncthreads()
        if cuda.threadIdx.x == bad:
            raise ValueError("this one")
        cuda.syncthreads()
        array[cuda.threadIdx.x] = 1

    array = np.zeros(3)
    with pytest.raises(ValueError, match="this one"):
        fail[1, 3](array)
    assert (array == 0).all()
    assert not any(worker.waits for worker in turns.Worker.idle)
    test_barriers_and_shared_memory()


def test_a_barrier_below_the_kernel_is_refused():
    """Whether threads wait is seen in the kernel itself."""
    barrier = lambda: cuda.syncthreads()  # noqa: E731, PLW0108  looked up when it is called

    @cuda.jit
    def hidden():
        barrier()

    with pytest.raises(AttributeError):
        hidden[1, 2]()
