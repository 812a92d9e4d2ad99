"""Whether an envelope is one to be taken: its place, its level, and its parts as typed structures.

What belongs here needs no connection but what it is told of one. The order of the steps is ``connection``'s, and
``stateless``' for messages that come without one.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from protocol.domain.codec import Codec, decode_metadata
from protocol.domain.messages import Envelope, MessageType, Metadata, SecurityLevel, describe_field_error
from protocol.domain.states import EXPECTED, State
from protocol.errors import (
    AuthenticationRequired,
    FeatureNotAgreed,
    InvalidMessage,
    InvalidPayload,
    SecurityLevelTooLow,
    Unavailable,
    UnexpectedMessage,
)

T = TypeVar("T")


def check_expected(message_type: MessageType, *, state: State) -> None:
    """Refuse a message that its state does not take.

    Raises:
        Unavailable: a command to a connection that drains.
        AuthenticationRequired: a command before authentication.
        UnexpectedMessage: any other.
    """
    if message_type in EXPECTED[state]:
        if message_type is MessageType.COMMAND:
            # Only a draining connection gets here with one.
            raise Unavailable("The server is shutting down; connect again.", retry_after_ms=1000)
        return
    if message_type is MessageType.COMMAND and state in (State.HANDSHAKING, State.AUTHENTICATING):
        raise AuthenticationRequired(details={"state": state.value})
    raise UnexpectedMessage(
        f"A {message_type.value} is not expected in state {state.value}.",
        details={"state": state.value, "type": message_type.value},
    )


def open_metadata(codec: Codec, envelope: Envelope) -> Metadata:
    """The message's metadata.

    Raises:
        InvalidMetadata: an unknown key or a wrong value; ``details.path``.
        FeatureNotAgreed: it says that the payload is compressed.
    """
    metadata = decode_metadata(codec, envelope.metadata)
    if metadata.content_encoding is not None:
        raise FeatureNotAgreed("Compression was not agreed.", details={"path": "metadata.content_encoding"})
    return metadata


def judge_level(envelope: Envelope, *, agreed: SecurityLevel) -> SecurityLevel:
    """The level that the message is at: the connection's, which is ``agreed``.

    Raises:
        InvalidMessage: it carries a token, which a socket does not take.
        FeatureNotAgreed: it is sealed or signed where that is not done, or says that it is above the connection's
            level.
        SecurityLevelTooLow: it says that it is below.
    """
    security = envelope.security
    if security is None:
        return agreed
    if security.auth_token is not None:
        raise InvalidMessage("On a socket there is no auth_token.", details={"path": "security.auth_token"})
    if security.encryption_info is not None:
        # What was sealed is open by now.
        raise FeatureNotAgreed("Sealing was not agreed.", details={"path": "security.encryption_info"})
    if security.signature is not None and not (
        agreed is SecurityLevel.CRITICAL and envelope.type is MessageType.COMMAND
    ):
        raise FeatureNotAgreed("Only commands at level critical are signed.", details={"path": "security.signature"})
    level = security.security_level
    if level is None:
        return agreed
    if level.rank < agreed.rank:
        raise SecurityLevelTooLow(details={"security_level": agreed.value})
    if level.rank > agreed.rank:
        raise FeatureNotAgreed(
            "The message's level is above the connection's.", details={"path": "security.security_level"}
        )
    return level


def decode_payload(codec: Codec, envelope: Envelope, target: type[T]) -> T:
    """The message's payload in the form that its type demands.

    Raises:
        InvalidPayload: it has another; ``details.path``.
    """
    try:
        return codec.decode(envelope.payload, target)
    except msgspec.ValidationError as error:
        reason, path = describe_field_error(error)
        raise InvalidPayload(reason, details={"path": f"payload.{path}".rstrip(".")}) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidPayload("The payload cannot be decoded.", details={"path": "payload"}) from error
