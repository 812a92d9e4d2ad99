"""The public halves of the signing keys as a JWK Set (RFC 7517), each as RFC 8037 writes an Ed25519 key."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from msgspec import Struct

from security.domain.key_states import KeyAlgorithm, KeyPurpose, RingKeyState
from security.domain.keyring import RingKey


class PublicJwk(Struct, frozen=True, kw_only=True):
    """One public key; ``purpose`` and ``state`` are this server's own members."""

    kty: str = "OKP"
    crv: str = "Ed25519"
    x: str
    kid: str
    alg: str = "EdDSA"
    use: str = "sig"
    purpose: KeyPurpose
    state: RingKeyState


class KeySet(Struct, frozen=True):
    keys: tuple[PublicJwk, ...]


def make_key_set(keys: Iterable[RingKey]) -> KeySet:
    """The keys whose signatures count, or soon will; of the audit record's keys all, since old heads must verify."""
    shown = [
        PublicJwk(
            x=base64.urlsafe_b64encode(key.label.public_key).rstrip(b"=").decode(),
            kid=key.id,
            purpose=key.purpose,
            state=key.state,
        )
        for key in keys
        if key.label.algorithm is KeyAlgorithm.ED25519
        and (key.state is not RingKeyState.RETIRED or key.purpose is KeyPurpose.AUDIT)
    ]
    return KeySet(tuple(sorted(shown, key=lambda key: (key.purpose, list(RingKeyState).index(key.state), key.kid))))
