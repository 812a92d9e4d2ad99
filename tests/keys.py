"""The key ring of a test's database: as a started server has it, without a record of its making."""

from __future__ import annotations

from security.domain.key_states import KeyPurpose, RingKeyState
from security.models import EncryptionKey
from security.services.key_making import make_key
from security.services.keyring import forget_keyring, get_keyring


def ensure_keys() -> None:
    """An active key for each purpose, read by this process."""
    keys = [make_key(purpose=purpose, state=RingKeyState.ACTIVE) for purpose in KeyPurpose]
    EncryptionKey.objects.bulk_create(keys, ignore_conflicts=True)
    forget_keyring()
    get_keyring()
