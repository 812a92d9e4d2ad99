"""The server's identity, as clients may pin it."""

from __future__ import annotations

from security.domain.identity import get_fingerprint
from security.domain.key_states import KeyPurpose, RingKeyState
from security.models import EncryptionKey


def get_identity_fingerprint() -> str:
    """The fingerprint of the active identity key, for clients to pin: ``SHA256:…``.

    Raises:
        EncryptionKey.DoesNotExist: the first keys are not made yet.
    """
    key = EncryptionKey.objects.get(purpose=KeyPurpose.IDENTITY.value, state=RingKeyState.ACTIVE.value)
    return get_fingerprint(public_key=bytes(key.public_key))
