"""Master keys, and the wrapping of other keys by them.

What belongs here is bytes in, bytes out. Where a master key comes from is ``services.master_key``'s.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from security.domain.key_states import KeyAlgorithm, KeyPurpose

MASTER_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
WRAPPED_EMPTY_BYTES: Final = NONCE_BYTES + TAG_BYTES
"""Of a key whose secret half was wiped: its wrapping still proves the public half."""
WRAPPED_BYTES: Final = WRAPPED_EMPTY_BYTES + 32
"""Every secret half has 32 bytes: an AES-256 key, or the seed of an Ed25519 key."""
ID_INFO: Final = b"mcp master key id v1"
WRAPPING_INFO: Final = b"mcp master key wrapping v1"
SEPARATORS: Final = re.compile(r"[\s,]+")


class MasterKeyInvalid(Exception):
    """The text is not a master key; it is not repeated."""


class NotUnwrapped(Exception):
    """The key was wrapped by another master key, or something of it was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLabel:
    """What a wrapping is bound to."""

    id: str
    purpose: KeyPurpose
    algorithm: KeyAlgorithm
    public_key: bytes = b""
    """The raw public half; empty for a key that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKey:
    """A key that wraps other keys, known by an id that tells nothing of it."""

    id: str
    _cipher: AESGCM = field(repr=False)

    def wrap(self, *, label: KeyLabel, secret: bytes) -> bytes:
        """Nonce, ciphertext and tag of the secret half; an empty one leaves proof of the label alone."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, self._make_aad(label))

    def unwrap(self, *, label: KeyLabel, wrapped: bytes) -> bytes:
        """The secret half, empty where it was wiped.

        Raises:
            NotUnwrapped: anything of it is not as it was wrapped.
        """
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._make_aad(label))
        except (InvalidTag, ValueError) as error:
            raise NotUnwrapped(f"key {label.id}") from error

    def _make_aad(self, label: KeyLabel) -> bytes:
        lines = ("mcp key v1", label.id, label.purpose, label.algorithm, label.public_key.hex(), self.id)
        return "".join(f"{line}\n" for line in lines).encode()


def make_master_key(*, secret: bytes) -> MasterKey:
    """The master key of these 32 bytes: its id and its cipher by HKDF-SHA256 (RFC 5869), each for nothing else."""
    if len(secret) != MASTER_KEY_BYTES:
        raise MasterKeyInvalid
    return MasterKey(
        id=_derive(secret, info=ID_INFO, length=8).hex(),
        _cipher=AESGCM(_derive(secret, info=WRAPPING_INFO, length=32)),
    )


def parse_master_keys(text: str) -> tuple[MasterKey, ...]:
    """The master keys of a text: each 32 bytes as base64url, between them commas or white space; the first wraps.

    Raises:
        MasterKeyInvalid: there is none, one is something else, or one comes twice.
    """
    keys = tuple(make_master_key(secret=_decode(part)) for part in split_master_keys(text))
    if len({key.id for key in keys}) != len(keys):
        raise MasterKeyInvalid
    return keys


def split_master_keys(text: str) -> list[str]:
    """The texts of the master keys in a text; none of them is looked at."""
    return SEPARATORS.split(text.strip(" \t\r\n,"))


def generate_master_key() -> str:
    """The text of a new one."""
    return base64.urlsafe_b64encode(os.urandom(MASTER_KEY_BYTES)).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MasterKeyInvalid from None


def _derive(secret: bytes, *, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)
