"""The client's end of levels `high` and `critical`, written from the protocol's page with ``cryptography`` alone."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.client import Encoding


class NotSealed(Exception):
    """An answer that should be sealed is not, or does not open."""


def encode_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def join_lines(*lines: object) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@dataclass(kw_only=True)
class Direction:
    """One direction's key, IV and next sequence."""

    key: bytes
    iv: bytes
    sequence: int = 0

    def make_nonce(self) -> bytes:
        return (int.from_bytes(self.iv, "big") ^ self.sequence).to_bytes(12, "big")


@dataclass(kw_only=True)
class SealedEnd:
    """One connection's keys on the client's side."""

    level: str
    encoding: Encoding
    private_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    key_id: str = ""

    def make_agreement(self) -> dict[str, str]:
        """What the client's handshake carries."""
        return {"algorithm": "X25519", "public_key": encode_base64url(self.private_key.public_key().public_bytes_raw())}

    def agree(self, client_frame: bytes, answer: dict[str, Any]) -> None:
        """Take the keys of the server's handshake answer."""
        agreement = answer["key_agreement"]
        self.key_id = agreement["key_id"]
        transcript = hashlib.sha256(
            join_lines(
                "mcp1.1-handshake",
                hashlib.sha256(client_frame).hexdigest(),
                agreement["public_key"],
                answer["connection_id"],
                answer["protocol_version"],
                answer["security_level"],
                self.key_id,
            )
        ).digest()
        secret = self.private_key.exchange(X25519PublicKey.from_public_bytes(decode_base64url(agreement["public_key"])))

        def derive(name: str, length: int) -> bytes:
            return HKDF(SHA256(), length, transcript, f"mcp1.1 {name}".encode()).derive(secret)

        self.outgoing = Direction(key=derive("c2s key", 32), iv=derive("c2s iv", 12))
        self.incoming = Direction(key=derive("s2c key", 32), iv=derive("s2c iv", 12))

    def make_aad(self, message: dict[str, Any], sequence: int) -> bytes:
        return join_lines(
            "mcp1.1", message["id"], message["type"], message["timestamp"], self.level, self.key_id, sequence
        )

    def seal(self, message: dict[str, Any], plaintext: bytes, *, signature: str | None = None) -> dict[str, Any]:
        """The envelope of a message whose payload and metadata are in ``plaintext``."""
        direction = self.outgoing
        data = AESGCM(direction.key).encrypt(
            direction.make_nonce(), plaintext, self.make_aad(message, direction.sequence)
        )
        info = {"algorithm": "AES-256-GCM", "key_id": self.key_id, "sequence": direction.sequence}
        direction.sequence += 1
        return {
            "id": message["id"],
            "type": message["type"],
            "payload": encode_base64url(data) if self.encoding is Encoding.JSON else data,
            "metadata": None,
            "security": {"security_level": self.level, "encryption_info": info, "signature": signature},
            "timestamp": message["timestamp"],
        }

    def open(self, message: dict[str, Any]) -> bytes:
        """What the server sealed, in order.

        Raises:
            NotSealed: it is not, or not as the next of its direction.
        """
        direction = self.incoming
        info = (message.get("security") or {}).get("encryption_info")
        if info is None:
            raise NotSealed(f"an answer is not sealed: {message}")
        if (info["key_id"], info["sequence"]) != (self.key_id, direction.sequence):
            raise NotSealed(f"an answer is sealed as {info}, not as {self.key_id} {direction.sequence}")
        payload = message["payload"]
        data = decode_base64url(payload) if isinstance(payload, str) else payload
        try:
            opened = AESGCM(direction.key).decrypt(
                direction.make_nonce(), data, self.make_aad(message, direction.sequence)
            )
        except InvalidTag as error:
            raise NotSealed("an answer does not open") from error
        direction.sequence += 1
        return opened


@dataclass(frozen=True, kw_only=True)
class Signer:
    """An account's registered key."""

    key_id: str
    private_key: Ed25519PrivateKey

    def sign(self, message: dict[str, Any], *, session_id: str, level: str, payload: bytes, metadata: bytes) -> str:
        """A command's signature; payload and metadata as they are encoded, empty where there is none."""
        statement = join_lines(
            "mcp1.1-signature",
            session_id,
            message["id"],
            message["type"],
            message["timestamp"],
            level,
            hashlib.sha256(payload).hexdigest(),
            hashlib.sha256(metadata).hexdigest(),
        )
        return f"ed25519:{self.key_id}:{encode_base64url(self.private_key.sign(statement))}"
