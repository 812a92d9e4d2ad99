"""Messages on their way out: given their envelope, encoded, kept in order until the socket takes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from protocol.domain.codec import Codec
from protocol.domain.messages import (
    MessageType,
    OutgoingMessage,
    OutgoingMetadata,
    StoredResponse,
    describe_error,
)
from protocol.errors import MessageTooLarge


def make_message(
    message_type: MessageType,
    payload: Any,
    *,
    message_id: str,
    now: datetime,
    correlation_id: str | None,
    sequence: int | None = None,
) -> OutgoingMessage:
    """The payload in its envelope; ``now`` is in UTC."""
    metadata = None
    if correlation_id is not None or sequence is not None:
        metadata = OutgoingMetadata(correlation_id=correlation_id, sequence=sequence)
    return OutgoingMessage(
        id=message_id,
        type=message_type,
        payload=payload,
        timestamp=now.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        metadata=metadata,
    )


class Outgoing:
    """One connection's queue of encoded messages."""

    def __init__(
        self,
        *,
        codec: Codec,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        new_trace_id: Callable[[], str],
    ) -> None:
        self.peer_max_size: int | None = None
        """The largest message that the client takes, in bytes; ``None``: it did not say."""
        self.size_bytes = 0
        self._codec = codec
        self._now, self._new_id, self._new_trace_id = now, new_id, new_trace_id
        self._queue: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(
        self, message_type: MessageType, payload: Any, *, correlation_id: str | None, sequence: int | None = None
    ) -> bytes:
        """Queue a message; its encoded form. One larger than the client takes becomes an error, an event nothing."""
        message = make_message(
            message_type,
            payload,
            message_id=self._new_id(),
            now=self._now(),
            correlation_id=correlation_id,
            sequence=sequence,
        )
        encoded = self._codec.encode(message)
        if self.peer_max_size is not None and len(encoded) > self.peer_max_size:
            if message_type is MessageType.EVENT:
                # Events may be dropped; an error in its place would end the command.
                return b""
            error = MessageTooLarge("The answer is larger than the client takes.", details={"size_bytes": len(encoded)})
            encoded = self._codec.encode(
                msgspec.structs.replace(
                    message, type=MessageType.ERROR, payload=describe_error(error, trace_id=self._new_trace_id())
                )
            )
        self._queue.append(encoded)
        self.size_bytes += len(encoded)
        return encoded

    def take(self) -> list[bytes]:
        """What is queued, oldest first; it is the caller's from now on."""
        taken, self._queue = self._queue, []
        self.size_bytes = 0
        return taken


def mark_duplicate(message_type: MessageType, payload: bytes) -> Any:
    """An answer's payload (JSON) for a command that was sent again; an error has no mark."""
    if message_type is MessageType.ERROR:
        return msgspec.Raw(payload)
    return msgspec.structs.replace(msgspec.json.decode(payload, type=StoredResponse), duplicate=True)
