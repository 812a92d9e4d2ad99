"""Our web server's WebSocket, where no test over a real socket can hit the moment."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_site.serving.websocket import BoundedWebSocketProtocol


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send", "text": "{}", "bytes": None},
        {"type": "websocket.close", "code": 4403, "reason": "revoked or denied"},
    ],
)
async def test_what_crosses_the_end_of_a_connection_finds_its_peer_gone(message: Any) -> None:
    protocol = BoundedWebSocketProtocol.__new__(BoundedWebSocketProtocol)
    protocol.close_sent = True
    with pytest.raises(OSError, match=r"\A\Z"):  # which the consumer knows to mean that
        await protocol.send(message)
