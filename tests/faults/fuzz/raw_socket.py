"""A WebSocket by hand (RFC 6455), for frames that no library would send."""

from __future__ import annotations

import asyncio
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlsplit

MASK = b"\x1f\x2e\x3d\x4c"
"""Any will do: what a mask protects is not between us and a server on loopback."""
MAX_READ_BYTES = 1 << 22


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One frame of the server's; a server of ours fragments nothing."""

    opcode: int
    data: bytes

    @property
    def close_code(self) -> int | None:
        return struct.unpack(">H", self.data[:2])[0] if len(self.data) >= 2 else None


class HandshakeRefused(Exception):
    """The upgrade was answered by an HTTP status."""


def encode_frame(
    opcode: int,
    data: bytes,
    *,
    is_final: bool = True,
    is_masked: bool = True,
    reserved: int = 0,
    length: int | None = None,
) -> bytes:
    """A frame; ``length`` is what it claims where that is not the truth, ``reserved`` its three reserved bits."""
    claimed = len(data) if length is None else length
    head = bytearray([(0x80 if is_final else 0) | (reserved << 4) | opcode])
    mask_bit = 0x80 if is_masked else 0
    if claimed < 126:
        head.append(mask_bit | claimed)
    elif claimed < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack(">H", claimed)
    else:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", claimed)
    if not is_masked:
        return bytes(head) + data
    return bytes(head) + MASK + mask(data)


def mask(data: bytes) -> bytes:
    """XOR with the mask, as one large number."""
    if not data:
        return b""
    repeated = (MASK * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


class RawSocket:
    """A connection after its upgrade."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. Raises ``ConnectionError`` where nobody takes them."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> Received | None:
        """The next frame; ``None``: the connection is gone."""
        try:
            first, second = await self._reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", await self._reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", await self._reader.readexactly(8))
            return Received(opcode=first & 0x0F, data=await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        """Drop it, without a closing frame."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


async def open_raw_socket(url: str, *, subprotocol: str, address: str) -> RawSocket:
    """A socket that has said nothing yet, from this address of the machine.

    Raises:
        HandshakeRefused: the server does not upgrade.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port, limit=MAX_READ_BYTES, local_addr=(address, 0)
    )
    key = os.urandom(16).hex()[:22] + "=="
    writer.write(
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        writer.close()
        raise HandshakeRefused("no answer") from error
    status = head.partition(b"\r\n")[0]
    if b" 101 " not in status:
        writer.close()
        raise HandshakeRefused(status.decode(errors="replace"))
    return RawSocket(reader, writer)
