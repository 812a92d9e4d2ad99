"""Sealing and opening the messages of one connection: AES-256-GCM, a nonce for each sequence (protocol.md section 11).

What belongs here is what is sealed with what. How a sealed message looks on the wire is ``protocol.domain.sealed``'s.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.errors import DecryptionFailed, Replayed
from security.domain.connection_keys import IV_BYTES, ConnectionKeys, DirectionKeys

ALGORITHM: Final = "AES-256-GCM"


class _Direction:
    """One direction's cipher and where its sequence stands."""

    def __init__(self, keys: DirectionKeys) -> None:
        self.sequence = 0
        """The next message's."""
        self.cipher = AESGCM(keys.key)
        self._iv = int.from_bytes(keys.iv)

    def get_nonce(self) -> bytes:
        """The next message's: the IV xor its sequence as a 96-bit number."""
        return (self._iv ^ self.sequence).to_bytes(IV_BYTES)


class SealedChannel:
    """``protocol.domain.channel.Channel``: the server's end."""

    def __init__(self, keys: ConnectionKeys) -> None:
        self.key_id = keys.key_id
        self.transcript_hash = keys.transcript_hash
        self._incoming = _Direction(keys.client_to_server)
        self._outgoing = _Direction(keys.server_to_client)

    @property
    def message_count(self) -> int:
        """How many messages the busier direction has had."""
        return max(self._incoming.sequence, self._outgoing.sequence)

    def seal(
        self, *, message_id: str, message_type: str, timestamp: str, security_level: str, plaintext: bytes
    ) -> tuple[int, bytes]:
        """The message's sequence, and its ciphertext with the tag. Each call takes the next sequence."""
        direction = self._outgoing
        sequence = direction.sequence
        aad = make_aad(message_id, message_type, timestamp, security_level, self.key_id, sequence)
        sealed = direction.cipher.encrypt(direction.get_nonce(), plaintext, aad)
        direction.sequence = sequence + 1
        return sequence, sealed

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
        direction = self._incoming
        expected = direction.sequence
        if sequence != expected:
            details = {"sequence": sequence, "expected": expected}
            if sequence < expected:
                raise Replayed("This sequence was taken before.", details=details)
            raise DecryptionFailed("Messages before this one are missing.", details=details)
        aad = make_aad(message_id, message_type, timestamp, security_level, self.key_id, sequence)
        try:
            plaintext = direction.cipher.decrypt(direction.get_nonce(), ciphertext, aad)
        except (InvalidTag, ValueError) as error:
            raise DecryptionFailed from error
        direction.sequence = sequence + 1
        return plaintext


def make_aad(
    message_id: str, message_type: str, timestamp: str, security_level: str, key_id: str, sequence: int
) -> bytes:
    """What of the envelope is authenticated with the ciphertext, as it is written there."""
    return f"mcp1.1\n{message_id}\n{message_type}\n{timestamp}\n{security_level}\n{key_id}\n{sequence}\n".encode()
