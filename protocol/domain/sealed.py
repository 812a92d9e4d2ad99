"""Sealed messages of one connection: frames to envelopes and back, and the change from old keys to new ones.

What belongs here is the form of section 11, Sealing, and under which keys a message is. The cipher is the channel's.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from protocol.domain.channel import SEALING_ALGORITHM, Channel
from protocol.domain.codec import Codec
from protocol.domain.messages import (
    EncryptionInfo,
    MessageType,
    OpenedEnvelope,
    OutgoingSealed,
    OutgoingSecurity,
    SealedEnvelope,
    SealedSecurity,
    Security,
    SecurityLevel,
    Timestamp,
)
from protocol.errors import DecryptionFailed, EncryptionRequired, InvalidMessage, UnexpectedMessage

ENVELOPE_BYTES = 340
"""At least what a sealed message has around its ciphertext, in either encoding; a test holds it."""
TAG_BYTES = 16
_NO_SECURITY = SealedSecurity()


class RekeyLimits(Struct, frozen=True, kw_only=True):
    """For how long keys are used before the client is asked for new ones."""

    messages: int = 2**20
    """In either direction."""
    seconds: float = 3600.0


DEFAULT_REKEY_LIMITS = RekeyLimits()


class Unsealed(Struct, kw_only=True):
    """A message that waits to be sealed when it is sent."""

    id: str
    type: MessageType
    timestamp: str
    plaintext: bytes
    switch_to: Channel | None = None
    """The keys of everything after it."""

    def __repr__(self) -> str:
        return f"Unsealed(id={self.id!r}, type={self.type!r})"


class SealedWire:
    """See the module. Belongs to one connection."""

    def __init__(self, *, codec: Codec, level: SecurityLevel, channel: Channel, tick: float) -> None:
        """``tick`` is when the keys were agreed on, by the monotonic clock in seconds."""
        self.agreed_tick = tick
        self.is_rekey_asked_for = False
        """Whether the client was told that new keys are due, since it was given the newest."""
        self._refused_id: str | None = None
        self._codec = codec
        self._level = level
        self._receiving = self._sending = channel
        self._next: Channel | None = None
        """After a re-key, until the client's first message under the new keys: what crossed the answer is still under
        the old ones."""

    # What comes in

    def open(self, frame: bytes) -> OpenedEnvelope:
        """The message that is sealed in the frame.

        Raises:
            InvalidMessage: it is none.
            EncryptionRequired: it is not sealed.
            DecryptionFailed: it does not open.
            Replayed: it was opened before.
        """
        envelope = self._codec.decode_sealed(frame)
        security = envelope.security or _NO_SECURITY
        info = security.encryption_info
        if info is None:
            raise EncryptionRequired(details={"security_level": self._level.value})
        if info.algorithm != SEALING_ALGORITHM:
            raise DecryptionFailed("It is sealed in another way.", details={"algorithm": SEALING_ALGORITHM})
        channel = self._find_channel(info.key_id)
        ciphertext = self._codec.read_ciphertext(envelope.payload)
        if ciphertext is None or not self._codec.is_null(envelope.metadata):
            raise DecryptionFailed("A sealed message has its ciphertext as payload, and no metadata outside of it.")
        plaintext = channel.open(
            message_id=envelope.id,
            message_type=envelope.type.value,
            timestamp=envelope.timestamp,
            security_level=(security.security_level or self._level).value,
            sequence=info.sequence,
            ciphertext=ciphertext,
        )
        if channel is self._next:
            self._receiving, self._next = channel, None
        try:
            return self._make_envelope(envelope, security, plaintext)
        except InvalidMessage:
            self._refused_id = envelope.id
            raise

    def take_refused_id(self) -> str | None:
        """Of the message that ``open`` has just refused though the client sealed it; ``None``: it did not open."""
        refused_id, self._refused_id = self._refused_id, None
        return refused_id

    def _find_channel(self, key_id: str) -> Channel:
        if key_id == self._receiving.key_id:
            return self._receiving
        if self._next is not None and key_id == self._next.key_id:
            return self._next
        raise DecryptionFailed("It is not sealed under this connection's keys.")

    def _make_envelope(self, envelope: SealedEnvelope, security: SealedSecurity, plaintext: bytes) -> OpenedEnvelope:
        opened = self._codec.decode_opened(plaintext)
        try:
            timestamp = msgspec.convert(envelope.timestamp, Timestamp)
        except msgspec.ValidationError as error:
            raise InvalidMessage("Expected an RFC 3339 timestamp.", details={"path": "timestamp"}) from error
        return OpenedEnvelope(
            id=envelope.id,
            type=envelope.type,
            payload=opened.payload,
            timestamp=timestamp,
            metadata=opened.metadata,
            security=Security(
                security_level=security.security_level, signature=security.signature, auth_token=security.auth_token
            ),
            written_at=envelope.timestamp,
        )

    # What goes out

    def measure(self, plaintext: bytes) -> int:
        """At most how many bytes the message takes on the wire."""
        return self._codec.measure_ciphertext(len(plaintext) + TAG_BYTES) + ENVELOPE_BYTES

    def seal(self, message: Unsealed) -> bytes:
        """The message as it goes on the wire; called in the order in which messages are sent."""
        channel = self._sending
        sequence, ciphertext = channel.seal(
            message_id=message.id,
            message_type=message.type.value,
            timestamp=message.timestamp,
            security_level=self._level.value,
            plaintext=message.plaintext,
        )
        if message.switch_to is not None:
            self._sending = message.switch_to
        return self._codec.encode_sealed(
            OutgoingSealed(
                id=message.id,
                type=message.type,
                payload=ciphertext,
                timestamp=message.timestamp,
                security=OutgoingSecurity(
                    self._level,
                    EncryptionInfo(algorithm=SEALING_ALGORITHM, key_id=channel.key_id, sequence=sequence),
                ),
            )
        )

    # New keys

    def check_may_rekey(self) -> None:
        """Raises ``UnexpectedMessage`` where the client has not used the keys that it was last given."""
        if self._next is not None:
            raise UnexpectedMessage("The keys of the last re-key are not in use yet.")

    @property
    def transcript_hash(self) -> bytes:
        """Of the keys in use."""
        return self._receiving.transcript_hash

    def expect(self, channel: Channel, *, tick: float) -> None:
        """From now on the client may seal under these keys."""
        self._next = channel
        self.agreed_tick = tick
        self.is_rekey_asked_for = False

    @property
    def newest_key_id(self) -> str:
        """The id of the keys that were agreed on last."""
        return (self._next or self._receiving).key_id

    def is_rekey_due(self, *, tick: float, limits: RekeyLimits) -> bool:
        """Whether the client has to be told that the newest keys have been used for as long as they should be."""
        newest = self._next or self._receiving
        if self.is_rekey_asked_for:
            return False
        return newest.message_count >= limits.messages or tick - self.agreed_tick >= limits.seconds
