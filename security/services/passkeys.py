"""Passkeys: WebAuthn's two ceremonies (W3C WebAuthn 2, section 7), by ``fido2``.

Imported only where a passkey is used, since ``fido2`` takes a seventh of a second. What a ceremony's beginning gives as
``state`` is kept in the browser's session until its end, and used once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from fido2.rpid import verify_rp_id
from fido2.server import Fido2Server
from fido2.utils import websafe_encode
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    UserVerificationRequirement,
)

from protocol.errors import AuthenticationFailed
from protocol.ports import Principal
from security.models import Account, Passkey
from security.services.second_factors import add_factor

MAX_PASSKEYS: Final = 20
MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)
"""What ``fido2`` raises at an answer that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the browser is: a passkey is for one host and works nowhere else."""

    origin: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceremony:
    """What the browser is asked, and what must be remembered meanwhile; both are JSON."""

    options: dict[str, Any]
    state: dict[str, Any]


def begin_registration(*, account: Account, site: Site) -> Ceremony:
    """Ask the browser for a new passkey of the account.

    Raises:
        ValidationError: the account has as many as it may have.
    """
    known = _list_credentials(account)
    if len(known) >= MAX_PASSKEYS:
        raise ValidationError(f"An account has at most {MAX_PASSKEYS} passkeys.", code="too_many")
    user = PublicKeyCredentialUserEntity(
        id=account.id.bytes, name=account.username, display_name=account.get_full_name()
    )
    options, state = _make_server(site).register_begin(
        user, credentials=known, user_verification=UserVerificationRequirement.PREFERRED
    )
    return Ceremony(options=dict(options), state=_plain(state))


def finish_registration(
    *,
    account: Account,
    site: Site,
    name: str,
    state: Mapping[str, Any],
    answer: Mapping[str, Any],
    principal: Principal,
    trace_id: str,
) -> list[str]:
    """Keep the passkey that the browser made. Recovery codes, if there were none.

    Raises:
        ValidationError: the answer is not to this question, or from elsewhere, or the passkey is known.
    """
    try:
        made = _make_server(site).register_complete(state, RegistrationResponse.from_dict(answer))
        credential = made.credential_data
        if credential is None:
            raise ValueError("no credential")
    except MALFORMED as error:
        raise ValidationError("The passkey was not accepted. Try again.", code="passkey_refused") from error
    try:
        with transaction.atomic():
            Passkey.objects.create(
                account=account,
                name=name or "Passkey",
                credential_id=websafe_encode(credential.credential_id),
                credential=bytes(credential),
                sign_count=made.counter,
            )
            return add_factor(account=account, kind="passkey", principal=principal, trace_id=trace_id)
    except IntegrityError as error:
        raise ValidationError("This passkey is known already.", code="passkey_known") from error


def begin_check(*, account: Account, site: Site) -> Ceremony:
    """Ask the browser to prove that it has one of the account's passkeys."""
    options, state = _make_server(site).authenticate_begin(
        _list_credentials(account), user_verification=UserVerificationRequirement.PREFERRED
    )
    return Ceremony(options=dict(options), state=_plain(state))


def check_passkey(*, account: Account, site: Site, state: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """The browser's proof. It is too long to guess, so that it is not counted.

    Raises:
        AuthenticationFailed: it is none of the account's passkeys', or its counter did not move on: then there may be
            a copy (section 6.1.1).
    """
    try:
        response = AuthenticationResponse.from_dict(answer)
        used = _make_server(site).authenticate_complete(state, _list_credentials(account), response)
        count = response.response.authenticator_data.counter
    except MALFORMED as error:
        raise AuthenticationFailed from error
    # A device that counts moves on each time; one that does not says 0 for ever.
    is_behind = Q(sign_count__lt=count) if count else Q(sign_count=0)
    passkey = Passkey.objects.filter(is_behind, account=account, credential_id=websafe_encode(used.credential_id))
    if not passkey.update(sign_count=count, last_used_at=timezone.now()):
        raise AuthenticationFailed


def _make_server(site: Site) -> Fido2Server:
    host = urlsplit(site.origin).hostname or ""
    return Fido2Server(
        PublicKeyCredentialRpEntity(id=host, name=site.name),
        # This origin, port and all, not only this host; and one that browsers call secure.
        verify_origin=lambda origin: origin == site.origin and verify_rp_id(host, origin),
    )


def _list_credentials(account: Account) -> list[AttestedCredentialData]:
    rows = Passkey.objects.filter(account=account).values_list("credential", flat=True)
    return [AttestedCredentialData(bytes(row)) for row in rows]


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """As a session keeps it: JSON has no enumerations."""
    verification = state["user_verification"]
    return {**state, "user_verification": None if verification is None else str(verification.value)}
