"""A small client of the protocol for tests, over a real WebSocket: JSON and MessagePack, typed, every wait bounded.

It knows the wire from protocol.md, not from the server's code: what it shares with the server is nothing.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

WAIT_SECONDS = 15.0
TERMINAL = frozenset({"response", "error"})


class Encoding(enum.StrEnum):
    """How messages are written, by the name of the subprotocol."""

    JSON = "mcp.v1.json"
    MESSAGEPACK = "mcp.v1.msgpack"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message from the server."""

    id: str
    type: str
    payload: dict[str, Any]
    timestamp: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def correlation_id(self) -> str | None:
        return self.metadata.get("correlation_id")

    @property
    def sequence(self) -> int | None:
        return self.metadata.get("sequence")

    @property
    def code(self) -> str:
        """An error's code; of a message that is none, what it is."""
        return str(self.payload["code"]) if self.type == "error" else f"no error but {self}"

    @property
    def details(self) -> dict[str, Any]:
        details: dict[str, Any] = self.payload["details"]
        return details

    @property
    def result(self) -> Any:
        """A response's result; fails with the error of one."""
        assert self.type == "response", self
        return self.payload["result"]

    @property
    def event(self) -> str:
        return str(self.payload["event"])

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.payload["data"]
        return data


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A command's terminal message, and the events that came with it before."""

    events: list[Message]
    terminal: Message

    @property
    def result(self) -> Any:
        return self.terminal.result

    @property
    def code(self) -> str:
        return self.terminal.code


