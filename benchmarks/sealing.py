"""The client's half of sealed and signed messages (protocol.md section 11), as light as the load generator needs it.

JSON only. What a client has to check besides, such as the server's identity, is not here: it costs the server nothing.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Level(enum.StrEnum):
    STANDARD = "standard"
    HIGH = "high"
    CRITICAL = "critical"


class KeyAgreement(msgspec.Struct, frozen=True):
    public_key: str
    key_id: str


class HandshakeAnswer(msgspec.Struct, frozen=True):
    connection_id: str
    security_level: str
    key_agreement: KeyAgreement


class EncryptionInfo(msgspec.Struct, frozen=True):
    sequence: int


class SealedSecurity(msgspec.Struct, frozen=True):
    encryption_info: EncryptionInfo


class SealedMessage(msgspec.Struct, frozen=True):
    id: str
    type: str
    payload: str
    timestamp: str
    security: SealedSecurity


NULL_SHA256: Final = hashlib.sha256(b"").hexdigest()
_decode = msgspec.json.Decoder(SealedMessage).decode


def encode_base64url(data: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Sealing:
    """One connection's keys and sequences."""

    def __init__(self, *, level: Level, signing_seed: bytes) -> None:
        self.level = level
        self.session_id = ""
        self.is_agreed = False
        self._signing_key = Ed25519PrivateKey.from_private_bytes(signing_seed) if signing_seed else None
        self._signing_key_id = "" if self._signing_key is None else make_key_id(self._signing_key)
        self._private_key = X25519PrivateKey.generate()
        self._sent = 0

    def make_offer(self) -> dict[str, str]:
        """For the handshake."""
        public_key = self._private_key.public_key().public_bytes_raw()
        return {"algorithm": "X25519", "public_key": encode_base64url(public_key)}

    def agree(self, *, request: bytes, answer: HandshakeAnswer) -> None:
        """Take the server's half."""
        keys = answer.key_agreement
        lines = (
            "mcp1.1-handshake",
            hashlib.sha256(request).hexdigest(),
            keys.public_key,
            answer.connection_id,
            "1.1",
            answer.security_level,
            keys.key_id,
        )
        salt = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest()
        secret = self._private_key.exchange(X25519PublicKey.from_public_bytes(decode_base64url(keys.public_key)))

        def derive(name: str, length: int) -> bytes:
            return HKDF(algorithm=SHA256(), length=length, salt=salt, info=f"mcp1.1 {name}".encode()).derive(secret)

        self._outgoing, self._outgoing_iv = AESGCM(derive("c2s key", 32)), int.from_bytes(derive("c2s iv", 12))
        self._incoming, self._incoming_iv = AESGCM(derive("s2c key", 32)), int.from_bytes(derive("s2c iv", 12))
        self._key_id = keys.key_id
        self.is_agreed = True

    def seal(self, message_id: str, *, message_type: str, payload: bytes, metadata: bytes) -> bytes:
        """The whole message; ``payload`` and ``metadata`` are JSON."""
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        sequence, level, key_id = self._sent, self.level.value, self._key_id
        self._sent += 1
        signature = ""
        if level == Level.CRITICAL and message_type == "command":
            signature = f',"signature":"{self._sign(message_id, timestamp, payload, metadata)}"'
        aad = f"mcp1.1\n{message_id}\n{message_type}\n{timestamp}\n{level}\n{key_id}\n{sequence}\n".encode()
        nonce = (self._outgoing_iv ^ sequence).to_bytes(12)
        sealed = self._outgoing.encrypt(nonce, b'{"payload":%b,"metadata":%b}' % (payload, metadata), aad)
        return (
            f'{{"id":"{message_id}","type":"{message_type}","timestamp":"{timestamp}",'
            f'"payload":"{encode_base64url(sealed)}","security":{{"security_level":"{level}","encryption_info":'
            f'{{"algorithm":"AES-256-GCM","key_id":"{key_id}","sequence":{sequence}}}{signature}}}}}'
        ).encode()

    def open(self, frame: bytes) -> bytes:
        """The message in a sealed frame as an open one, in JSON, as far as it is looked at."""
        message = _decode(frame)
        sequence = message.security.encryption_info.sequence
        named = f"{message.id}\n{message.type}\n{message.timestamp}\n{self.level.value}\n{self._key_id}\n{sequence}\n"
        nonce = (self._incoming_iv ^ sequence).to_bytes(12)
        content = self._incoming.decrypt(nonce, decode_base64url(message.payload), f"mcp1.1\n{named}".encode())
        return b'{"type":"%b",%b' % (message.type.encode(), content[1:])

    def _sign(self, message_id: str, timestamp: str, payload: bytes, metadata: bytes) -> str:
        assert self._signing_key is not None
        metadata_sha256 = NULL_SHA256 if metadata == b"null" else hashlib.sha256(metadata).hexdigest()
        lines = (
            f"mcp1.1-signature\n{self.session_id}\n{message_id}\ncommand\n{timestamp}\ncritical\n"
            f"{hashlib.sha256(payload).hexdigest()}\n{metadata_sha256}\n"
        )
        return f"ed25519:{self._signing_key_id}:{encode_base64url(self._signing_key.sign(lines.encode()))}"


def make_key_id(key: Ed25519PrivateKey) -> str:
    """How its signatures name it."""
    public_key = encode_base64url(key.public_key().public_bytes_raw())
    jwk: dict[str, Any] = {"crv": "Ed25519", "kty": "OKP", "x": public_key}
    return encode_base64url(hashlib.sha256(msgspec.json.encode(jwk)).digest())
