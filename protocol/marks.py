"""The mark that every revocation and every change of rights moves on, as an event loop's requests have it.

Read twice a second at most, whoever asks; at once where this process itself has moved it. Open sockets are watched by
``revocations``.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final
from weakref import WeakKeyDictionary

from protocol import ports
from protocol.database_threads import get_watch_thread

REUSE_SECONDS: Final = 0.5

_moves = 0


def note_moved() -> None:
    """This process has moved the mark: what was read before is not used again. From any thread, after the commit."""
    global _moves
    _moves += 1


class _MarkReader:
    """The mark, at most ``REUSE_SECONDS`` old."""

    def __init__(self) -> None:
        self._read_at = 0.0
        self._moves = -1
        self._reading: asyncio.Future[int] | None = None

    async def read(self) -> int:
        if self._reading is None or self._moves != _moves or self._is_old(self._reading):
            self._read_at, self._moves = time.monotonic(), _moves
            self._reading = asyncio.ensure_future(get_watch_thread().run(ports.get_authenticator().get_mark))
        if self._reading.done():
            return self._reading.result()
        # Shielded: one answer that ends must not take the mark from the others.
        return await asyncio.shield(self._reading)

    def _is_old(self, reading: asyncio.Future[int]) -> bool:
        return reading.done() and time.monotonic() - self._read_at > REUSE_SECONDS


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _MarkReader] = WeakKeyDictionary()


async def read_mark() -> int:
    """Where the mark stands.

    Raises:
        StorageUnavailable: it cannot be known.
    """
    return await _readers.setdefault(asyncio.get_running_loop(), _MarkReader()).read()
