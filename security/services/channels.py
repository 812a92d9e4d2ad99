"""``protocol.domain.channel.KeyAgreer``: an ephemeral key for each connection, signed for by the server's identity."""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.domain.base64url import decode_base64url, encode_base64url
from protocol.domain.channel import Agreed
from protocol.errors import InvalidPayload
from security.domain.connection_keys import AgreementFailed, agree_on_secret, derive_keys, hash_transcript
from security.domain.key_states import KeyPurpose
from security.domain.keyring import SigningKey
from security.domain.sealing import SealedChannel
from security.domain.signatures import sign
from security.services.keyring import get_keyring

KEY_ID_BYTES = 8


def get_identity_key() -> SigningKey:
    """The active identity key of the process's key ring."""
    return get_keyring().get_signing_key(KeyPurpose.IDENTITY)


class IdentityKeyAgreer:
    """See the module."""

    def __init__(self, *, get_identity_key: Callable[[], SigningKey] = get_identity_key) -> None:
        self._get_identity_key = get_identity_key

    def agree(
        self,
        *,
        public_key: str,
        client_frame: bytes,
        connection_id: str,
        protocol_version: str,
        security_level: str,
        previous_hash: bytes | None,
    ) -> Agreed:
        """New keys with whoever has this public key (base64url); ``previous_hash`` is a re-key's old ``H``.

        Raises:
            InvalidPayload: it is no public key, or one with which everybody gets the same keys.
        """
        private_key = X25519PrivateKey.generate()
        try:
            secret = agree_on_secret(private_key=private_key, public_key=decode_base64url(public_key))
        except (AgreementFailed, ValueError) as error:
            raise InvalidPayload(
                "It is no X25519 public key as base64url.", details={"path": "payload.key_agreement.public_key"}
            ) from error
        own_public_key = encode_base64url(private_key.public_key().public_bytes_raw())
        key_id = os.urandom(KEY_ID_BYTES).hex()
        transcript_hash = hash_transcript(
            client_frame=client_frame,
            public_key=own_public_key,
            connection_id=connection_id,
            protocol_version=protocol_version,
            security_level=security_level,
            key_id=key_id,
            previous_hash=previous_hash,
        )
        identity = self._get_identity_key()
        keys = derive_keys(shared_secret=secret, transcript_hash=transcript_hash, key_id=key_id)
        return Agreed(
            public_key=own_public_key,
            key_id=key_id,
            signature=sign(data=transcript_hash, key_id=identity.id, private_key=identity.private_key),
            channel=SealedChannel(keys),
        )
