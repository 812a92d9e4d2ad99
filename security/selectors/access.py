"""What accounts may: their roles and grants, as principals. Why a decision falls as it does is ``explanations``'."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from protocol.domain.messages import SecurityLevel
from protocol.errors import Misconfigured
from security.domain.authorization import AccountPrincipal
from security.domain.conditions import NO_CONDITIONS, parse_conditions
from security.domain.policy import Effect, GrantRule, PatternInvalid
from security.models import Account, Role
from security.selectors.limits import get_rules, select_rules


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesAndGrants:
    roles: tuple[str, ...]
    grants: tuple[GrantRule, ...]


def get_roles_and_grants(*, account_id: uuid.UUID) -> RolesAndGrants:
    """The account's roles and all that they grant, in one query; none for an unknown account.

    Raises:
        Misconfigured: a stored grant does not parse; nothing is decided without it.
    """
    return _collect(_list_grant_rows([account_id]))


def list_roles_and_grants(*, account_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, RolesAndGrants | None]:
    """As ``get_roles_and_grants``, of many accounts in one query; ``None`` for one with a grant that does not parse."""
    rows: dict[uuid.UUID, list[_GrantRow]] = {account_id: [] for account_id in account_ids}
    for row in _list_grant_rows(account_ids):
        rows[row[0]].append(row)
    held: dict[uuid.UUID, RolesAndGrants | None] = {}
    for account_id, own in rows.items():
        try:
            held[account_id] = _collect(own)
        except Misconfigured:
            held[account_id] = None
    return held


_GrantRow = tuple[uuid.UUID, str, str, str | None, str, str, Any]


def _list_grant_rows(account_ids: Collection[uuid.UUID]) -> Iterable[_GrantRow]:
    names = (
        "accounts",
        "name",
        "minimum_level",
        "grants__effect",
        "grants__action_pattern",
        "grants__resource_pattern",
        "grants__conditions",
    )
    rows: Iterable[_GrantRow] = (
        Role.objects.filter(accounts__in=account_ids).order_by("name", "grants__id").values_list(*names)
    )
    return rows


def _collect(rows: Iterable[_GrantRow]) -> RolesAndGrants:
    roles: dict[str, None] = {}
    grants: list[GrantRule] = []
    for _, role, level, effect, action_pattern, resource_pattern, conditions in rows:
        roles[role] = None
        # A role without grants is one row of nulls.
        if effect is None:
            continue
        try:
            rule = GrantRule(
                effect=Effect(effect),
                action_pattern=action_pattern,
                resource_pattern=resource_pattern,
                conditions=parse_conditions(conditions) if conditions != {} else NO_CONDITIONS,
                minimum_level=SecurityLevel(level) if level else SecurityLevel.LOW,
                role=role,
            )
        except PatternInvalid as error:
            raise Misconfigured(f"A grant of the role {role} is not valid.") from error
        grants.append(rule)
    return RolesAndGrants(roles=tuple(roles), grants=tuple(grants))


def get_account_principal(*, account: Account, remote_address: str | None = None) -> AccountPrincipal:
    """The account as a principal that showed no credential: for the console and the command line, which know it."""
    return make_account_principal(
        account=account, held=get_roles_and_grants(account_id=account.id), remote_address=remote_address
    )


def make_account_principal(
    *, account: Account, held: RolesAndGrants, remote_address: str | None = None
) -> AccountPrincipal:
    """As ``get_account_principal``, with what was read before."""
    return AccountPrincipal(
        id=account.id,
        name=account.username,
        roles=held.roles,
        security_level_max=SecurityLevel(account.security_level_max),
        credential_id=account.id,
        expires_at=None,
        grants=held.grants,
        limits=select_rules(get_rules(), account_id=account.id, roles=held.roles, api_key_id=None),
        remote_address=remote_address,
    )
