"""The stored keys of the ring."""

from __future__ import annotations

from datetime import datetime

from security.domain.key_states import KeyPurpose, RingKeyState
from security.models import EncryptionKey, IssuedToken


def list_keys() -> list[EncryptionKey]:
    """Every key of the ring, the oldest first."""
    return list(EncryptionKey.objects.order_by("created_at", "id"))


def find_key(*, purpose: KeyPurpose, state: RingKeyState) -> EncryptionKey | None:
    """The purpose's key in a state of which there is one at most: pending, or active."""
    return EncryptionKey.objects.filter(purpose=purpose.value, state=state.value).first()


def has_tokens_of(*, issued_before: datetime, now: datetime) -> bool:
    """Whether a token lasts that was issued before then."""
    return IssuedToken.objects.filter(issued_at__lt=issued_before, expires_at__gt=now).exists()
