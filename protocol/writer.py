"""The sending half of one socket: what the connection has to send goes out in order, then its closing frame.

One flush runs at a time; who comes meanwhile leaves its message in the connection's queue and goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from protocol.domain.connection import Connection

MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""Reading pauses while more output than this is unsent."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


class SocketWriter:
    """See the module. Belongs to the event loop."""

    def __init__(self, *, connection: Connection, send: Send, abort: Callable[[], None] | None) -> None:
        self.is_flushing = False
        self.blocked_since: float | None = None
        """Since when the peer has not taken the message that is being sent; monotonic seconds."""
        self._connection = connection
        self._send = send
        self._abort = abort
        self._room = asyncio.Event()
        self._room.set()
        self._is_close_sent = False

    async def flush(self) -> None:
        """Send what is queued, in order, then close if the connection asks for that."""
        if self.is_flushing:
            return
        self.is_flushing = True
        connection = self._connection
        try:
            while connection.has_output() and not self._is_close_sent:
                for encoded in connection.take_output():
                    self.blocked_since = time.monotonic()
                    if connection.codec.is_text:
                        await self._send({"type": "websocket.send", "text": encoded.decode()})
                    else:
                        await self._send({"type": "websocket.send", "bytes": encoded})
                self.blocked_since = None
            if connection.closing is not None and not self._is_close_sent:
                self._is_close_sent = True
                reason = connection.closing.value
                await self._send({"type": "websocket.close", "code": reason.code, "reason": reason.meaning})
        finally:
            self.is_flushing = False
            self.blocked_since = None
            # Also where the peer is gone: who waits for room has to come to the socket's end.
            self._room.set()

    async def wait_for_room(self) -> None:
        """Pause reading while too much output is unsent."""
        if self._connection.output_bytes > MAX_UNSENT_BYTES:
            self._room.clear()
            await self._room.wait()

    def cut_off(self) -> None:
        """Drop a connection whose peer does not read: a closing frame would wait behind what it has not read."""
        if self._abort is not None:
            self._abort()
