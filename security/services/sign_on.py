"""Whose account a provider's word opens, and the links between accounts and the provider's subjects.

An account is linked with one subject of an issuer, at the first sign-on or by an operator, and held to it: names and
addresses may go to somebody else at the provider, a subject never does (OpenID Connect Core 1.0, section 5.7).
"""

from __future__ import annotations

import logging
import uuid
from typing import Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from protocol.ports import Principal
from security.domain.openid import MAX_SUBJECT_LENGTH, ProviderIdentity, Refusal, is_text
from security.models import Account, ProviderLink
from security.services import audit
from security.services.addresses import require_address
from security.services.lockout import count_address_attempt, release_address_attempt

logger = logging.getLogger(__name__)

LINK: Final = "sign_on.link"
UNLINK: Final = "sign_on.unlink"


class SignOnRefused(Exception):
    """A sign-on that is not taken, and why, which the peer is not told."""

    def __init__(self, reason: Refusal, *, account_id: uuid.UUID | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.account_id = account_id


def begin_attempt(*, remote_address: str | None) -> None:
    """Count a sign-on that came back as wrong, with wrong passwords from there, until it is taken.

    Raises:
        LockedOut: too many were; this one is not looked at.
    """
    count_address_attempt(remote_address=remote_address)


def accept_identity(*, identity: ProviderIdentity, remote_address: str | None) -> Account:
    """The account of whom the provider names; linked with them, if this is the first time.

    Raises:
        SignOnRefused: there is none, or it is not let in by this.
        IpDenied: there is one, and it is not let in from this address.
    """
    if not identity.has_required_claim:
        raise SignOnRefused(Refusal.CLAIM_MISSING)
    link = ProviderLink.objects.filter(issuer=identity.issuer, subject=identity.subject).first()
    account = _find_account(identity) if link is None else link.account
    if account is None:
        raise SignOnRefused(Refusal.NOT_LINKED)
    if not account.is_active or account.is_service or not account.is_staff:
        raise SignOnRefused(Refusal.ACCOUNT_REFUSED, account_id=account.id)
    require_address(remote_address, account_id=account.id, api_key=None)
    if link is None:
        _bind(account, identity)
    else:
        ProviderLink.objects.filter(id=link.id).update(last_used_at=timezone.now())
    release_address_attempt(remote_address=remote_address)
    return account


def link_account(*, account: Account, issuer: str, subject: str, principal: Principal, trace_id: str) -> ProviderLink:
    """Have the subject's sign-ons open the account.

    Raises:
        ValidationError: it is a service account, it is linked already, or the subject is another account's.
    """
    if account.is_service:
        raise ValidationError("A service account has keys, and signs on nowhere.", code="service_has_no_sign_on")
    if not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not is_text(subject):
        raise ValidationError("This is not a subject.", code="bad_subject")
    try:
        with transaction.atomic():
            link = ProviderLink.objects.create(account=account, issuer=issuer, subject=subject)
            _record(LINK, account, link, outcome="linked", principal=principal, trace_id=trace_id)
    except IntegrityError:
        raise ValidationError(
            "The account is linked already, or the subject with another account.", code="linked_already"
        ) from None
    logger.info("Account %s linked with a subject by %s", account.id, principal.name)
    return link


def unlink_account(*, account: Account, issuer: str, principal: Principal, trace_id: str) -> bool:
    """Have nobody's sign-on open the account any more; whether somebody's did. Sign-ins made by it end."""
    with transaction.atomic():
        link = ProviderLink.objects.filter(account=account, issuer=issuer).first()
        if link is None or not ProviderLink.objects.filter(id=link.id).delete()[0]:
            return False
        _record(UNLINK, account, link, outcome="unlinked", principal=principal, trace_id=trace_id)
    logger.info("Account %s unlinked by %s", account.id, principal.name)
    return True


def _find_account(identity: ProviderIdentity) -> Account | None:
    """Whom the claim names that accounts are found by; ``None`` where it is nobody, or more than one."""
    if identity.email is not None:
        found = Account.objects.filter(email__iexact=identity.email)
    elif identity.username is not None:
        found = Account.objects.filter(username=identity.username)
    else:
        return None
    accounts = list(found[:2])
    return accounts[0] if len(accounts) == 1 else None


def _bind(account: Account, identity: ProviderIdentity) -> None:
    now = timezone.now()
    try:
        with transaction.atomic():
            link = ProviderLink.objects.create(
                account=account, issuer=identity.issuer, subject=identity.subject, last_used_at=now
            )
            _record(LINK, account, link, outcome="linked", principal=None, trace_id="")
    except IntegrityError:
        # Another subject's, from before or at the same moment: who came first has it.
        raise SignOnRefused(Refusal.LINKED_OTHERWISE, account_id=account.id) from None
    logger.warning("Account %s linked with a subject at its first sign-on", account.id)


def _record(
    action: str, account: Account, link: ProviderLink, *, outcome: str, principal: Principal | None, trace_id: str
) -> None:
    audit.record_account_event(
        action=action,
        account=account,
        outcome=outcome,
        principal=principal,
        trace_id=trace_id,
        data={"issuer": link.issuer, "subject": link.subject},
    )
