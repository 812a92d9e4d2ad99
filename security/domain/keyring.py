"""The key ring: what may be sealed, opened, signed and verified with the keys that a process has read.

A ring is a snapshot and never changes; it is made from keys that are unwrapped already. What belongs here neither
queries nor waits. Reading the keys, and knowing when to read them again, is ``services.keyring``'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.ports import Sealed
from security.domain.key_states import KeyAlgorithm, KeyPurpose, RingKeyState
from security.domain.master_keys import NONCE_BYTES, KeyLabel

KEY_BYTES: Final = 32
ID_BYTES: Final = 8
ID_LENGTH: Final = 2 * ID_BYTES


class NoActiveKey(Exception):
    """The ring has no key that does this."""


class KeyUnknown(Exception):
    """The ring has no key of this id for this purpose."""


class NotOpened(Exception):
    """What was sealed, its key's id or what it is bound to is not as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RingKey:
    """One key as it was stored, unwrapped."""

    label: KeyLabel
    state: RingKeyState
    since: datetime
    """When it was made."""
    secret: bytes = field(repr=False)
    """32 bytes; empty where only the public half is left."""

    @property
    def id(self) -> str:
        return self.label.id

    @property
    def purpose(self) -> KeyPurpose:
        return self.label.purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """An Ed25519 key, and how signatures name it."""

    id: str
    private_key: Ed25519PrivateKey = field(repr=False)


class Keyring:
    """The keys of one moment; for all threads."""

    def __init__(self, keys: Iterable[RingKey] = ()) -> None:
        self.keys: Final = tuple(keys)
        self._ciphers = {key.id: AESGCM(key.secret) for key in self.keys if _is_cipher(key)}
        self._sealing = next((key.id for key in self.keys if _is_cipher(key) and _is_active(key)), None)
        self._signing = {
            key.purpose: SigningKey(id=key.id, private_key=Ed25519PrivateKey.from_private_bytes(key.secret))
            for key in self.keys
            if not _is_cipher(key) and _is_active(key)
        }
        self._verifying = {
            (key.purpose, key.id): Ed25519PublicKey.from_public_bytes(key.label.public_key)
            for key in self.keys
            if not _is_cipher(key) and _verifies(key)
        }
        self._ids = frozenset(key.id for key in self.keys)

    def has_key(self, key_id: str) -> bool:
        """Whether there is a key of this id, whatever it is for."""
        return key_id in self._ids

    def get_sealing_id(self) -> str:
        """The id of the key that seals now.

        Raises:
            NoActiveKey: there is none.
        """
        if self._sealing is None:
            raise NoActiveKey(KeyPurpose.AT_REST)
        return self._sealing

    def seal(self, *, plaintext: bytes, aad: bytes) -> Sealed:
        """Seal under the active at-rest key, bound to ``aad`` and the key's id: nonce (12), ciphertext, tag (16).

        Raises:
            NoActiveKey: there is none.
        """
        key_id = self.get_sealing_id()
        nonce = os.urandom(NONCE_BYTES)
        data = nonce + self._ciphers[key_id].encrypt(nonce, plaintext, _bind(key_id, aad))
        return Sealed(key_id=key_id, data=data)

    def open(self, *, key_id: str, data: bytes, aad: bytes) -> bytes:
        """What ``seal`` was given, under whatever at-rest key it did it.

        Raises:
            KeyUnknown: the ring has no such key.
            NotOpened: anything is not as it was sealed.
        """
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyUnknown(key_id)
        try:
            return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bind(key_id, aad))
        except (InvalidTag, ValueError) as error:
            raise NotOpened(f"under key {key_id}") from error

    def get_signing_key(self, purpose: KeyPurpose) -> SigningKey:
        """The active one.

        Raises:
            NoActiveKey: there is none.
        """
        try:
            return self._signing[purpose]
        except KeyError:
            raise NoActiveKey(purpose) from None

    def get_verifying_key(self, purpose: KeyPurpose, key_id: str) -> Ed25519PublicKey | None:
        """The public half of a key whose signatures count, or may soon; ``None``: there is none such."""
        return self._verifying.get((purpose, key_id))


def make_secret() -> bytes:
    """The secret half of a new key of either algorithm."""
    return os.urandom(KEY_BYTES)


def make_label(*, purpose: KeyPurpose, algorithm: KeyAlgorithm, secret: bytes) -> KeyLabel:
    """A new key's label: a random id that means nothing, and the public half where there is one."""
    public_key = b""
    if algorithm is KeyAlgorithm.ED25519:
        public_key = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return KeyLabel(id=os.urandom(ID_BYTES).hex(), purpose=purpose, algorithm=algorithm, public_key=public_key)


def _is_cipher(key: RingKey) -> bool:
    return key.label.algorithm is KeyAlgorithm.AES_256_GCM


def _is_active(key: RingKey) -> bool:
    return key.state is RingKeyState.ACTIVE


def _verifies(key: RingKey) -> bool:
    """A pending one may sign already on a node that knows more; an audit key's heads must verify for ever."""
    return key.state is not RingKeyState.RETIRED or key.purpose is KeyPurpose.AUDIT


def _bind(key_id: str, aad: bytes) -> bytes:
    return f"{key_id}\n".encode() + aad
