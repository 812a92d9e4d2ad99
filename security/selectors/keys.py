"""The stored keys of the ring."""

from __future__ import annotations

from security.models import EncryptionKey


def list_keys() -> list[EncryptionKey]:
    """Every key of the ring, in no order that matters."""
    return list(EncryptionKey.objects.order_by("created_at", "id"))
