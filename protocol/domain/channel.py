"""The keys of a connection as the kernel needs them: what agrees on them, and what seals and opens with them.

Interfaces only. Who provides them is bound by ``protocol.ports``; what a sealed message looks like is ``sealed``.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

KEY_AGREEMENT_ALGORITHM = "X25519"
SEALING_ALGORITHM = "AES-256-GCM"


class Channel(Protocol):
    """The server's end of one connection's keys. A re-key makes a new one."""

    key_id: str
    transcript_hash: bytes
    """``H`` of section 11."""

    @property
    def message_count(self) -> int:
        """How many messages the busier direction has had."""

    def seal(
        self, *, message_id: str, message_type: str, timestamp: str, security_level: str, plaintext: bytes
    ) -> tuple[int, bytes]:
        """The message's sequence, and its ciphertext with the tag. Each call takes the next sequence."""

    def open(
        self,
        *,
        message_id: str,
        message_type: str,
        timestamp: str,
        security_level: str,
        sequence: int,
        ciphertext: bytes,
    ) -> bytes:
        """What the client sealed.

        Raises:
            Replayed: this sequence was opened before.
            DecryptionFailed: messages before it are missing, or something is not as it was sealed.
        """


class Agreed(Struct, frozen=True, kw_only=True):
    """What came of a key agreement: the server's half as the client is told it, and the keys."""

    public_key: str
    key_id: str
    signature: str
    channel: Channel


class KeyAgreer(Protocol):
    """Agrees on keys with a client. Called on the event loop: it neither queries nor waits."""

    def agree(
        self,
        *,
        public_key: str,
        client_frame: bytes,
        connection_id: str,
        protocol_version: str,
        security_level: str,
        previous_hash: bytes | None,
    ) -> Agreed:
        """New keys with whoever has this public key (base64url); ``previous_hash`` is a re-key's old ``H``.

        Raises:
            InvalidPayload: it is no public key, or one with which everybody gets the same keys.
        """
