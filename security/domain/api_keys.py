"""What an API key looks like, what is kept of it, and whether it counts.

What belongs here takes entropy and the time as arguments. Storing and finding keys is the services'.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

KEY_MARK: Final = "mcp_"
"""What every key begins with, so that people and secret scanners know one."""
ENTROPY_BYTES: Final = 32
PREFIX_LENGTH: Final = 12
"""How much of a key is kept readable: the mark and 8 of its 43 characters."""
HASH_LENGTH: Final = 64


class KeyState(enum.StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMaterial:
    """A new key and what is stored of it."""

    secret: str
    prefix: str
    key_hash: str

    def __repr__(self) -> str:
        return f"KeyMaterial(prefix={self.prefix!r})"


def make_key(*, entropy: bytes) -> KeyMaterial:
    """The key made of these 32 random bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"A key is made of {ENTROPY_BYTES} random bytes.")
    secret = KEY_MARK + base64.urlsafe_b64encode(entropy).rstrip(b"=").decode("ascii")
    return KeyMaterial(secret=secret, prefix=secret[:PREFIX_LENGTH], key_hash=hash_key(secret))


def hash_key(secret: str) -> str:
    """SHA-256 in hex. A key holds 256 random bits, so that a slow, salted hash would protect nothing more."""
    # Any text is hashed, valid or not, so that what a stranger sends ends as an unknown key and nothing else.
    return hashlib.sha256(secret.encode("utf-8", errors="surrogatepass")).hexdigest()


def get_key_state(*, expires_at: datetime | None, revoked_at: datetime | None, now: datetime) -> KeyState:
    """What the key is at ``now``; a revoked one stays revoked when it expires too."""
    if revoked_at is not None:
        return KeyState.REVOKED
    if expires_at is not None and expires_at <= now:
        return KeyState.EXPIRED
    return KeyState.ACTIVE
