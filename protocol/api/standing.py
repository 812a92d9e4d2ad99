"""Whether whoever is answered for longer still may be: an open answer ends once its credential is revoked.

All open answers of a process share one look at the mark of revocations, twice a second at most.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final
from weakref import WeakKeyDictionary

from django.utils import timezone

from protocol import ports
from protocol.api.authentication import Caller
from protocol.database_threads import get_watch_thread

REUSE_SECONDS: Final = 0.5


class _MarkReader:
    """The mark, at most ``REUSE_SECONDS`` old."""

    def __init__(self) -> None:
        self._read_at = 0.0
        self._reading: asyncio.Future[int] | None = None

    async def read(self) -> int:
        if self._reading is None or (self._reading.done() and time.monotonic() - self._read_at > REUSE_SECONDS):
            self._read_at = time.monotonic()
            self._reading = asyncio.ensure_future(get_watch_thread().run(ports.get_authenticator().get_mark))
        # Shielded: one answer that ends must not take the mark from the others.
        return await asyncio.shield(self._reading)


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, _MarkReader] = WeakKeyDictionary()


class Standing:
    """What one open answer knows of its caller."""

    def __init__(self, caller: Caller) -> None:
        self.principal = caller.principal
        self._mark: int | None = None

    async def holds(self) -> bool:
        """Whether the caller may still be answered; ``principal`` is then as it is now.

        Raises:
            StorageUnavailable: it cannot be known.
        """
        expires_at = self.principal.expires_at
        if expires_at is not None and expires_at <= timezone.now():
            return False
        mark = await _readers.setdefault(asyncio.get_running_loop(), _MarkReader()).read()
        if mark == self._mark:
            return True
        (now,) = await get_watch_thread().run(ports.get_authenticator().renew, [self.principal])
        if now is None:
            return False
        self.principal, self._mark = now, mark
        return True
