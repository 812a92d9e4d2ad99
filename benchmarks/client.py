"""One connection of the load generator: upgrade, handshake, authentication, then whole messages both ways.

Light by intent (``benchmarks.frames``): it knows as much of the protocol as the workloads need, and it checks what it
knows. Workloads are ``benchmarks.load``'s.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from benchmarks.frames import CLOSE, PING, PONG, TEXT, FrameError, FrameReader, encode_frame, encode_head
from benchmarks.sealing import HandshakeAnswer, Level, Sealing

OPEN_SECONDS: Final = 30.0
ID_LENGTH: Final = 36
"""As long as the UUIDs that ordinary clients send."""


class Metadata(msgspec.Struct, frozen=True):
    correlation_id: str | None = None
    sequence: int | None = None


class Message(msgspec.Struct, frozen=True):
    """What the server sends, as far as it is looked at."""

    type: str
    payload: msgspec.Raw
    metadata: Metadata | None = None


class ClientError(Exception):
    """The connection could not be opened, or is gone."""


_decode = msgspec.json.Decoder(Message).decode


class Template:
    """A message's frame, ready but for its id."""

    def __init__(self, *, message_type: str, payload: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        place = "#" * ID_LENGTH
        body = encode_message(place, message_type=message_type, payload=payload, metadata=metadata)
        before, after = body.split(place.encode())
        self.size_bytes = len(before) + ID_LENGTH + len(after)
        self._before = encode_head(self.size_bytes) + before
        self._after = after

    def fill(self, message_id: str) -> bytes:
        """The frame with this id of ``ID_LENGTH`` characters."""
        return self._before + message_id.encode() + self._after


def encode_message(
    message_id: str, *, message_type: str, payload: dict[str, Any], metadata: dict[str, Any] | None = None
) -> bytes:
    """A message as an ordinary client sends it."""
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = {"id": message_id, "type": message_type, "payload": payload, "metadata": metadata, "timestamp": timestamp}
    return msgspec.json.encode(message)


class Client(asyncio.Protocol):
    """See the module. ``on_message`` is called with each message once ``open`` has returned."""

    def __init__(self, *, number: int, url: str, sealing: Sealing | None = None) -> None:
        self.sealing = sealing
        """Where the connection's messages are sealed."""
        self.on_message: Callable[[Message], None] = self._take_answer
        self.on_lost: Callable[[], None] = lambda: None
        self.is_open = False
        self.close_code: int | None = None
        self._url = urlsplit(url)
        self._id_prefix = f"00000000-0000-7000-8000-{number:05x}"
        self._last_id = 0
        self._transport: asyncio.WriteTransport | None = None
        self._head: bytearray | None = bytearray()
        self._frames = FrameReader()
        self._outgoing: list[bytes] = []
        self._answer: asyncio.Future[Message] | None = None

    # What the workloads use

    async def open(self, *, key: str) -> None:
        """Upgrade, shake hands and authenticate.

        Raises:
            ClientError: the server refuses, or does not answer in time.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._answer = loop.create_future()
                is_secure = self._url.scheme == "wss"
                await loop.create_connection(
                    lambda: self,
                    self._url.hostname or "",
                    self._url.port or (443 if is_secure else 80),
                    ssl=ssl.create_default_context() if is_secure else None,
                )
                await self._answer
                client = {"name": "benchmark", "version": "1"}
                request = {"protocol_versions": ["1.1"], "client": client, "features": ["progress"]}
                await self._shake_hands(request)
                answer = await self._ask("authentication", {"method": "api_key", "key": key})
                if self.sealing is not None:
                    self.sealing.session_id = msgspec.json.decode(answer.payload)["session_id"]
        except (OSError, TimeoutError) as error:
            raise ClientError(f"{self._url.geturl()}: {error if str(error) else 'no answer in time'}") from error
        self.is_open = True

    def make_id(self) -> str:
        """The next message's id."""
        self._last_id += 1
        return f"{self._id_prefix}{self._last_id:07x}"

    def queue(self, frame: bytes) -> None:
        """Write the frame with the others that are queued meanwhile, once what has come in is worked off."""
        self._outgoing.append(frame)

    def flush(self) -> None:
        """Write what is queued."""
        if self._outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    async def close(self) -> None:
        """End the session and wait until the server has closed."""
        if not self.is_open:
            return
        lost = asyncio.Event()
        self.on_lost = lost.set
        self.on_message = lambda _: None
        self._send("command", {"command": "session.close"})
        async with asyncio.timeout(OPEN_SECONDS):
            await lost.wait()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but its class.
        self._transport = cast("asyncio.WriteTransport", transport)
        nonce = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {self._url.path or '/'} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {nonce}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mcp.v1.json\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            data = self._take_head(data)
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode == TEXT:
                    is_sealed = self.sealing is not None and self.sealing.is_agreed
                    self.on_message(_decode(self.sealing.open(payload) if is_sealed and self.sealing else payload))
                else:
                    self._take_control(opcode, payload)
        except (FrameError, msgspec.DecodeError) as error:
            self._fail(ClientError(f"what the server sent cannot be read: {error}"))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._fail(ClientError(f"the connection is gone: {exc or self.close_code}"))
        self.on_lost()

    def _take_head(self, data: bytes) -> bytes:
        """Judge the upgrade's answer; what came after it."""
        assert self._head is not None
        self._head += data
        head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
        if not end:
            return b""
        self._head = None
        status = head.partition(b"\r\n")[0].decode(errors="replace")
        if " 101 " not in f"{status} ":
            self._fail(ClientError(f"the upgrade is refused: {status}"))
            return b""
        if self._answer is not None:
            self._answer.set_result(Message(type="upgraded", payload=msgspec.Raw()))
        return rest

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.queue(encode_frame(payload, opcode=PONG))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else None
            self.queue(encode_frame(payload[:2], opcode=CLOSE))

    # Opening

    async def _shake_hands(self, request: dict[str, Any]) -> None:
        if self.sealing is None:
            await self._ask("handshake", request)
            return
        request = {**request, "security_level": self.sealing.level, "key_agreement": self.sealing.make_offer()}
        frame = encode_message(self.make_id(), message_type="handshake", payload=request)
        answer = await self._ask_frame("handshake", frame)
        self.sealing.agree(request=frame, answer=msgspec.json.decode(answer.payload, type=HandshakeAnswer))

    async def _ask(self, message_type: str, payload: dict[str, Any]) -> Message:
        return await self._ask_frame(message_type, self.encode(message_type, payload))

    async def _ask_frame(self, message_type: str, frame: bytes) -> Message:
        self._answer = asyncio.get_running_loop().create_future()
        self.queue(encode_frame(frame))
        self.flush()
        answer = await self._answer
        if answer.type != message_type:
            raise ClientError(f"{message_type} is answered by {bytes(answer.payload).decode()}")
        return answer

    def encode(self, message_type: str, payload: dict[str, Any]) -> bytes:
        """A message with the next id, sealed where the connection's are."""
        message_id = self.make_id()
        if self.sealing is None:
            return encode_message(message_id, message_type=message_type, payload=payload)
        encoded = msgspec.json.encode(payload)
        return self.sealing.seal(message_id, message_type=message_type, payload=encoded, metadata=b"null")

    def _send(self, message_type: str, payload: dict[str, Any]) -> None:
        self.queue(encode_frame(self.encode(message_type, payload)))
        self.flush()

    def _take_answer(self, message: Message) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def _fail(self, error: ClientError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()


async def open_clients(
    *,
    url: str,
    key: str,
    count: int,
    at_once: int = 20,
    level: Level = Level.STANDARD,
    signing_seed: bytes = b"",
) -> list[Client]:
    """That many open connections; at level critical ``signing_seed`` is of the account's key.

    Raises:
        ClientError: one of them is refused.
    """
    gate = asyncio.Semaphore(at_once)

    async def open_one(number: int) -> Client:
        async with gate:
            sealing = None if level is Level.STANDARD else Sealing(level=level, signing_seed=signing_seed)
            client = Client(number=number, url=url, sealing=sealing)
            await client.open(key=key)
            return client

    return list(await asyncio.gather(*(open_one(number) for number in range(1, count + 1))))
