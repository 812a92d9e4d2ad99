"""Looking at principals of open connections again, many at once: whether their credentials count, and what they may.

Reads only, but of the services' layer, as it is half of authentication.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from django.utils import timezone
from django.utils.crypto import constant_time_compare

from protocol.domain.messages import SecurityLevel
from protocol.ports import Principal
from security.domain.addresses import AddressRules
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal, CredentialKind, limit_level
from security.domain.limits import LimitRule
from security.models import Account, ApiKey, IssuedToken
from security.selectors import (
    CommandKeys,
    RolesAndGrants,
    forget_address_rules,
    get_address_rules,
    get_password_stamp,
    has_standing,
    list_command_keys,
    list_roles_and_grants,
    read_rules,
    select_rules,
)
from security.services.addresses import is_address_taken

logger = logging.getLogger(__name__)

BATCH: Final = 500
"""Principals that are looked at by one set of queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the database has of a batch."""

    accounts: dict[uuid.UUID, Account]
    held: dict[uuid.UUID, RolesAndGrants | None]
    api_keys: dict[uuid.UUID, ApiKey]
    tokens: dict[uuid.UUID, IssuedToken]
    rules: AddressRules
    limits: tuple[LimitRule, ...]
    command_keys: dict[uuid.UUID, CommandKeys]


def renew_principals(*, principals: Sequence[Principal]) -> list[Principal | None]:
    """The principals as they are now, in the same order; the same object where nothing has changed.

    ``None`` for one whose credential was revoked or whose account is inactive; one that has only expired stays. Five
    queries at most for each ``BATCH``.
    """
    renewed: list[Principal | None] = []
    for start in range(0, len(principals), BATCH):
        batch = principals[start : start + BATCH]
        found = _find([principal for principal in batch if isinstance(principal, AccountPrincipal)])
        now = timezone.now()
        renewed += [_renew(principal, found, now=now) for principal in batch]
    return renewed


def _find(principals: Sequence[AccountPrincipal]) -> _Found:
    account_ids = {principal.id for principal in principals}

    token_ids = {each.credential_id for each in principals if each.credential is CredentialKind.TOKEN}
    api_key_ids = {each.api_key_id for each in principals if each.api_key_id is not None}
    # Of the rules this process may have what was before the mark moved.
    forget_address_rules()

    accounts = Account.objects.in_bulk(account_ids)
    return _Found(
        accounts=accounts,
        command_keys=list_command_keys(accounts=accounts.values()),
        held=list_roles_and_grants(account_ids=account_ids),
        api_keys=ApiKey.objects.in_bulk(api_key_ids),
        tokens=IssuedToken.objects.select_related("account", "api_key").in_bulk(token_ids),
        rules=get_address_rules(),
        limits=read_rules(),
    )


def _renew(principal: Principal, found: _Found, *, now: datetime) -> Principal | None:
    if not isinstance(principal, AccountPrincipal):
        return None
    account, held = found.accounts.get(principal.id), found.held.get(principal.id)
    if account is None or not account.is_active or not _counts(principal, account, found, now=now):
        return None
    api_key = found.api_keys.get(principal.api_key_id) if principal.api_key_id is not None else None
    if not is_address_taken(
        rules=found.rules, remote_address=principal.remote_address, account_id=account.id, api_key=api_key
    ):
        logger.info("Connections of %s from %s are closed by their address", account, principal.remote_address)
        return None
    if held is None:
        logger.error("A grant of %s is not valid: its connections are closed", account)
        return None
    command_keys = found.command_keys.get(account.id, ())
    renewed = replace(
        principal,
        name=account.username,
        roles=held.roles,
        grants=held.grants,
        expires_at=_get_expiry(principal, api_key),
        security_level_max=limit_level(SecurityLevel(account.security_level_max), has_command_key=bool(command_keys)),
        command_keys=command_keys,
        limits=select_rules(found.limits, account_id=account.id, roles=held.roles, api_key_id=principal.api_key_id),
    )
    # What it remembers of decisions is worth keeping.
    return principal if renewed == principal else renewed


def _get_expiry(principal: AccountPrincipal, api_key: ApiKey | None) -> datetime | None:
    """When the credential ends: a key that was rotated ends sooner than it said, and its tokens with it."""
    if api_key is None or api_key.expires_at is None:
        return principal.expires_at
    if principal.credential is CredentialKind.API_KEY or principal.expires_at is None:
        return api_key.expires_at
    return min(principal.expires_at, api_key.expires_at)


def _counts(principal: AccountPrincipal, account: Account, found: _Found, *, now: datetime) -> bool:
    match principal.credential:
        case CredentialKind.API_KEY:
            api_key = found.api_keys.get(principal.credential_id)
            return api_key is not None and api_key.get_state(now=now) is not KeyState.REVOKED
        case CredentialKind.TOKEN:
            token = found.tokens.get(principal.credential_id)
            return token is not None and token.revoked_at is None and has_standing(token, now=now)
        case CredentialKind.PASSWORD:
            return not account.is_service and constant_time_compare(
                principal.password_stamp, get_password_stamp(account=account)
            )
        case CredentialKind.NONE:
            return False
