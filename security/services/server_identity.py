"""The key that the server signs handshakes with."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from security.domain.identity import load_identity_key
from security.domain.signatures import make_key_id


@dataclass(frozen=True)
class Identity:
    id: str
    private_key: Ed25519PrivateKey = field(repr=False)


def get_identity() -> Identity:
    private_key = load_identity_key(seed=settings.MCP.identity_seed)
    return Identity(id=make_key_id(private_key.public_key().public_bytes_raw()), private_key=private_key)
