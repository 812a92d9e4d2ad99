"""Signed messages: the lines that are signed, the keys that sign, and what was signed before (protocol.md section 11).

What belongs here is pure. Whose keys count is what the principal carries; where a signature is kept as evidence is
``services.audit``'s.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.domain.base64url import decode_base64url, encode_base64url

ALGORITHM: Final = "ed25519"
PUBLIC_KEY_BYTES: Final = 32
FRESH_FOR: Final = timedelta(seconds=60)
"""How far from the server's clock a signed message's timestamp may be, either way."""
MAX_REMEMBERED: Final = 16_384
"""Signed messages of one session that are remembered; beyond it the oldest timestamps are refused instead."""

_SIGNATURE: Final = re.compile(r"ed25519:([A-Za-z0-9._-]{1,64}):([A-Za-z0-9_-]{86})")
_PEM_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
"""Of a SubjectPublicKeyInfo (RFC 8410)."""
_OPENSSH_PREFIX: Final = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
"""RFC 8709, section 4."""
_LOW_ORDER_KEYS: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points of small order, without their sign: with such a key anybody's signature is good."""


class PublicKeyInvalid(ValueError):
    """The text is no Ed25519 public key that can be registered; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPublicKey:
    """A registered key of an account's, as a principal carries it."""

    key_id: str
    public_key: bytes
    """32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLines:
    """Everything that a signature is over."""

    session_id: str
    message_id: str
    message_type: str
    timestamp: str
    """As it was written."""
    security_level: str
    payload_sha256: str
    metadata_sha256: str

    def encode(self) -> bytes:
        """The lines that are signed."""
        return (
            f"mcp1.1-signature\n{self.session_id}\n{self.message_id}\n{self.message_type}\n{self.timestamp}\n"
            f"{self.security_level}\n{self.payload_sha256}\n{self.metadata_sha256}\n"
        ).encode()


def make_lines(
    *,
    session_id: str,
    message_id: str,
    message_type: str,
    timestamp: str,
    security_level: str,
    payload: bytes,
    metadata: bytes,
) -> SignedLines:
    """The lines of one message; ``payload`` and ``metadata`` are encoded, and empty where missing or null."""
    return SignedLines(
        session_id=session_id,
        message_id=message_id,
        message_type=message_type,
        timestamp=timestamp,
        security_level=security_level,
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        metadata_sha256=hashlib.sha256(metadata).hexdigest(),
    )


def sign(*, data: bytes, key_id: str, private_key: Ed25519PrivateKey) -> str:
    """``ed25519:<key_id>:<base64url>``: the signature, and whose it is."""
    return f"{ALGORITHM}:{key_id}:{encode_base64url(private_key.sign(data))}"


def read_key_id(signature: str) -> str | None:
    """Whose signature the text says that it is; ``None`` where it is none."""
    found = _SIGNATURE.fullmatch(signature)
    return None if found is None else found[1]


def verifies(*, signature: str, data: bytes, public_key: bytes) -> bool:
    """Whether the text is this key's signature over ``data``; whose it says that it is has no say."""
    found = _SIGNATURE.fullmatch(signature)
    if found is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(decode_base64url(found[2]), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_fresh(*, signed_at: datetime, now: datetime) -> bool:
    """Whether a signed message's timestamp is near enough to the server's clock."""
    return abs(now - signed_at) <= FRESH_FOR


class SignedOnce:
    """What one session has signed of late: each is taken once. Bounded, and never takes anything twice.

    A session is one account's and on one connection at a time, and its id is among the signed lines: what was signed
    for another session does not verify in this one, so that nothing needs to be remembered elsewhere.
    """

    def __init__(self, *, capacity: int = MAX_REMEMBERED) -> None:
        self._capacity = capacity
        self._by_age: list[tuple[datetime, bytes]] = []
        self._digests: set[bytes] = set()
        self._forgotten_until: datetime | None = None

    def take(self, *, lines: bytes, signed_at: datetime, now: datetime) -> bool:
        """Remember the lines; ``False`` where they were taken before, or may have been.

        ``signed_at`` is their timestamp, which ``is_fresh``.
        """
        self._forget_stale(now)
        if self._forgotten_until is not None and signed_at <= self._forgotten_until:
            return False
        digest = hashlib.sha256(lines).digest()
        if digest in self._digests:
            return False
        if len(self._by_age) >= self._capacity:
            self._forgotten_until = self._forget_oldest()
        self._digests.add(digest)
        heapq.heappush(self._by_age, (signed_at, digest))
        return True

    def __len__(self) -> int:
        return len(self._by_age)

    def _forget_stale(self, now: datetime) -> None:
        while self._by_age and self._by_age[0][0] < now - FRESH_FOR:
            self._forget_oldest()

    def _forget_oldest(self) -> datetime:
        signed_at, digest = heapq.heappop(self._by_age)
        self._digests.discard(digest)
        return signed_at


def make_evidence(*, lines: SignedLines, signature: str) -> dict[str, str]:
    """What is kept of a signed command: all that ``verify_evidence`` takes, as JSON."""
    return {
        "signature": signature,
        "session_id": lines.session_id,
        "id": lines.message_id,
        "type": lines.message_type,
        "timestamp": lines.timestamp,
        "security_level": lines.security_level,
        "payload_sha256": lines.payload_sha256,
        "metadata_sha256": lines.metadata_sha256,
    }


def verify_evidence(*, evidence: Mapping[str, Any], public_key: bytes) -> bool:
    """Whether the holder of this key signed the command that the evidence is of."""
    lines = SignedLines(
        session_id=str(evidence["session_id"]),
        message_id=str(evidence["id"]),
        message_type=str(evidence["type"]),
        timestamp=str(evidence["timestamp"]),
        security_level=str(evidence["security_level"]),
        payload_sha256=str(evidence["payload_sha256"]),
        metadata_sha256=str(evidence["metadata_sha256"]),
    )
    return verifies(signature=str(evidence["signature"]), data=lines.encode(), public_key=public_key)


def make_key_id(public_key: bytes) -> str:
    """The key's JWK thumbprint (RFC 7638), 43 characters: who has the key can say its id."""
    jwk = f'{{"crv":"Ed25519","kty":"OKP","x":"{encode_base64url(public_key)}"}}'
    return encode_base64url(hashlib.sha256(jwk.encode()).digest())


def parse_public_key(text: str) -> bytes:
    """The 32 bytes of an Ed25519 public key: base64url, PEM, or a line as OpenSSH writes it.

    Raises:
        PublicKeyInvalid: it is none of these, or a key with which anybody could sign.
    """
    public_key = _read_public_key(text.strip())
    without_sign = public_key[:-1] + bytes([public_key[-1] & 0x7F])
    if without_sign in _LOW_ORDER_KEYS:
        raise PublicKeyInvalid("With this key anybody could sign: it is a point of small order.")
    return public_key


def _read_public_key(text: str) -> bytes:
    if text.startswith("-----BEGIN PUBLIC KEY-----"):
        return _strip(_PEM_PREFIX, "".join(text.splitlines()[1:-1]))
    if text.startswith("ssh-"):
        return _strip(_OPENSSH_PREFIX, text.split()[1] if " " in text else "")
    try:
        public_key = decode_base64url(text.rstrip("="))
    except ValueError as error:
        raise PublicKeyInvalid("Expected base64url, PEM or an OpenSSH line.") from error
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise PublicKeyInvalid("An Ed25519 public key is 32 bytes.")
    return public_key


def _strip(prefix: bytes, body: str) -> bytes:
    """The key behind the fixed bytes that say that it is one of Ed25519."""
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PublicKeyInvalid("The key's base64 cannot be decoded.") from error
    if not data.startswith(prefix) or len(data) != len(prefix) + PUBLIC_KEY_BYTES:
        raise PublicKeyInvalid("It is not an Ed25519 public key.")
    return data[len(prefix) :]