class Client:
    """One connection."""

    def __init__(self, socket: ClientConnection, encoding: Encoding) -> None:
        self.socket = socket
        self.encoding = encoding
        self.session_id = ""
        self.received: list[Message] = []
        """Everything that came so far, in order."""
        self._ids = itertools.count(1)

    # What goes out

    async def send(self, message_type: str, payload: Any, *, message_id: str | None = None, **fields: Any) -> str:
        """Send a message; its id. ``fields`` are further top-level fields."""
        message_id = message_id or f"m-{next(self._ids)}"
        await self.send_value(
            {"id": message_id, "type": message_type, "payload": payload, "timestamp": get_timestamp(), **fields}
        )
        return message_id

    async def send_command(
        self, command: str, arguments: Any = None, *, message_id: str | None = None, **metadata: Any
    ) -> str:
        """Send a command; its id."""
        payload = {"command": command, "arguments": {} if arguments is None else arguments}
        return await self.send("command", payload, message_id=message_id, metadata=metadata or None)

    async def send_value(self, value: Any) -> None:
        """Send any value as one frame of the connection's encoding."""
        if self.encoding is Encoding.JSON:
            await self.socket.send(json.dumps(value))
        else:
            await self.socket.send(msgspec.msgpack.encode(value))

    async def send_text(self, data: bytes | str) -> None:
        """Send a text frame of these bytes, whatever they are."""
        await self.socket.send(data, text=True)

    async def send_binary(self, data: bytes) -> None:
        await self.socket.send(data, text=False)

    # What comes in

    async def receive(self, *, seconds: float = WAIT_SECONDS) -> Message:
        """The next message."""
        async with asyncio.timeout(seconds):
            frame = await self.socket.recv()
        assert isinstance(frame, str) == (self.encoding is Encoding.JSON), "a frame of the wrong kind"
        value = json.loads(frame) if isinstance(frame, str) else msgspec.msgpack.decode(frame)
        value["metadata"] = value.get("metadata") or {}
        message = Message(**value)
        self.received.append(message)
        return message

    async def wait_for_answers(self, message_ids: Iterable[str]) -> dict[str, Answer]:
        """The answers to all of these, by id; fails where one is answered twice or events come after its end."""
        waiting = set(message_ids)
        events: dict[str, list[Message]] = {message_id: [] for message_id in waiting}
        answers: dict[str, Answer] = {}
        while waiting:
            message = await self.receive()
            key = message.correlation_id
            if key is None or key not in events:
                continue
            assert key not in answers, f"after its terminal answer {key} got {message}"
            if message.type in TERMINAL:
                waiting.discard(key)
                answers[key] = Answer(events=events[key], terminal=message)
            else:
                events[key].append(message)
        return answers

    async def wait_for_answer(self, message_id: str) -> Answer:
        return (await self.wait_for_answers([message_id]))[message_id]

    async def wait_for_event(self, event: str) -> Message:
        """The next event of that name; what comes before it is passed over."""
        while True:
            message = await self.receive()
            if message.type == "event" and message.event == event:
                return message

    async def wait_for_reply(self, message_id: str) -> Message:
        """The next message that answers the one of this id, whatever its type."""
        while True:
            message = await self.receive()
            if message.correlation_id == message_id:
                return message

    async def wait_closed(self, *, seconds: float = WAIT_SECONDS) -> int | None:
        """Read on until the server has closed; its close code, ``None`` where it sent none."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.receive(seconds=seconds)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else None

    # Whole steps

    async def shake_hands(self, **request: Any) -> Message:
        """Shake hands; the server's answer."""
        payload = {"protocol_versions": ["1.1"], "client": {"name": "tests"}, **request}
        return await self.wait_for_reply(await self.send("handshake", payload))

    async def authenticate(self, key: str) -> Message:
        """Show an API key; the server's answer."""
        return await self.show(method="api_key", key=key)

    async def show(self, **credentials: str) -> Message:
        """Show credentials of any kind; the server's answer."""
        answer = await self.wait_for_reply(await self.send("authentication", credentials))
        if answer.type == "authentication":
            self.session_id = answer.payload["session_id"]
        return answer

    async def call(self, command: str, arguments: Any = None, **metadata: Any) -> Answer:
        """Send a command and wait for its end."""
        return await self.wait_for_answer(await self.send_command(command, arguments, **metadata))

    async def execute(self, tool: str, input_value: Any = None, *, mode: str = "wait", **metadata: Any) -> Answer:
        """Run a tool."""
        arguments = {"tool": tool, "input": {} if input_value is None else input_value, "mode": mode}
        return await self.call("tools.execute", arguments, **metadata)

    @asynccontextmanager
    async def kept_alive(self, *, every_seconds: float = 0.2) -> AsyncIterator[None]:
        """Send heartbeats meanwhile."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(every_seconds)
                await self.send("heartbeat", {"ack": 0})

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def check_usable(self) -> None:
        """Fail where the connection does not answer a ping any more."""
        answer = await self.call("session.ping")
        assert set(answer.result) == {"server_time"}


def get_timestamp() -> str:
    """Now, as the wire has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@asynccontextmanager
async def open_client(
    url: str, *, encoding: Encoding = Encoding.JSON, address: str | None = None
) -> AsyncIterator[Client]:
    """A connected client that has said nothing yet; ``address`` is the one of this machine's that it comes from."""
    async with connect(
        url,
        subprotocols=[Subprotocol(encoding.value)],
        compression=None,
        max_size=None,
        max_queue=None,
        ping_interval=None,
        open_timeout=WAIT_SECONDS,
        close_timeout=2,
        proxy=None,
        local_addr=None if address is None else (address, 0),
    ) as socket:
        assert socket.subprotocol == encoding.value
        yield Client(socket, encoding)


@asynccontextmanager
async def open_session(
    url: str, key: str, *, encoding: Encoding = Encoding.JSON, **request: Any
) -> AsyncIterator[Client]:
    """A client that has shaken hands (with ``request``'s fields) and authenticated."""
    async with open_client(url, encoding=encoding) as client:
        handshake = await client.shake_hands(**{"features": ["progress"], **request})
        assert handshake.type == "handshake", handshake
        answer = await client.authenticate(key)
        assert answer.type == "authentication", answer
        yield client
