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

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import starmap
from operator import call
from pathlib import Path
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import parallel as _layer

from .._arrays.lazy import lazy

# Below this many elements a parallel launch costs more than it saves. Measured with float32 Adam on
# 2 threads: 5.4 µs serial beside 4.7 µs at 2^14 elements, 12.5 beside 9.2 at 2^15.
PARALLEL_FROM = 1 << 15

_workqueue: dict[str, object] = {}  # which step has the layer


def _forked() -> bool:
    """Say whether this process began, by a fork, after Numba was loaded in it, as far as can be told."""
    try:
        stat = Path("/proc/self/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])  # from the start of the system to that of the process
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return False
    # Numba loads logging, which notes the time; a process that was not forked is older than what it loaded.
    loaded: float = logging._startTime  # type: ignore[attr-defined]
    since = time.time() - (loaded / 1e9 if loaded > 1e15 else loaded)  # nanoseconds from Python 3.13 on
    return age < since - 0.05


# Whether this is a forked child of a process that had launched the threads. Numba may have done so before fastopt was
# loaded: in this process, or in the one that it was forked from.
_orphan = bool(_layer._is_initialized) and _forked()


def _after_fork() -> None:
    global _orphan
    _orphan = bool(_layer._is_initialized)
    _workqueue.clear()
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    # A child has the locks of its parent as they are, and only the thread that forked: what another one held, such as
    # Numba's lock while it compiled, would never be released.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork,
    )


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
    with global_compiler_lock:  # so that no fork comes in between
        _launch_locked()


def _launch_locked() -> None:
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
    # Numba's own enters a lock first, which an interrupt at the wrong instruction would leave taken for good.
    allowed: int = _layer._get_num_threads()
    return min(allowed, affinity())


def layer() -> str:
    """Return the name of the threading layer, launching it if need be, or why there is none."""
    if _orphan:
        return "serial: the process was forked from one whose threads were running"
    if numba.config.NUMBA_NUM_THREADS == 1:
        return "serial: NUMBA_NUM_THREADS is 1"
    _launch()
    return str(numba.threading_layer())


class Kernels:
    """A sweep over so many elements, `serial` and `in_parallel`, each compiled when it is first needed.

    Parameters
    ----------
    sweep : callable
        ``sweep(parallel)`` compiles it.
    elements : int

    Attributes
    ----------
    threads : int
        How many threads the next launch takes; set by :meth:`prepare`.
    """

    def __init__(self, sweep: Callable[[bool], Any], elements: int) -> None:
        self._sweep, self.large, self.threads = sweep, elements >= PARALLEL_FROM, 1

    @lazy
    def serial(self) -> Any:
        """The kernel for one thread."""
        return self._sweep(False)

    @lazy
    def in_parallel(self) -> Any:
        """The kernel for several."""
        return self._sweep(True)

    def prepare(self) -> None:
        """Decide in how many threads to launch, and compile all that this may take, whatever changes before it does."""
        self.threads = budget() if self.large else 1
        if self.threads > 1:
            _ = self.in_parallel
        # The workqueue may be taken by another step then.
        if "serial" not in self.__dict__ and (self.threads == 1 or numba.threading_layer() == "workqueue"):
            _ = self.serial


#: Takes all that an iterator yields and keeps nothing.
_make_all = deque[None](maxlen=0).extend
#: A sweep, and its arguments.
Launch = tuple[Kernels, tuple[Any, ...]]


def launch(launches: Sequence[Launch], *others: tuple[Any, ...]) -> None:
    """Run sweeps that are prepared, and then make other calls of (function, arguments ...).

    All of it or nothing: everything was compiled and decided before the first runs, and then all are called from C,
    where Python runs no handler of a signal between them. The exception of a Ctrl-C comes when the last is done.
    """
    calls: list[tuple[Any, ...]] = []
    for kernels, arguments in launches:
        if kernels.threads > 1:
            _launch_in_parallel(launches, kernels.threads, others)
            return
        calls.append((kernels.serial, *arguments))
    calls += others
    _make_all(starmap(call, calls))


def _launch_in_parallel(launches: Sequence[Launch], threads: int, others: Sequence[tuple[Any, ...]]) -> None:
    step = object()
    try:
        alone = numba.threading_layer() != "workqueue" or _workqueue.setdefault("taken by", step) is step
        calls: list[tuple[Any, ...]] = []
        for kernels, arguments in launches:
            kernel = kernels.in_parallel if kernels.threads > 1 and alone else kernels.serial
            calls.append((kernel, *arguments))
        allowed = _layer._get_num_threads()
        if threads != allowed:
            set_threads = _layer._set_num_threads
            calls = [(set_threads, threads), *calls, (set_threads, allowed)]
        _make_all(starmap(call, [*calls, *others]))
    finally:
        if _workqueue.get("taken by") is step:
            _workqueue.clear()
