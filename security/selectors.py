"""Reads of accounts, roles, keys, tokens and the audit record, and of the server's identity.

What belongs here changes nothing. What it means that a key is expired or a grant matches is ``domain``'s.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from protocol import ports, statements
from protocol.domain.messages import SecurityLevel
from protocol.errors import Misconfigured
from protocol.models import Session
from protocol.ports import Principal, Resource
from security.domain import identity
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal
from security.domain.policy import Decision, Effect, GrantRule, PatternInvalid
from security.models import Account, ApiKey, AuditEvent, IssuedToken, RevocationMark, Role

REVOKE_SESSIONS: Final = "sessions.revoke"
MAX_FOUND = 500
"""Audit events that a search finds; the newest."""
MAX_SEARCHED = 10_000
"""Audit events, the newest, in whose names a search looks for a part."""
_MAX_NAMES = 10


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


def get_revocation_mark() -> int:
    """Where the mark stands that every revocation and change of rights moves on."""
    found = statements.select(RevocationMark, where={"id": RevocationMark.ONLY_ID}, names=("value",))
    return int(found[0][0]) if found else 0


def get_password_stamp(*, account: Account) -> str:
    """What changes with the account's password and tells nothing of it."""
    return account.get_session_auth_hash()


def has_standing(token: IssuedToken, *, now: datetime) -> bool:
    """Whether what the token was obtained with still counts: the active account, and its key or password.

    Two rows are read from what was selected with it: ``account`` and ``api_key``.
    """
    if not token.account.is_active:
        return False
    if token.api_key is not None:
        return token.api_key.get_state(now=now) is KeyState.ACTIVE
    return constant_time_compare(token.password_stamp, get_password_stamp(account=token.account))


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


def may_revoke_session(*, principal: Principal, session: Session) -> bool:
    """Whether the principal may end the session."""
    resource = Resource(kind="session", name=str(session.id), owner_id=session.account_id)
    return ports.get_authorizer().is_allowed(principal=principal, action=REVOKE_SESSIONS, resource=resource)


def search_audit_events(events: QuerySet[AuditEvent], *, term: str) -> QuerySet[AuditEvent]:
    """Those of the events that the term names: by a trace, by a resource's name, or by an account with it in its name.

    Of the ``MAX_SEARCHED`` newest also those that have it in the resource's name, or in the account's as it was then.
    The newest ``MAX_FOUND`` at most. Each condition is asked for alone, as then an index answers it; of all of them
    together a database may choose to read every row.
    """
    accounts = Account.objects.filter(username__icontains=term).values_list("id", flat=True)[:_MAX_NAMES]
    conditions = [
        Q(trace_id=term.lower()),
        Q(resource_name=term),
        *(Q(actor_id=account_id) for account_id in accounts),
    ]
    named = Q(resource_name__icontains=term) | Q(actor_name__icontains=term)
    newest = AuditEvent.objects.order_by("-at", "-id").values_list("at", flat=True)
    oldest = next(iter(newest[MAX_SEARCHED - 1 : MAX_SEARCHED]), None)
    conditions.append(named if oldest is None else named & Q(at__gte=oldest))
    found = {row for condition in conditions for row in _list_newest(events.filter(condition))}
    return events.filter(id__in=[event_id for _, event_id in heapq.nlargest(MAX_FOUND, found)])


def _list_newest(events: QuerySet[AuditEvent]) -> list[tuple[datetime, uuid.UUID]]:
    return list(events.order_by("-at", "-id").values_list("at", "id")[:MAX_FOUND])


def get_identity_fingerprint() -> str:
    """The fingerprint of the server's identity key, for clients to pin: ``SHA256:…``."""
    return identity.get_fingerprint(key=identity.load_identity_key(seed=settings.MCP.identity_seed))
