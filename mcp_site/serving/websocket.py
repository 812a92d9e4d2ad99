"""uvicorn's WebSocket with two things that it lacks: a stuck peer can be cut off, and bad text costs no connection."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from protocol.consumers import ABORT_EXTENSION


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """See the module."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # A refused upgrade has no scope.
        if hasattr(self, "scope"):
            extensions = self.scope["extensions"]
            extensions[ABORT_EXTENSION] = {"abort": self.transport.abort}

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
