"""Where commands that query run: a small pool of threads, each with its own database connection.

One hop a command, whatever it queries. asgiref's thread-sensitive thread is not used: it is one for the whole process,
so that a slow query there would hold up every socket. The pool's backlog is bounded; beyond it a command is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from protocol.errors import Overloaded, StorageUnavailable
from protocol.evidence import Evidence, get_evidence, keep_evidence

P = ParamSpec("P")
T = TypeVar("T")

MAX_BACKLOG = 2_000
"""Commands that wait for a thread; at the measured 300 a second this is several seconds' worth."""


class DatabaseThreads:
    """A bounded pool. ``run`` is called on the event loop."""

    def __init__(self, *, count: int, max_backlog: int = MAX_BACKLOG) -> None:
        self._executor = ThreadPoolExecutor(max_workers=count, thread_name_prefix="database")
        self._max_backlog = max_backlog
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function``'s result, run as one hop.

        Raises:
            Overloaded: too many wait already.
            StorageUnavailable: the database is gone, full or locked beyond its time limit.
        """
        if self._waiting >= self._max_backlog:
            raise Overloaded("Too many commands wait for the database.", retry_after_ms=1000)
        self._waiting += 1
        evidence = get_evidence()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: _run_with_evidence(evidence, function, *args, **kwargs)
            )
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """Wait for what runs, then end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _run_with_evidence(evidence: Evidence, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    if not evidence:
        return run_with_connections(function, *args, **kwargs)
    with keep_evidence(evidence):
        return run_with_connections(function, *args, **kwargs)


def run_with_connections(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it with usable database connections and give back what is past its age, as a request does."""
    try:
        return function(*args, **kwargs)
    except (OperationalError, InterfaceError) as error:
        raise StorageUnavailable(retry_after_ms=1000) from error
    finally:
        close_old_connections()


async def release_request_thread() -> None:
    """End the thread that Django keeps for the current HTTP request, and its database connections.

    For a response that is streamed from the event loop for long: Django would keep both until its end. What the
    request still does in a thread afterwards gets a new one.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or context not in SyncToAsync.context_to_thread_executor:
        return
    await sync_to_async(connections.close_all)()
    SyncToAsync.context_to_thread_executor.pop(context).shutdown(wait=False)


_threads: DatabaseThreads | None = None
_watch: DatabaseThreads | None = None
_lock = threading.Lock()


def get_database_threads() -> DatabaseThreads:
    """The process's pool, made at first use."""
    global _threads
    with _lock:
        if _threads is None:
            _threads = DatabaseThreads(count=settings.DATABASE_THREADS)
        return _threads


def get_watch_thread() -> DatabaseThreads:
    """One more thread, for what must not wait behind commands; made at first use."""
    global _watch
    with _lock:
        if _watch is None:
            _watch = DatabaseThreads(count=1)
        return _watch
