"""RFC 6455 frames as a client needs them, and no more: whole messages, no extensions.

The load generator shares the machine with what it measures, so it must cost little. The mask that a client must put on
its frames is all zeros here: the frame is then known in advance but for the message's id, and the server unmasks it as
any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_NO_MASK: Final = bytes(4)


class FrameError(Exception):
    """The server sent what no server may send, or what this client does not know."""


def encode_frame(payload: bytes, *, opcode: int = TEXT) -> bytes:
    """A client's frame."""
    return encode_head(len(payload), opcode=opcode) + payload


def encode_head(length: int, *, opcode: int = TEXT) -> bytes:
    """What stands before a client's payload of that many bytes."""
    first = bytes((_FINAL | opcode,))
    if length < 126:
        return first + bytes((_MASKED | length,)) + _NO_MASK
    if length < 1 << 16:
        return first + bytes((_MASKED | 126,)) + length.to_bytes(2, "big") + _NO_MASK
    return first + bytes((_MASKED | 127,)) + length.to_bytes(8, "big") + _NO_MASK


class FrameReader:
    """Bytes from the server to its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The opcode and payload of each frame that is complete now.

        Raises:
            FrameError: a masked or a fragmented frame.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        available = len(buffer)
        try:
            while available - start >= 2:
                first, length = buffer[start], buffer[start + 1]
                head = 2
                if length == 126:
                    head = 4
                elif length == 127:
                    head = 10
                if length > 127 or first & 0xF0 != _FINAL:
                    raise FrameError(f"a frame that begins with {first:02x} {length:02x}")
                if available - start < head:
                    return
                if head > 2:
                    length = int.from_bytes(buffer[start + 2 : start + head], "big")
                end = start + head + length
                if end > available:
                    return
                payload = bytes(buffer[start + head : end])
                start = end
                yield first & 0x0F, payload
        finally:
            del buffer[:start]
