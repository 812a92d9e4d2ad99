"""The server's identity, as clients may pin it."""

from __future__ import annotations

from django.conf import settings

from security.domain import identity


def get_identity_fingerprint() -> str:
    """The fingerprint of the server's identity key, for clients to pin: ``SHA256:…``."""
    return identity.get_fingerprint(key=identity.load_identity_key(seed=settings.MCP.identity_seed))
