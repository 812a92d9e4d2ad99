"""The client's half of section 11 for tests: keys, sealing and signing, in both encodings.

Written from protocol.md with ``cryptography``; what it shares with the server's code is nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.client import Encoding, get_timestamp


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Direction:
    """One direction's key, and the sequence of its next message."""

    key: bytes
    iv: bytes
    sequence: int = 0

    def get_nonce(self, sequence: int) -> bytes:
        return (int.from_bytes(self.iv, "big") ^ sequence).to_bytes(12, "big")


@dataclass
class Keys:
    """What one key agreement gave."""

    key_id: str
    transcript_hash: bytes
    outgoing: Direction
    incoming: Direction


class SigningKey:
    """An account's key."""

    def __init__(self, private_key: Ed25519PrivateKey | None = None) -> None:
        self.private_key = private_key or Ed25519PrivateKey.generate()
        self.public_key = to_base64url(self.private_key.public_key().public_bytes_raw())
        jwk = f'{{"crv":"Ed25519","kty":"OKP","x":"{self.public_key}"}}'
        self.key_id = to_base64url(hashlib.sha256(jwk.encode()).digest())


class ClientSealing:
    """One connection's sealing as its client does it."""

    def __init__(self, encoding: Encoding, *, level: str = "high") -> None:
        self.encoding = encoding
        self.level = level
        self.keys: Keys | None = None
        self.old_keys: Keys | None = None
        """Still good for what was on its way when the keys changed."""
        self.frames: list[bytes] = []
        """Both handshake frames, the client's first."""
        self._private_key = X25519PrivateKey.generate()
        self._connection_id = ""

    def encode(self, value: Any) -> bytes:
        if self.encoding is Encoding.JSON:
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        return msgspec.msgpack.encode(value)

    def decode(self, data: bytes) -> Any:
        return json.loads(data) if self.encoding is Encoding.JSON else msgspec.msgpack.decode(data)

    # Keys

    def make_offer(self) -> dict[str, Any]:
        """A new key's public half, for a handshake."""
        self._private_key = X25519PrivateKey.generate()
        return {
            "algorithm": "X25519",
            "public_key": to_base64url(self._private_key.public_key().public_bytes_raw()),
        }

    def agree(
        self,
        *,
        request: bytes,
        answer: dict[str, Any],
        connection_id: str | None = None,
        identity: bytes | None = None,
    ) -> Keys:
        """Take the server's half. ``request`` is the handshake's frame, ``identity`` the key that must have signed."""
        self._connection_id = connection_id or self._connection_id
        lines = [
            "mcp1.1-handshake",
            hashlib.sha256(request).hexdigest(),
            answer["public_key"],
            self._connection_id,
            "1.1",
            self.level,
            answer["key_id"],
        ]
        if self.keys is not None:
            lines.append(self.keys.transcript_hash.hex())
        transcript_hash = hashlib.sha256("".join(line + "\n" for line in lines).encode()).digest()
        if identity is not None:
            algorithm, _, signature = answer["signature"].split(":")
            assert algorithm == "ed25519"
            Ed25519PublicKey.from_public_bytes(identity).verify(from_base64url(signature), transcript_hash)
        secret = self._private_key.exchange(X25519PublicKey.from_public_bytes(from_base64url(answer["public_key"])))

        def derive(info: str, length: int) -> bytes:
            return HKDF(algorithm=SHA256(), length=length, salt=transcript_hash, info=info.encode()).derive(secret)

        self.old_keys = self.keys
        self.keys = Keys(
            key_id=answer["key_id"],
            transcript_hash=transcript_hash,
            outgoing=Direction(derive("mcp1.1 c2s key", 32), derive("mcp1.1 c2s iv", 12)),
            incoming=Direction(derive("mcp1.1 s2c key", 32), derive("mcp1.1 s2c iv", 12)),
        )
        return self.keys

    # Messages

    def seal(
        self,
        message: dict[str, Any],
        *,
        keys: Keys | None = None,
        sequence: int | None = None,
        level: str | None = None,
        plaintext: bytes | None = None,
        **changed: Any,
    ) -> dict[str, Any]:
        """The sealed message's envelope. ``sequence`` and ``changed`` (of what is authenticated) make wrong ones.

        ``plaintext`` is sealed in the place of the message's payload and metadata.
        """
        keys = keys or self.keys
        assert keys is not None
        direction = keys.outgoing
        if sequence is None:
            sequence = direction.sequence
            direction.sequence += 1
        bound = {
            "id": message["id"],
            "type": message["type"],
            "timestamp": message["timestamp"],
            "level": level or self.level,
            "key_id": keys.key_id,
            **changed,
        }
        aad = "".join(f"{line}\n" for line in ("mcp1.1", *bound.values(), sequence))
        if plaintext is None:
            plaintext = self.encode({"payload": message["payload"], "metadata": message.get("metadata")})
        ciphertext = AESGCM(direction.key).encrypt(direction.get_nonce(sequence), plaintext, aad.encode())
        return {
            "id": message["id"],
            "type": message["type"],
            "payload": to_base64url(ciphertext) if self.encoding is Encoding.JSON else ciphertext,
            "timestamp": message["timestamp"],
            "metadata": None,
            "security": {
                **(message.get("security") or {}),
                "security_level": level or self.level,
                "encryption_info": {"algorithm": "AES-256-GCM", "key_id": keys.key_id, "sequence": sequence},
            },
        }

    def open(self, frame: bytes) -> dict[str, Any]:
        """The message in a sealed frame; fails where its sequence is not the next."""
        envelope: dict[str, Any] = self.decode(frame)
        info = envelope["security"]["encryption_info"]
        keys = next(keys for keys in (self.keys, self.old_keys) if keys is not None and keys.key_id == info["key_id"])
        direction = keys.incoming
        assert info["sequence"] == direction.sequence, (info, direction.sequence)
        assert envelope["metadata"] is None
        assert info["algorithm"] == "AES-256-GCM"
        direction.sequence += 1
        level = envelope["security"]["security_level"]
        lines = (
            "mcp1.1",
            envelope["id"],
            envelope["type"],
            envelope["timestamp"],
            level,
            keys.key_id,
            info["sequence"],
        )
        payload = envelope["payload"]
        ciphertext = from_base64url(payload) if isinstance(payload, str) else payload
        plaintext = AESGCM(direction.key).decrypt(
            direction.get_nonce(info["sequence"]), ciphertext, "".join(f"{line}\n" for line in lines).encode()
        )
        return {**envelope, **self.decode(plaintext)}

    # Signatures

    def sign(self, message: dict[str, Any], *, key: SigningKey, session_id: str, level: str | None = None) -> str:
        """The message's signature, for ``security.signature``."""
        metadata = message.get("metadata")
        lines = (
            "mcp1.1-signature",
            session_id,
            message["id"],
            message["type"],
            message["timestamp"],
            level or self.level,
            hashlib.sha256(self.encode(message["payload"])).hexdigest(),
            hashlib.sha256(b"" if metadata is None else self.encode(metadata)).hexdigest(),
        )
        signature = key.private_key.sign("".join(f"{line}\n" for line in lines).encode())
        return f"ed25519:{key.key_id}:{to_base64url(signature)}"


def make_command(
    command: str = "session.ping",
    arguments: Any = None,
    *,
    message_id: str = "c-1",
    timestamp: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A command as an open message."""
    return {
        "id": message_id,
        "type": "command",
        "payload": {"command": command, "arguments": {} if arguments is None else arguments},
        "timestamp": timestamp or get_timestamp(),
        "metadata": metadata,
    }
