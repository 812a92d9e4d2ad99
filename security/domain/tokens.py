"""Access and refresh tokens: what they say, and whether one counts.

What belongs here takes the time as an argument. Signing and storing are the services'.
"""

from __future__ import annotations

import enum
import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

ALGORITHM: Final = "EdDSA"
"""The one algorithm (RFC 8037), whatever a token says of itself."""
REUSE_GRACE: Final = timedelta(seconds=10)
"""How long after its use a refresh token may come again without being taken for stolen.

A client that sends twice at once, or again because no answer came, is within it. It gets no second pair either way.
"""


class TokenKind(enum.StrEnum):
    ACCESS = "access"
    REFRESH = "refresh"


class TokenState(enum.StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    SPENT = "spent"
    REVOKED = "revoked"


class TokenInvalid(Exception):
    """The text is not a token that this server made and that still lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says, once its signature was found good."""

    token_id: uuid.UUID
    account_id: uuid.UUID
    kind: TokenKind
    expires_at: datetime


def hash_token(token: str) -> bytes:
    """SHA-256 of the token's text, under which what was found of it may be kept."""
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).digest()


def parse_claims(payload: dict[str, Any], *, expires_at: datetime) -> Claims:
    """The claims of a payload whose signature was found good.

    Raises:
        TokenInvalid: it is of another purpose.
    """
    try:
        return Claims(
            token_id=uuid.UUID(payload["jti"]),
            account_id=uuid.UUID(payload["sub"]),
            kind=TokenKind(payload["token_type"]),
            expires_at=expires_at,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise TokenInvalid from error


def get_token_state(
    *, expires_at: datetime, spent_at: datetime | None, revoked_at: datetime | None, now: datetime
) -> TokenState:
    """What the token is at ``now``; revoked before spent, spent before expired."""
    if revoked_at is not None:
        return TokenState.REVOKED
    if spent_at is not None:
        return TokenState.SPENT
    return TokenState.EXPIRED if expires_at <= now else TokenState.ACTIVE


def is_reuse(*, spent_at: datetime, now: datetime) -> bool:
    """Whether a spent token that comes again must be taken for stolen."""
    return now - spent_at > REUSE_GRACE


def get_expiry(*, now: datetime, lifetime: timedelta, ends_at: datetime | None) -> datetime:
    """When a token ends: after its lifetime, never after what it was obtained with; whole seconds, as in its text."""
    expires_at = now + lifetime if ends_at is None else min(now + lifetime, ends_at)
    return expires_at.replace(microsecond=0)
