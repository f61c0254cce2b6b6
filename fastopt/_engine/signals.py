"""Signals that come while a step is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_NUMBERS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


@contextmanager
def deferred() -> Iterator[None]:
    """Have Python's handlers of signals run after the block, not within it.

    They run in the main thread alone, between any two operations, and most of them raise an exception: Ctrl-C's does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[tuple[int, FrameType | None]] = []
    within = True
    handlers = {number: handler for number in _NUMBERS if callable(handler := signal.getsignal(number))}

    def note(number: int, frame: FrameType | None) -> None:
        if within:
            seen.append((number, frame))
        else:  # of a signal that comes before its own handler is back
            handlers[number](number, frame)

    try:
        for number in handlers:
            signal.signal(number, note)
        yield
    finally:
        within = False
        with ExitStack() as stack:  # each is called, whatever the others raise; the last one first
            for number, frame in reversed(seen):
                stack.callback(handlers[number], number, frame)
            for number, handler in handlers.items():
                signal.signal(number, handler)
