"""uvicorn's WebSocket with four things that it lacks.

A stuck peer can be cut off, bad text costs no connection, a peer that sends too much is told why it is closed, and a
refused upgrade is no error of ours.
"""

from __future__ import annotations

from typing import Final

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from protocol.consumers import ABORT_EXTENSION

LINGER_SECONDS: Final = 2.0
"""How long what a failed connection still sends is read and thrown away."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """See the module."""

    _is_failed = False

    def data_received(self, data: bytes) -> None:
        if not self._is_failed:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Send the closing frame (1002, 1009), then read on for a moment without looking.

        Closed on data that nobody read, a socket is reset by the kernel, and the peer loses the closing frame.
        """
        assert self.conn.close_sent is not None  # noqa: S101  # the library has failed the connection
        self._is_failed = self.close_sent = True
        self.queue.put_nowait(
            {
                "type": "websocket.disconnect",
                "code": self.conn.close_sent.code,
                "reason": self.conn.close_sent.reason,
            }
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # A refused upgrade has no scope.
        if hasattr(self, "scope"):
            extensions = self.scope["extensions"]
            extensions[ABORT_EXTENSION] = {"abort": self.transport.abort}

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent and message["type"] in {"websocket.send", "websocket.close"}:
            # The peer closed, or broke RFC 6455 and was failed, while this was on its way: that is the peer's
            # doing, which the library would call the application's mistake.
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Or the refusal, which any stranger may provoke, is logged as a failure of the application.
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        """Hand a message over; text that is not UTF-8 as bytes, so that it gets its error answer.

        RFC 6455 (section 8.1) would have the connection failed. protocol.md wants it usable after any bad message, and
        nothing is lost by it: the message is answered, not interpreted.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
            if not data.isascii():
                try:
                    data.decode()
                except UnicodeDecodeError:
                    self.curr_msg_data_type = "bytes"
        super().send_receive_event_to_app()
