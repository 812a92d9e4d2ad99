"""Sign-on by OpenID Connect: what is known of the provider, and what an ID token that was found good says. Pure.

Whether a token is good is ``services.openid``'s, whose it is ``services.sign_on``'s.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

EMAIL_CLAIM: Final = "email"
NO_CLAIM: Final = "none"
"""Instead of a claim's name: nobody is linked but by an operator."""
MAX_SUBJECT_LENGTH: Final = 255
"""OpenID Connect Core 1.0, section 2."""
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class Refusal(enum.StrEnum):
    """Why a sign-on was not taken, for the record and the log."""

    NOT_BEGUN = "not begun by this browser, or too long ago"
    WRONG_STATE = "another sign-on's state"
    PROVIDER_REFUSED = "refused by the provider"
    CODE_REFUSED = "its code was not taken by the provider"
    TOKEN_INVALID = "its ID token is not good"  # noqa: S105  # a text
    CLAIM_MISSING = "without the required claim"
    NOT_LINKED = "linked with no account"
    LINKED_OTHERWISE = "its account is linked with another subject"
    ACCOUNT_REFUSED = "its account is inactive, a service, or not staff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The provider as it is configured, and what is believed of its word."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str
    """What persons call it."""
    scopes: tuple[str, ...]
    signing_algorithm: str
    account_claim: str
    required_claim: str
    """``name=value``; empty: none is required."""
    second_factor_values: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        return self.issuer.startswith("http://")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderIdentity:
    """Somebody as a good ID token names them."""

    issuer: str
    subject: str
    email: str | None = None
    """Only where it is what accounts are found by, and the provider has verified it."""
    username: str | None = None
    """Likewise, of another claim."""
    has_second_factor: bool = False
    has_required_claim: bool = True
    authenticated_at: int | None = None
    """When the person proved to the provider who they are, in seconds since 1970; ``None``: it does not say."""


def is_safe_url(url: str, *, allows_loopback: bool) -> bool:
    """Whether a provider may be asked there: over TLS, or on this machine where the provider itself is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable():
        return False
    return parts.scheme == "https" or (allows_loopback and parts.scheme == "http" and host in LOOPBACK_HOSTS)


def is_issuer(url: str) -> bool:
    """Whether it may be an issuer's identifier (OpenID Connect Discovery 1.0, section 4.1)."""
    return is_safe_url(url, allows_loopback=True) and "?" not in url and "#" not in url


def split_required_claim(text: str) -> tuple[str, str]:
    """Name and value of a required claim.

    Raises:
        ValueError: it is not ``name=value``.
    """
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError("expected a claim and its value, as groups=operators")
    return name, value


def read_identity(*, claims: Mapping[str, Any], provider: Provider) -> ProviderIdentity | None:
    """What the claims of a good ID token say; ``None`` where they name nobody.

    A claim of another type than it should be says nothing.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not is_text(subject):
        return None
    named = claims.get(provider.account_claim)
    name = named if isinstance(named, str) and named and is_text(named) else None
    is_email = provider.account_claim == EMAIL_CLAIM
    # ``true`` itself: what some providers send as a text is not taken for it.
    is_verified = claims.get("email_verified") is True
    auth_time = claims.get("auth_time")
    is_time = isinstance(auth_time, int) and not isinstance(auth_time, bool) and auth_time > 0
    return ProviderIdentity(
        issuer=provider.issuer,
        subject=subject,
        email=name if is_email and is_verified else None,
        username=None if is_email or provider.account_claim == NO_CLAIM else name,
        has_second_factor=_has_second_factor(claims, provider.second_factor_values),
        has_required_claim=_has_required_claim(claims, provider.required_claim),
        authenticated_at=auth_time if is_time else None,
    )


def is_text(text: str) -> bool:
    """Whether every database takes it."""
    return text.isprintable() and not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _has_second_factor(claims: Mapping[str, Any], values: tuple[str, ...]) -> bool:
    methods = claims.get("amr")
    said = [method for method in methods if isinstance(method, str)] if isinstance(methods, list) else []
    context = claims.get("acr")
    if isinstance(context, str):
        said.append(context)
    return any(value in said for value in values)


def _has_required_claim(claims: Mapping[str, Any], required: str) -> bool:
    if not required:
        return True
    name, value = split_required_claim(required)
    found = claims.get(name)
    return value in found if isinstance(found, list) else found == value
