"""A signed command as it was written, for whoever verifies signatures (protocol.md section 11, Signature)."""

from __future__ import annotations

from datetime import datetime

from msgspec import Raw, Struct

from protocol.domain.codec import Codec
from protocol.domain.messages import Envelope, OpenedEnvelope, SecurityLevel
from protocol.errors import SignatureInvalid


class SignedMessage(Struct, frozen=True, kw_only=True):
    """What of a message its signature is over, but the session, and the signature."""

    message_id: str
    message_type: str
    timestamp: str
    """As it was written."""
    signed_at: datetime
    """The same as a time."""
    security_level: SecurityLevel
    payload: bytes
    """As it was encoded before it was sealed; so is ``metadata``, empty where missing or null."""
    metadata: bytes
    signature: str

    def __repr__(self) -> str:
        return f"SignedMessage(message_id={self.message_id!r}, signed_at={self.signed_at!r})"


def take_signed(codec: Codec, envelope: Envelope) -> SignedMessage:
    """The message at level critical, where it has to be signed.

    Raises:
        SignatureInvalid: it carries no signature.
    """
    assert isinstance(envelope, OpenedEnvelope)  # noqa: S101  # what is on this level was sealed
    signature = None if envelope.security is None else envelope.security.signature
    if signature is None:
        raise SignatureInvalid("On this level each command is signed.", details={"path": "security.signature"})
    return SignedMessage(
        message_id=envelope.id,
        message_type=envelope.type.value,
        timestamp=envelope.written_at,
        signed_at=envelope.timestamp,
        security_level=SecurityLevel.CRITICAL,
        payload=_get_bytes(codec, envelope.payload),
        metadata=_get_bytes(codec, envelope.metadata),
        signature=signature,
    )


def _get_bytes(codec: Codec, raw: Raw) -> bytes:
    return b"" if codec.is_null(raw) else bytes(raw)
