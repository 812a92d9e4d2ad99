"""Whether whoever is answered for longer still may be: an open answer ends once its credential is revoked."""

from __future__ import annotations

from django.utils import timezone

from protocol import ports
from protocol.api.authentication import Caller
from protocol.database_threads import get_watch_thread
from protocol.marks import read_mark


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
        mark = await read_mark()
        if mark == self._mark:
            return True
        (now,) = await get_watch_thread().run(ports.get_authenticator().renew, [self.principal])
        if now is None:
            return False
        self.principal, self._mark = now, mark
        return True
