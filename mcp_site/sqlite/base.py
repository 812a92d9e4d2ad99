"""SQLite whose writers take turns.

SQLite lets one transaction write at a time, and has the others ask again after sleeps that grow to 100 ms, long after
the lock is free: with three busy processes that idles the machine and makes one call in twenty wait ten times as long
(ADR 0012). Here whoever begins a transaction first takes a lock: of its process, then on a file beside the database,
asking every half millisecond. That only orders the writers: what is right is still up to SQLite's own lock, and the
kernel frees the turn of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from typing import Any, Final

from django.db import OperationalError
from django.db.backends.sqlite3 import base

POLL_SECONDS: Final = 0.0005
DEFAULT_TIMEOUT_SECONDS: Final = 5.0
"""As Python's ``sqlite3``."""

_own_turn = threading.Lock()
"""Held by the thread of this process that has the turn or asks for it, so that one asks and the others sleep."""


def _renew_own_turn() -> None:
    global _own_turn
    _own_turn = threading.Lock()


# A child has none of its parent's threads, so nobody would ever release it there.
os.register_at_fork(after_in_child=_renew_own_turn)


class Connection(sqlite3.Connection):
    """A connection that gives its turn back with the end of its transaction, or its own."""

    _turn: tuple[int, threading.Lock] | None = None
    """The descriptor whose lock is the turn, and the lock within the process."""

    def take_turn(self, *, path: str, seconds: float) -> None:
        """Wait until no other connection has its turn.

        Raises:
            OperationalError: it did not come in time.
        """
        if self._turn is not None:
            return
        give_up_at = time.monotonic() + seconds
        own_turn = _own_turn
        if not own_turn.acquire(timeout=seconds):
            raise OperationalError("database is locked")
        try:
            self._turn = (_lock_file(path, give_up_at=give_up_at), own_turn)
        except BaseException:
            own_turn.release()
            raise

    def give_turn(self) -> None:
        """Let the next one write; without a turn it does nothing."""
        if self._turn is not None:
            (descriptor, own_turn), self._turn = self._turn, None
            os.close(descriptor)
            own_turn.release()

    def commit(self) -> None:
        super().commit()
        # Where that failed the transaction is still open, and ends with a rollback.
        self.give_turn()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self.give_turn()

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.give_turn()


def _lock_file(path: str, *, give_up_at: float) -> int:
    # Opened each time: a descriptor that is kept would be shared with a forked process, and so would its lock.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() >= give_up_at:
                raise OperationalError("database is locked")
            time.sleep(POLL_SECONDS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class DatabaseWrapper(base.DatabaseWrapper):
    """See the module."""

    def get_connection_params(self) -> dict[str, Any]:
        return {**super().get_connection_params(), "factory": Connection}

    def _start_transaction_under_autocommit(self) -> None:
        if not self.is_in_memory_db():
            settings: dict[str, Any] = self.settings_dict
            seconds = settings["OPTIONS"].get("timeout", DEFAULT_TIMEOUT_SECONDS)
            self.connection.take_turn(path=f"{settings['NAME']}-turn", seconds=seconds)
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]  # the stubs leave it out
        except BaseException:
            self.connection.give_turn()
            raise
