"""The server's identity key: Ed25519, made from a 32-byte seed, known to clients by its fingerprint.

What belongs here is the key and what is derived from it. Where the seed is kept is the settings'.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def load_identity_key(*, seed: bytes) -> Ed25519PrivateKey:
    """The private key of this 32-byte seed (RFC 8032, section 5.1.5)."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def get_fingerprint(*, key: Ed25519PrivateKey) -> str:
    """``SHA256:`` and the unpadded base64 of the raw public key's SHA-256, as OpenSSH writes fingerprints."""
    digest = hashlib.sha256(key.public_key().public_bytes_raw()).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")
