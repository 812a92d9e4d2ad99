"""Ending Python code from within its own process: after a time limit, or when it is cancelled.

Both are signals that raise in the main thread between two bytecodes, so that a loop without any I/O ends too. Code
that stays in C past them is ended by the parent, which kills the process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from django.db import Error, connections

CANCEL_SIGNAL = signal.SIGUSR2
"""What the parent sends to a child whose run is cancelled. Outside a run it does nothing."""


class RunInterrupted(BaseException):
    """The run must end now. Not an ``Exception``: a tool that catches those must not outlive it."""


class TimeLimitReached(RunInterrupted):
    """The limit passed."""


class CancelRequested(RunInterrupted):
    """Somebody cancelled the run."""


class _Hold:
    """Whether interruptions are held back now. Of the main thread, as they are."""

    depth = 0
    waiting: type[RunInterrupted] | None = None
    struck: type[RunInterrupted] | None = None
    """The one that was raised."""

    @classmethod
    def reset(cls) -> None:
        cls.depth, cls.waiting, cls.struck = 0, None, None


@contextlib.contextmanager
def interruptible(*, seconds: float) -> Iterator[None]:
    """Raise ``TimeLimitReached`` in the body after that time, ``CancelRequested`` when the parent says so.

    Only in a process's main thread, which is where a worker runs tools. Once one was raised, the other is not, and what
    the body makes of it (an error of the broken database connection, say) comes out as that one all the same. After
    one, whether or not the body let it through, the thread's database connections are new.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Only a process's main thread can be interrupted")
    if seconds <= 0:
        raise TimeLimitReached
    _Hold.reset()
    previous = {
        signal.SIGALRM: signal.signal(signal.SIGALRM, _raise_time_limit_reached),
        CANCEL_SIGNAL: signal.signal(CANCEL_SIGNAL, _raise_cancel_requested),
    }
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except RunInterrupted:
        raise
    except BaseException as error:
        if _Hold.struck is None:
            raise
        raise _Hold.struck from error
    finally:
        _disarm()
        for number, handler in previous.items():
            signal.signal(number, handler)
        if _Hold.struck is not None:
            drop_connections()


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep interruptions out of the body; one that comes meanwhile strikes behind it.

    Not by the thread's signal mask: with it the kernel hands the signal to another thread, and Python raises here.
    """
    _Hold.depth += 1
    try:
        yield
    finally:
        _Hold.depth -= 1
        if _Hold.waiting is not None and not _Hold.depth:
            _strike(_Hold.waiting)


def drop_connections() -> None:
    """Give up the thread's database connections; what was not committed is rolled back, the next use opens new ones.

    A strike between a BEGIN and Django's note of it leaves a connection that says of itself that nothing is open: what
    is recorded by it next would fail, or be part of a transaction that never ends, with every other writer waiting.
    """
    for connection in connections.all(initialized_only=True):
        broken = connection.connection
        del connections[connection.alias]
        if broken is not None:
            with contextlib.suppress(Error):
                broken.close()
            pool = getattr(connection, "pool", None)
            if pool is not None:
                # Which makes a new one for it.
                pool.putconn(broken)


def ignore_cancellations() -> None:
    """Called once in a new worker process: a cancellation that comes between two runs has nothing to end."""
    signal.signal(CANCEL_SIGNAL, signal.SIG_IGN)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(CANCEL_SIGNAL, signal.SIG_IGN)


def _strike(interruption: type[RunInterrupted]) -> None:
    if _Hold.depth:
        _Hold.waiting = _Hold.waiting or interruption
        return
    _disarm()
    _Hold.struck = interruption
    raise interruption


def _raise_time_limit_reached(_signal_number: int, _frame: FrameType | None) -> None:
    _strike(TimeLimitReached)


def _raise_cancel_requested(_signal_number: int, _frame: FrameType | None) -> None:
    _strike(CancelRequested)
