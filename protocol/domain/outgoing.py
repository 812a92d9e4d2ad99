"""Messages on their way out: given their envelope, encoded, kept in order until the socket takes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import msgspec

from protocol.domain.channel import Channel
from protocol.domain.codec import Codec
from protocol.domain.messages import (
    MessageType,
    OutgoingContent,
    OutgoingMessage,
    OutgoingMetadata,
    StoredResponse,
    describe_error,
)
from protocol.domain.sealed import SealedWire, Unsealed
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
        self._sealed: SealedWire | None = None
        self._queue: list[bytes | Unsealed] = []

    def __bool__(self) -> bool:
        return bool(self._queue)

    def seal_from_now(self, sealed: SealedWire) -> None:
        """Whatever is put after this is sealed when it is taken."""
        self._sealed = sealed

    def put(
        self,
        message_type: MessageType,
        payload: Any,
        *,
        correlation_id: str | None,
        sequence: int | None = None,
        switch_to: Channel | None = None,
    ) -> bytes:
        """Queue a message; its encoded form. One larger than the client takes becomes an error, an event nothing.

        After one with ``switch_to`` messages are sealed under those keys.
        """
        message = make_message(
            message_type,
            payload,
            message_id=self._new_id(),
            now=self._now(),
            correlation_id=correlation_id,
            sequence=sequence,
        )
        encoded, size_bytes = self._encode(message)
        if (
            self.peer_max_size is not None
            and size_bytes > self.peer_max_size
            # Without it there is no connection; and no client takes less than it needs.
            and message_type is not MessageType.HANDSHAKE
        ):
            if message_type is MessageType.EVENT:
                # Events may be dropped; an error in its place would end the command.
                return b""
            error = MessageTooLarge("The answer is larger than the client takes.", details={"size_bytes": size_bytes})
            message = msgspec.structs.replace(
                message, type=MessageType.ERROR, payload=describe_error(error, trace_id=self._new_trace_id())
            )
            encoded, size_bytes = self._encode(message)
        if self._sealed is None:
            self._queue.append(encoded)
        else:
            self._queue.append(
                Unsealed(
                    id=message.id,
                    type=message.type,
                    timestamp=message.timestamp,
                    plaintext=encoded,
                    switch_to=switch_to,
                )
            )
        self.size_bytes += size_bytes
        return encoded

    def _encode(self, message: OutgoingMessage) -> tuple[bytes, int]:
        """The message, or what of it will be sealed, and how many bytes it takes on the wire."""
        if self._sealed is None:
            encoded = self._codec.encode(message)
            return encoded, len(encoded)
        plaintext = self._codec.encode(OutgoingContent(payload=message.payload, metadata=message.metadata))
        return plaintext, self._sealed.measure(plaintext)

    def take(self) -> list[bytes]:
        """What is queued, oldest first; it is the caller's from now on."""
        taken, self._queue = self._queue, []
        self.size_bytes = 0
        sealed = self._sealed
        if sealed is None:
            return cast("list[bytes]", taken)
        return [message if isinstance(message, bytes) else sealed.seal(message) for message in taken]


def mark_duplicate(message_type: MessageType, payload: bytes) -> Any:
    """An answer's payload (JSON) for a command that was sent again; an error has no mark."""
    if message_type is MessageType.ERROR:
        return msgspec.Raw(payload)
    return msgspec.structs.replace(msgspec.json.decode(payload, type=StoredResponse), duplicate=True)
