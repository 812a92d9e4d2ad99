"""Reads of accounts, roles, keys and the audit record, and of the server's identity.

What belongs here changes nothing. What it means that a key is expired or a grant matches is ``domain``'s.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Q, QuerySet

from protocol.domain.messages import SecurityLevel
from protocol.errors import Misconfigured
from security.domain import identity
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal
from security.domain.policy import Effect, GrantRule, PatternInvalid
from security.models import Account, ApiKey, AuditEvent, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesAndGrants:
    roles: tuple[str, ...]
    grants: tuple[GrantRule, ...]


def has_accounts() -> bool:
    return Account.objects.exists()


def get_account(*, username: str) -> Account:
    """The account of this name, whatever the case in which it is written.

    Raises:
        Account.DoesNotExist: there is none.
    """
    return Account.objects.get(username__iexact=username)


def find_account_id(*, username: str) -> uuid.UUID | None:
    """The id of the account of this name, whatever the case in which it is written; ``None``: there is none."""
    return Account.objects.filter(username__iexact=username).values_list("id", flat=True).first()


def get_roles_and_grants(*, account_id: uuid.UUID) -> RolesAndGrants:
    """The account's roles and all that they grant, in one query; none for an unknown account.

    Raises:
        Misconfigured: a stored grant does not parse; nothing is decided without it.
    """
    rows: Iterable[tuple[str, str | None, str, str]] = (
        Role.objects.filter(accounts=account_id)
        .order_by("name", "grants__id")
        .values_list("name", "grants__effect", "grants__action_pattern", "grants__resource_pattern")
    )
    roles: dict[str, None] = {}
    grants: list[GrantRule] = []
    for role, effect, action_pattern, resource_pattern in rows:
        roles[role] = None
        # A role without grants is one row of nulls.
        if effect is None:
            continue
        try:
            rule = GrantRule(effect=Effect(effect), action_pattern=action_pattern, resource_pattern=resource_pattern)
        except PatternInvalid as error:
            raise Misconfigured(f"A grant of the role {role} is not valid.") from error
        grants.append(rule)
    return RolesAndGrants(roles=tuple(roles), grants=tuple(grants))


def get_account_principal(*, account: Account) -> AccountPrincipal:
    """The account as a principal that showed no credential: for the console and the command line, which know it."""
    held = get_roles_and_grants(account_id=account.id)
    return AccountPrincipal(
        id=account.id,
        name=account.username,
        roles=held.roles,
        security_level_max=SecurityLevel(account.security_level_max),
        credential_id=account.id,
        expires_at=None,
        grants=held.grants,
    )


def list_accounts_keyed_by(*, actor: Account) -> QuerySet[Account]:
    """The accounts for which the actor may issue keys: a superuser for any, another for itself alone.

    A key is all that its account may do, so that issuing one for another account would be taking its place.
    """
    accounts = Account.objects.filter(is_active=True)
    return accounts if actor.is_superuser else accounts.filter(pk=actor.pk)


def filter_api_keys(keys: QuerySet[ApiKey], *, state: KeyState, now: datetime) -> QuerySet[ApiKey]:
    """Those of the keys that are in the state at ``now``, as ``domain.api_keys.get_key_state`` has it."""
    is_expired = Q(revoked_at__isnull=True, expires_at__lte=now)
    match state:
        case KeyState.REVOKED:
            return keys.filter(revoked_at__isnull=False)
        case KeyState.EXPIRED:
            return keys.filter(is_expired)
        case KeyState.ACTIVE:
            return keys.filter(~is_expired, revoked_at__isnull=True)


def filter_audit_events_by_actor(events: QuerySet[AuditEvent], *, username: str) -> QuerySet[AuditEvent]:
    """Those of the events that the account brought about, under whatever name; it is named as it is now."""
    return events.filter(
        actor_id__in=list(Account.objects.filter(username__iexact=username).values_list("id", flat=True))
    )


def get_identity_fingerprint() -> str:
    """The fingerprint of the server's identity key, for clients to pin: ``SHA256:…``."""
    return identity.get_fingerprint(key=identity.load_identity_key(seed=settings.MCP.identity_seed))
