"""The other end of our WebSocket consumer in the same process: a socket as an ASGI server has it, without the server.

For what a real socket cannot be made to do on demand: a peer that stops reading, or is gone at a given moment.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from protocol.consumers import MachineContextConsumer

WAIT_SECONDS = 10.0


class ServerSocket:
    """One WebSocket as the consumer sees it, driven from the client's side."""

    def __init__(self, *, subprotocols: Sequence[str], extensions: dict[str, Any]) -> None:
        self.is_text = "mcp.v1.msgpack" not in subprotocols
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ws/",
            "client": ("127.0.0.1", 50_000),
            "subprotocols": list(subprotocols),
            "extensions": {**extensions, "mcp.abort": {"abort": self.lose}},
        }
        self.readable = asyncio.Event()
        """Cleared: the peer does not read, and whoever sends waits."""
        self.readable.set()
        self.is_lost = False
        self.close_code: int | None = None
        self._ids = itertools.count(1)
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_client: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_server.put_nowait({"type": "websocket.connect"})

    # The server's half

    async def give(self) -> dict[str, Any]:
        """The consumer's ``receive``."""
        return await self._to_server.get()

    async def take(self, message: dict[str, Any]) -> None:
        """The consumer's ``send``. As a server does, it refuses what comes behind a closing frame."""
        await self.readable.wait()
        if self.is_lost:
            raise ConnectionResetError
        assert self.close_code is None, f"after the closing frame: {message}"
        if message["type"] == "websocket.close":
            self.close_code = message.get("code", 1000)
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": self.close_code})
        self._to_client.put_nowait(message)

    def lose(self) -> None:
        """The connection is gone without a closing frame."""
        self.is_lost = True
        self.readable.set()
        self._to_server.put_nowait({"type": "websocket.disconnect", "code": 1006})

    # The client's half

    def send(self, message_type: str, payload: Any, *, message_id: str | None = None, **fields: Any) -> str:
        """Send a message; its id. It waits for nothing: several in a row arrive at once."""
        message_id = message_id or f"m-{next(self._ids)}"
        value = {
            "id": message_id,
            "type": message_type,
            "payload": payload,
            "timestamp": "2026-11-20T16:31:00.123Z",
            **fields,
        }
        self.send_frame(msgspec.json.encode(value) if self.is_text else msgspec.msgpack.encode(value))
        return message_id

    def send_frame(self, frame: bytes) -> None:
        """Send these bytes as one frame."""
        if self.is_text:
            self._to_server.put_nowait({"type": "websocket.receive", "text": frame.decode()})
        else:
            self._to_server.put_nowait({"type": "websocket.receive", "bytes": frame})

    def send_command(self, command: str, arguments: Any = None, **fields: Any) -> str:
        payload = {"command": command, "arguments": {} if arguments is None else arguments}
        return self.send("command", payload, **fields)

    async def receive_raw(self) -> dict[str, Any]:
        """The next thing that the server did."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._to_client.get()

    async def receive_frame(self) -> bytes:
        """The next message's bytes."""
        sent = await self.receive_raw()
        assert sent["type"] == "websocket.send", sent
        frame: bytes = sent["text"].encode() if self.is_text else sent["bytes"]
        return frame

    async def receive(self) -> dict[str, Any]:
        """The next message."""
        frame = await self.receive_frame()
        value: dict[str, Any] = msgspec.json.decode(frame) if self.is_text else msgspec.msgpack.decode(frame)
        return value

    async def receive_answer(self, message_id: str) -> dict[str, Any]:
        """The next message that answers this one; events and others' answers are passed over."""
        while True:
            message = await self.receive()
            if message["type"] != "event" and (message.get("metadata") or {}).get("correlation_id") == message_id:
                return message

    async def authenticate(self, key: str, **request: Any) -> dict[str, Any]:
        """Shake hands and authenticate; the payload of the answer."""
        await self.receive_raw()
        payload = {"protocol_versions": ["1.1"], "client": {"name": "test"}, **request}
        await self.receive_answer(self.send("handshake", payload))
        answer = await self.receive_answer(self.send("authentication", {"method": "api_key", "key": key}))
        assert answer["type"] == "authentication", answer
        authenticated: dict[str, Any] = answer["payload"]
        return authenticated


@asynccontextmanager
async def open_socket(
    *, subprotocols: Sequence[str] = ("mcp.v1.json",), extensions: dict[str, Any] | None = None
) -> AsyncIterator[tuple[ServerSocket, asyncio.Task[None]]]:
    """A socket and the task that serves it; the task is waited for, and must have ended by itself."""
    socket = ServerSocket(subprotocols=subprotocols, extensions=extensions or {})
    consumer = MachineContextConsumer()
    serving = asyncio.create_task(consumer(socket.scope, socket.give, socket.take))
    try:
        yield socket, serving
        if socket.close_code is None:
            socket.lose()
        await asyncio.wait_for(serving, WAIT_SECONDS)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
