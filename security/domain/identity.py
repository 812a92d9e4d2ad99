"""How clients know the server's identity key: by its fingerprint, which they may pin."""

from __future__ import annotations

import base64
import hashlib


def get_fingerprint(*, public_key: bytes) -> str:
    """``SHA256:`` and the unpadded base64 of the raw public key's SHA-256, as OpenSSH writes fingerprints."""
    digest = hashlib.sha256(public_key).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")
