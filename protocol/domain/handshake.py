"""What client and server agree on before anything else (protocol.md section 4)."""

from __future__ import annotations

import msgspec

from protocol.domain.messages import (
    AUTHENTICATION_METHODS,
    PROTOCOL_VERSION,
    SUPPORTED_FEATURES,
    SUPPORTED_VERSIONS,
    AuthenticationOffer,
    HandshakeAnswer,
    HandshakeRequest,
    Limits,
    SecurityLevel,
    ServerInfo,
)
from protocol.errors import FeatureNotAgreed, VersionUnsupported


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
    """
    if not any(version in SUPPORTED_VERSIONS for version in request.protocol_versions):
        raise VersionUnsupported(details={"supported": SUPPORTED_VERSIONS})
    _refuse_missing(request)
    limits = terms.limits
    if request.max_in_flight is not None:
        limits = msgspec.structs.replace(limits, max_in_flight=min(limits.max_in_flight, request.max_in_flight))
    # Raised where the server demands more, never below what the client asks for.
    level = max(terms.minimum_level, request.security_level or terms.minimum_level, key=lambda level: level.rank)
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


def _refuse_missing(request: HandshakeRequest) -> None:
    level = request.security_level
    if level is not None and level.rank > SecurityLevel.STANDARD.rank:
        raise FeatureNotAgreed(
            "This server offers no level above standard.",
            details={"path": "payload.security_level", "offered": SecurityLevel.STANDARD.value},
        )
    if request.state_sync:
        raise FeatureNotAgreed("This server synchronises no state.", details={"path": "payload.state_sync"})
    for name, offer in request.extensions.items():
        if offer.required:
            raise FeatureNotAgreed(
                "A required extension is not here.", details={"path": "payload.extensions", "extension": name[:100]}
            )
