"""Commands without a connection (protocol.md section 1, HTTP): the same envelopes, judged one by one.

What belongs here is the judgement of a message by itself; who sent it, and running it, is the edge's.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from protocol.domain.codec import MAX_NESTING, Codec, has_deep_json, has_deep_msgpack
from protocol.domain.judging import decode_payload, open_metadata
from protocol.domain.messages import CommandPayload, MessageType, Metadata, SecurityLevel
from protocol.errors import BatchTooLarge, FeatureNotAgreed, InvalidMessage, UnsupportedType

LEVELS = (SecurityLevel.LOW, SecurityLevel.STANDARD)
"""What can be without keys of a connection's."""


class StatelessCommand(Struct, frozen=True, kw_only=True):
    """A well-formed command that came by itself."""

    message_id: str
    command: str
    arguments: Raw
    metadata: Metadata
    security_level: SecurityLevel
    auth_token: str | None

    def __repr__(self) -> str:
        return f"StatelessCommand(message_id={self.message_id!r}, command={self.command!r})"


def split_batch(*, codec: Codec, body: bytes, max_batch: int) -> list[bytes]:
    """The messages of an array, still encoded.

    Raises:
        InvalidMessage: it cannot be decoded, or is empty; nothing of it is judged.
        BatchTooLarge: it holds more than ``max_batch``.
    """
    try:
        is_deep = has_deep_json(body) if codec.is_text else has_deep_msgpack(body)
        messages = [] if is_deep else codec.decode(Raw(body), list[Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise InvalidMessage("The array cannot be decoded.") from error
    if is_deep:
        raise InvalidMessage("The array is nested too deep.", details={"max_nesting": MAX_NESTING})
    if not messages:
        raise InvalidMessage("The array is empty.")
    if len(messages) > max_batch:
        raise BatchTooLarge(details={"max_batch": max_batch})
    return [bytes(message) for message in messages]


def open_command(*, codec: Codec, frame: bytes) -> StatelessCommand:
    """The command of one encoded message.

    Raises:
        MCPError: as a connection answers such a message.
    """
    envelope = codec.decode_envelope(frame)
    if envelope.type is not MessageType.COMMAND:
        raise UnsupportedType("Without a connection only commands are taken.", details={"type": envelope.type.value})
    metadata = open_metadata(codec, envelope)
    security = envelope.security
    if security is not None and (security.encryption_info is not None or security.signature is not None):
        raise FeatureNotAgreed("Sealing and signing need a connection.", details={"path": "security"})
    level = SecurityLevel.STANDARD if security is None else security.security_level or SecurityLevel.STANDARD
    if level not in LEVELS:
        raise FeatureNotAgreed("This level needs a connection.", details={"path": "security.security_level"})
    payload = decode_payload(codec, envelope, CommandPayload)
    return StatelessCommand(
        message_id=envelope.id,
        command=payload.command,
        arguments=payload.arguments,
        metadata=metadata,
        security_level=level,
        auth_token=None if security is None else security.auth_token,
    )
