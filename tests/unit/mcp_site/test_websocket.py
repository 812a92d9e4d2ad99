"""Our web server's WebSocket, where no test over a real socket can hit the moment."""

from __future__ import annotations

import pytest

from mcp_site.serving.websocket import BoundedWebSocketProtocol


async def test_an_answer_that_crosses_the_end_of_a_connection_finds_its_peer_gone() -> None:
    protocol = BoundedWebSocketProtocol.__new__(BoundedWebSocketProtocol)
    protocol.close_sent = True
    with pytest.raises(OSError, match=r"\A\Z"):  # which the consumer knows to mean that
        await protocol.send({"type": "websocket.send", "text": "{}", "bytes": None})
