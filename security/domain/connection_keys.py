"""The keys of one connection: X25519, the transcript's hash, HKDF-SHA256 (protocol.md section 11, Keys).

What belongs here is pure: the ephemeral key is given by the caller. What is done with the keys is ``sealing``'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ALGORITHM: Final = "X25519"
KEY_BYTES: Final = 32
IV_BYTES: Final = 12


class AgreementFailed(Exception):
    """The peer's public key agrees to nothing: it is none, or one with which everybody gets the same secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionKeys:
    """What one direction is sealed with."""

    key: bytes = field(repr=False)
    """32 bytes."""
    iv: bytes = field(repr=False)
    """12 bytes; each message's nonce is made from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionKeys:
    """Both directions' keys, and what they were agreed over."""

    key_id: str
    transcript_hash: bytes
    """``H``: 32 bytes."""
    client_to_server: DirectionKeys
    server_to_client: DirectionKeys


def hash_transcript(
    *,
    client_frame: bytes,
    public_key: str,
    connection_id: str,
    protocol_version: str,
    security_level: str,
    key_id: str,
    previous_hash: bytes | None = None,
) -> bytes:
    """``H``, 32 bytes. ``public_key`` is the server's, as it is written in its answer.

    ``previous_hash`` is the ``H`` of the keys under which a re-key is sealed.
    """
    lines = [
        "mcp1.1-handshake",
        hashlib.sha256(client_frame).hexdigest(),
        public_key,
        connection_id,
        protocol_version,
        security_level,
        key_id,
    ]
    if previous_hash is not None:
        lines.append(previous_hash.hex())
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest()


def agree_on_secret(*, private_key: X25519PrivateKey, public_key: bytes) -> bytes:
    """The shared secret of RFC 7748, 32 bytes; ``public_key`` is the peer's, raw.

    Raises:
        AgreementFailed: the peer's key is of the wrong length or of low order.
    """
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError as error:
        raise AgreementFailed from error


def derive_keys(*, shared_secret: bytes, transcript_hash: bytes, key_id: str) -> ConnectionKeys:
    """Each direction's key and IV by HKDF-SHA256: the secret is its input, ``transcript_hash`` its salt."""

    def derive(name: str, length: int) -> bytes:
        return HKDF(algorithm=SHA256(), length=length, salt=transcript_hash, info=f"mcp1.1 {name}".encode()).derive(
            shared_secret
        )

    return ConnectionKeys(
        key_id=key_id,
        transcript_hash=transcript_hash,
        client_to_server=DirectionKeys(key=derive("c2s key", KEY_BYTES), iv=derive("c2s iv", IV_BYTES)),
        server_to_client=DirectionKeys(key=derive("s2c key", KEY_BYTES), iv=derive("s2c iv", IV_BYTES)),
    )
