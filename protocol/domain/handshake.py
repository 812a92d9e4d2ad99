"""What client and server agree on before anything else (protocol.md section 4)."""

from __future__ import annotations

from typing import TypeGuard

import msgspec

from protocol.domain.channel import KEY_AGREEMENT_ALGORITHM, Agreed
from protocol.domain.codec import Codec
from protocol.domain.judging import decode_payload
from protocol.domain.messages import (
    AUTHENTICATION_METHODS,
    PROTOCOL_VERSION,
    SUPPORTED_FEATURES,
    SUPPORTED_VERSIONS,
    AuthenticationOffer,
    Envelope,
    HandshakeAnswer,
    HandshakeRequest,
    KeyAgreement,
    KeyAgreementOffer,
    Limits,
    RekeyRequest,
    SecurityLevel,
    ServerInfo,
)
from protocol.errors import EncryptionRequired, FeatureNotAgreed, InvalidPayload, UnexpectedMessage, VersionUnsupported


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the server offers to every connection."""

    server: ServerInfo
    limits: Limits
    minimum_level: SecurityLevel = SecurityLevel.STANDARD


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the connection from now on, and how the client is told."""

    features: frozenset[str]
    answer: HandshakeAnswer


def negotiate(*, request: HandshakeRequest, terms: Terms, connection_id: str) -> Agreement:
    """What both sides have of what the client asks for.

    Raises:
        VersionUnsupported: no version in common; ``details.supported``.
        FeatureNotAgreed: the client insists on something that is not here; ``details.path``.
        EncryptionRequired: the level needs keys, and the client offers none.
    """
    if not any(version in SUPPORTED_VERSIONS for version in request.protocol_versions):
        raise VersionUnsupported(details={"supported": SUPPORTED_VERSIONS})
    _refuse_missing(request)
    limits = terms.limits
    if request.max_in_flight is not None:
        limits = msgspec.structs.replace(limits, max_in_flight=min(limits.max_in_flight, request.max_in_flight))
    level = choose_level(request=request, terms=terms)
    features = tuple(feature for feature in SUPPORTED_FEATURES if feature in request.features)
    answer = HandshakeAnswer(
        protocol_version=PROTOCOL_VERSION,
        server=terms.server,
        connection_id=connection_id,
        security_level=level,
        features=features,
        limits=limits,
        authentication=AuthenticationOffer(methods=AUTHENTICATION_METHODS),
    )
    return Agreement(features=frozenset(features), answer=answer)


def choose_level(*, request: HandshakeRequest, terms: Terms) -> SecurityLevel:
    """What the client asks for, raised where the server demands more; ``standard`` where it asks for nothing.

    Raises:
        EncryptionRequired: at that level messages are sealed, and the client offers no keys.
    """
    level = max(terms.minimum_level, request.security_level or SecurityLevel.STANDARD, key=lambda level: level.rank)
    if is_sealed(level) and not offers_keys(request.key_agreement):
        raise EncryptionRequired(
            details={
                "path": "payload.key_agreement",
                "security_level": level.value,
                "algorithm": KEY_AGREEMENT_ALGORITHM,
            }
        )
    return level


def is_sealed(level: SecurityLevel) -> bool:
    """Whether messages on this level are sealed."""
    return level.rank >= SecurityLevel.HIGH.rank


def offers_keys(offer: KeyAgreementOffer | None) -> TypeGuard[KeyAgreementOffer]:
    """Whether the client offers to agree on keys in the way that this server has."""
    return offer is not None and offer.algorithm == KEY_AGREEMENT_ALGORITHM


def describe_agreed(agreed: Agreed) -> KeyAgreement:
    """The server's half of the keys as the client is told it."""
    return KeyAgreement(
        algorithm=KEY_AGREEMENT_ALGORITHM,
        public_key=agreed.public_key,
        key_id=agreed.key_id,
        signature=agreed.signature,
    )


def read_rekey(codec: Codec, envelope: Envelope) -> KeyAgreementOffer:
    """The client's half of new keys.

    Raises:
        UnexpectedMessage: the handshake is another than a re-key.
        FeatureNotAgreed: it agrees on keys in a way that this server does not have.
    """
    try:
        request = decode_payload(codec, envelope, RekeyRequest)
    except InvalidPayload as error:
        raise UnexpectedMessage(
            "A handshake on an open connection carries key_agreement alone.", details=error.details
        ) from error
    if not offers_keys(request.key_agreement):
        raise FeatureNotAgreed(
            "Keys are not agreed on in this way.",
            details={"path": "payload.key_agreement.algorithm", "algorithm": KEY_AGREEMENT_ALGORITHM},
        )
    return request.key_agreement


def _refuse_missing(request: HandshakeRequest) -> None:
    if request.state_sync:
        raise FeatureNotAgreed("This server synchronises no state.", details={"path": "payload.state_sync"})
    for name, offer in request.extensions.items():
        if offer.required:
            raise FeatureNotAgreed(
                "A required extension is not here.", details={"path": "payload.extensions", "extension": name[:100]}
            )
