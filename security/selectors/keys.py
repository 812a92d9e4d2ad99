"""The stored keys of the ring."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings

from security.domain.key_states import KeyPurpose, RingKeyState
from security.models import EncryptionKey, IssuedToken


def list_keys() -> list[EncryptionKey]:
    """Every key of the ring, the oldest first."""
    return list(EncryptionKey.objects.order_by("created_at", "id"))


def find_key(*, purpose: KeyPurpose, state: RingKeyState) -> EncryptionKey | None:
    """The purpose's key in a state of which there is one at most: pending, or active."""
    return EncryptionKey.objects.filter(purpose=purpose.value, state=state.value).first()


def list_aged_keys(*, now: datetime) -> list[EncryptionKey]:
    """The active keys that have been in use for ``MCP_KEY_WARNING_DAYS`` and more; none where that is 0."""
    days = settings.MCP.key_warning_days
    if not days:
        return []
    in_use = EncryptionKey.objects.filter(state=RingKeyState.ACTIVE.value)
    return list(in_use.filter(activated_at__lte=now - timedelta(days=days)).order_by("activated_at", "id"))


def has_tokens_of(*, issued_before: datetime, now: datetime) -> bool:
    """Whether a token lasts that was issued before then."""
    return IssuedToken.objects.filter(issued_at__lt=issued_before, expires_at__gt=now).exists()
