"""Threads: how many, whether at all, and how not to bring the process down.

Numba runs parallel kernels on one of three layers. Each has a trap that a user must never fall into:

- ``workqueue`` aborts the process when two Python threads are in parallel kernels at once. A step that
  finds the layer taken by another step runs serially.
- ``omp`` aborts a forked child that calls a parallel kernel after its parent did. Such a child runs
  serially, on every layer.
- Launching ``omp`` calls ``omp_set_num_threads``, which a PyTorch or BLAS on the same runtime would
  notice. That setting belongs to the calling thread, so a thread of our own does the launching.

Serial and parallel sweeps are one function compiled twice and give the same bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numba
from numba.np.ufunc import parallel as _layer

from . import _compile

# Below this many elements a parallel launch costs more than it saves. Measured with float32 Adam on
# 2 threads: 5.4 µs serial beside 4.7 µs at 2^14 elements, 12.5 beside 9.2 at 2^15.
PARALLEL_FROM = 1 << 15

_workqueue = threading.Lock()
_orphan = False  # a forked child of a process that had launched the threads


def _after_fork() -> None:
    global _orphan, _workqueue
    _orphan = bool(_layer._is_initialized)
    _workqueue = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _tbb_comes_first() -> bool:
    """Say whether launching would choose TBB, which must be launched by the thread that may fork."""
    if str(numba.config.THREADING_LAYER).lower() in ("omp", "workqueue"):
        return False
    try:
        _layer._check_tbb_version_compatible()
    except ImportError:
        return False
    return True


def _launch() -> None:
    if _layer._is_initialized:
        return
    if _tbb_comes_first():
        _layer._launch_threads()
        return
    failed: list[BaseException] = []

    def launch() -> None:
        try:
            _layer._launch_threads()
        except BaseException as error:  # noqa: BLE001  raised again in the caller
            failed.append(error)

    thread = threading.Thread(target=launch, name="fastopt-launch")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def affinity() -> int:
    """Return the number of processors that this process may run on now."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def budget() -> int:
    """Return the number of threads that a large step would use if it were taken now."""
    if _orphan or numba.config.NUMBA_NUM_THREADS == 1:
        return 1
    _launch()
    allowed: int = numba.get_num_threads()
    return min(allowed, affinity())


def layer() -> str:
    """Return the name of the threading layer, launching it if need be, or why there is none."""
    if _orphan:
        return "serial: the process was forked from one whose threads were running"
    if numba.config.NUMBA_NUM_THREADS == 1:
        return "serial: NUMBA_NUM_THREADS is 1"
    _launch()
    return str(numba.threading_layer())


def compile_for(spec: _compile.Spec, elements: int) -> None:
    """Compile the kernel that :func:`launch` would choose now."""
    _compile.sweep(spec, elements >= PARALLEL_FROM and budget() > 1)


def launch(spec: _compile.Spec, elements: int, arguments: tuple[Any, ...]) -> None:
    """Run the sweep of `spec` over `elements` elements in as many threads as it is worth."""
    threads = budget() if elements >= PARALLEL_FROM else 1
    if threads == 1:
        _compile.sweep(spec, False)(*arguments)
    elif numba.threading_layer() != "workqueue":
        _parallel(_compile.sweep(spec, True), threads, arguments)
    elif _workqueue.acquire(blocking=False):
        try:
            _parallel(_compile.sweep(spec, True), threads, arguments)
        finally:
            _workqueue.release()
    else:
        _compile.sweep(spec, False)(*arguments)


def _parallel(kernel: Callable[..., None], threads: int, arguments: tuple[Any, ...]) -> None:
    allowed = numba.get_num_threads()
    if threads == allowed:
        kernel(*arguments)
        return
    numba.set_num_threads(threads)
    try:
        kernel(*arguments)
    finally:
        numba.set_num_threads(allowed)
