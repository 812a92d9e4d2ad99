"""Ending Python code that runs too long, from within its own process.

A timer signal raises in the main thread between two bytecodes, so that a loop without any I/O ends too. Code that
stays in C past it is ended by Celery's hard limit, which kills the process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TimeLimitReached(BaseException):
    """The limit passed. Not an ``Exception``: a tool that catches those must not outlive it."""


@contextlib.contextmanager
def time_limit(*, seconds: float) -> Iterator[None]:
    """Raise ``TimeLimitReached`` in the body after that time; at once where none is left.

    Only in a process's main thread, which is where a worker runs tools.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("A time limit needs the process's main thread")
    if seconds <= 0:
        raise TimeLimitReached
    previous = signal.signal(signal.SIGALRM, _raise_time_limit_reached)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _raise_time_limit_reached(_signal_number: int, _frame: FrameType | None) -> None:
    raise TimeLimitReached
