"""What accounts may: their roles and grants, as principals, and why a decision falls as it does."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from django.utils import timezone

from protocol.domain.messages import SecurityLevel
from protocol.errors import Misconfigured
from protocol.ports import Resource
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal
from security.domain.policy import Decision, Effect, GrantRule, PatternInvalid
from security.models import Account, ApiKey, Role
from security.selectors.accounts import get_account
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


_GrantRow = tuple[uuid.UUID, str, str | None, str, str]


def _list_grant_rows(account_ids: Collection[uuid.UUID]) -> Iterable[_GrantRow]:
    names = ("accounts", "name", "grants__effect", "grants__action_pattern", "grants__resource_pattern")
    rows: Iterable[_GrantRow] = (
        Role.objects.filter(accounts__in=account_ids).order_by("name", "grants__id").values_list(*names)
    )
    return rows


def _collect(rows: Iterable[_GrantRow]) -> RolesAndGrants:
    roles: dict[str, None] = {}
    grants: list[GrantRule] = []
    for _, role, effect, action_pattern, resource_pattern in rows:
        roles[role] = None
        # A role without grants is one row of nulls.
        if effect is None:
            continue
        try:
            rule = GrantRule(
                effect=Effect(effect), action_pattern=action_pattern, resource_pattern=resource_pattern, role=role
            )
        except PatternInvalid as error:
            raise Misconfigured(f"A grant of the role {role} is not valid.") from error
        grants.append(rule)
    return RolesAndGrants(roles=tuple(roles), grants=tuple(grants))


class KeyNotFound(Exception):
    """The account has no key that begins so, or several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What policy says of an account, or of one of its keys, and what it decides by."""

    account: Account
    api_key: ApiKey | None
    key_state: KeyState | None
    roles: tuple[str, ...]
    decision: Decision

    @property
    def has_active_key(self) -> bool:
        return self.key_state is KeyState.ACTIVE

    @property
    def is_allowed(self) -> bool:
        has_credential = self.api_key is None or self.has_active_key
        return self.account.is_active and has_credential and self.decision.is_allowed


def explain_access(
    *, username: str, key_prefix: str | None, action: str, resource: Resource, is_own: bool
) -> Explanation:
    """Whether the account of this name is allowed the action, with its key that begins so where one is given.

    Raises:
        Account.DoesNotExist: there is none.
        KeyNotFound: it has no such key, or several.
    """
    account = get_account(username=username)
    api_key = None if key_prefix is None else _get_api_key(account=account, prefix=key_prefix)
    principal = replace(
        get_account_principal(account=account), scopes=tuple(api_key.scopes) if api_key is not None else ()
    )
    return Explanation(
        account=account,
        api_key=api_key,
        key_state=None if api_key is None else api_key.get_state(now=timezone.now()),
        roles=principal.roles,
        decision=principal.decide(
            action=action, resource=replace(resource, owner_id=account.id) if is_own else resource
        ),
    )


def _get_api_key(*, account: Account, prefix: str) -> ApiKey:
    # What is kept of a key's text is its beginning; more of it may be given.
    found = [key for key in account.api_keys.all() if key.prefix.startswith(prefix) or prefix.startswith(key.prefix)]
    if not prefix or len(found) != 1:
        raise KeyNotFound
    return found[0]


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
        limits=select_rules(get_rules(), account_id=account.id, roles=held.roles, api_key_id=None),
    )
