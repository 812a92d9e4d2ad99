"""What a peer sends that is no command, and how much of it is borne; commands are counted where they begin.

A peer that floods its connection is closed with 4429: an answer to each frame would be what it wants.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from protocol import ports
from protocol.errors import AuthenticationFailed, RateLimited

MAX_STRANGER_FRAMES: Final = 32
"""What may come before authentication: a handshake, credentials, and some mistakes."""
MAX_HEARTBEATS: Final = 1_000
"""Between two looks at the time. They are no commands: who is over a limit must still show that it lives."""


class Manners:
    """Of one connection."""

    def __init__(self, *, close: Callable[[], None]) -> None:
        self._close = close
        self._heartbeats = 0
        self._stranger_frames = 0

    def note_time(self) -> None:
        """Some time passed; heartbeats are counted anew."""
        self._heartbeats = 0

    def note_heartbeat(self) -> None:
        """A heartbeat came."""
        self._heartbeats += 1
        if self._heartbeats > MAX_HEARTBEATS:
            self._close()

    def note_other(self, principal: ports.Principal | None) -> None:
        """A frame came that is neither a command nor a heartbeat: refused, or a stranger's."""
        if principal is None:
            self._stranger_frames += 1
            if self._stranger_frames > MAX_STRANGER_FRAMES:
                self._close()
            return
        try:
            # As a command of no name; one that would have to wait for its token costs less than the waiting.
            ports.get_limiter().try_take(principal=principal, command="")
        except RateLimited:
            self._close()


@asynccontextmanager
async def count_sign_ins(*, address: str | None) -> AsyncIterator[None]:
    """Around the judging of credentials: those that are refused count for the address.

    Raises:
        RateLimited: too many were.
    """
    limiter = ports.get_limiter()
    limiter.check_address(counted=ports.StrangersCount.SIGN_INS, address=address)
    try:
        yield
    except AuthenticationFailed:
        await limiter.take_address(counted=ports.StrangersCount.SIGN_INS, address=address)
        raise
