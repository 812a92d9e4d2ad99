"""SQLite whose writers take turns.

SQLite lets one transaction write at a time, and has the others ask again after sleeps that grow to 100 ms, long after
the lock is free: with three busy processes that idles the machine and makes one call in twenty wait ten times as long
(ADR 0012). Here whoever begins a transaction first takes a lock on a file beside the database, asking every
millisecond. That only orders the writers: what is right is still up to SQLite's own lock, and the kernel frees the
turn of a process that dies.

A worker's run may be interrupted between any two lines here. So the file is the connection's before it is locked, and
closed with it: whoever closes the connection gives the turn back, however far it was taken. Nothing here may have a
`__del__`, as an interruption that strikes in one is lost.
"""

from __future__ import annotations

import fcntl
import io
import sqlite3
import time
from typing import Any, Final

from django.db import OperationalError
from django.db.backends.sqlite3 import base

POLL_SECONDS: Final = 0.001
DEFAULT_TIMEOUT_SECONDS: Final = 5.0
"""As Python's ``sqlite3``."""


class Connection(sqlite3.Connection):
    """A connection that gives its turn back with the end of its transaction, or its own."""

    _turn: io.FileIO | None = None
    """The file whose lock is the turn. Closed with the last reference to it, whatever becomes of the connection."""

    def take_turn(self, *, path: str, seconds: float) -> None:
        """Wait until no other connection has its turn.

        Raises:
            OperationalError: it did not come in time.
        """
        if self._turn is None:
            self._turn = io.FileIO(path, "a")
        give_up_at = time.monotonic() + seconds
        while not _try_lock(self._turn):
            if time.monotonic() >= give_up_at:
                raise OperationalError("database is locked")
            time.sleep(POLL_SECONDS)

    def give_turn(self) -> None:
        """Let the next one write; without a turn it does nothing."""
        if self._turn is not None and not self._turn.closed:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

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
            if self._turn is not None:
                self._turn.close()


def _try_lock(file: io.FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
