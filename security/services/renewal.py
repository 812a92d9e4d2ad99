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
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal, CredentialKind, limit_level
from security.domain.limits import LimitRule
from security.models import Account, ApiKey, IssuedToken
from security.selectors import (
    CommandKeys,
    RolesAndGrants,
    get_password_stamp,
    has_standing,
    list_command_keys,
    list_roles_and_grants,
    read_rules,
    select_rules,
)

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

    def select(kind: CredentialKind) -> set[uuid.UUID]:
        return {principal.credential_id for principal in principals if principal.credential is kind}

    accounts = Account.objects.in_bulk(account_ids)
    return _Found(
        accounts=accounts,
        command_keys=list_command_keys(accounts=accounts.values()),
        held=list_roles_and_grants(account_ids=account_ids),
        api_keys=ApiKey.objects.in_bulk(select(CredentialKind.API_KEY)),
        tokens=IssuedToken.objects.select_related("account", "api_key").in_bulk(select(CredentialKind.TOKEN)),
        limits=read_rules(),
    )


def _renew(principal: Principal, found: _Found, *, now: datetime) -> Principal | None:
    if not isinstance(principal, AccountPrincipal):
        return None
    account, held = found.accounts.get(principal.id), found.held.get(principal.id)
    if account is None or not account.is_active or not _counts(principal, account, found, now=now):
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
        security_level_max=limit_level(SecurityLevel(account.security_level_max), has_command_key=bool(command_keys)),
        command_keys=command_keys,
        limits=select_rules(found.limits, account_id=account.id, roles=held.roles, api_key_id=principal.api_key_id),
    )
    # What it remembers of decisions is worth keeping.
    return principal if renewed == principal else renewed


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
