"""Open sessions as their accounts and operators see them, and who may end whose."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Final

from django.db.models import QuerySet
from msgspec import Struct

from protocol import ports
from protocol.errors import InvalidArguments
from protocol.models import Session
from protocol.ports import Principal, Resource
from security.domain.actions import register_action
from security.models import ApiKey, IssuedToken
from security.selectors.accounts import find_account_id

VIEW_SESSIONS: Final = register_action("sessions.view", summary="See open connections.")
REVOKE_SESSIONS: Final = register_action("sessions.revoke", summary="End connections, or all of an account.")
ALL_SESSIONS: Final = "all"
"""What stands for all sessions of an account where one is named."""
_READ_CHUNK: Final = 200
_MAX_READS: Final = 25
"""Chunks that are looked through for a page; a page may be short and have a next one."""


class SessionView(Struct, frozen=True, kw_only=True):
    """An open session: whose it is, from where, and by what it was opened."""

    id: str
    account: str
    client: str
    client_version: str
    address: str | None
    """From where it was opened; null: a Unix socket."""
    security_level: str
    credential: str
    """``key <prefix> (<name>)``, ``token of key …``, ``token of password`` or ``password``."""
    since: datetime
    last_seen: datetime
    is_current: bool
    """Whether it is the one that asks."""


class SessionPage(Struct, frozen=True, kw_only=True):
    sessions: list[SessionView]
    next_cursor: str | None


def may_revoke_session(*, principal: Principal, session: Session) -> bool:
    """Whether the principal may end the session."""
    return ports.get_authorizer().is_allowed(
        principal=principal, action=REVOKE_SESSIONS, resource=get_session_resource(session)
    )


def may_revoke_all_sessions(*, principal: Principal, account_id: uuid.UUID) -> bool:
    """Whether the principal may end all that the account is signed in to."""
    return ports.get_authorizer().is_allowed(
        principal=principal, action=REVOKE_SESSIONS, resource=get_all_sessions_resource(account_id)
    )


def get_session_resource(session: Session) -> Resource:
    return Resource(kind="session", name=str(session.id), owner_id=session.account_id)


def get_all_sessions_resource(account_id: uuid.UUID) -> Resource:
    return Resource(kind="session", name=ALL_SESSIONS, owner_id=account_id)


def list_sessions(
    *, principal: Principal, account: str | None, current: uuid.UUID | None, cursor: str | None, limit: int
) -> SessionPage:
    """The open sessions that the principal may see, the newest first; of one account where it is named.

    Raises:
        InvalidArguments: the cursor is none of ours.
    """
    found: list[Session] = []
    is_done = True
    position: uuid.UUID | None = None
    for session in _iterate(_select(principal, account), before=_read_cursor(cursor)):
        if session is None or len(found) == limit:
            is_done = False
            break
        position = session.id
        if ports.get_authorizer().is_allowed(
            principal=principal, action=VIEW_SESSIONS, resource=get_session_resource(session)
        ):
            found.append(session)
    credentials = describe_credentials(credential_ids={session.credential_id for session in found})
    return SessionPage(
        sessions=[_view(session, credentials, current=current) for session in found],
        next_cursor=None if is_done or position is None else str(position),
    )


def describe_credentials(*, credential_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """What sessions were opened with, in words; what is neither a key nor a token that is still known is a password."""
    keys = ApiKey.objects.in_bulk(credential_ids)
    tokens = IssuedToken.objects.select_related("api_key").in_bulk(credential_ids)
    described = dict.fromkeys(credential_ids, "password")
    described |= {key.id: _describe_key(key) for key in keys.values()}
    described |= {
        token.id: f"token of {_describe_key(token.api_key) if token.api_key else 'password'}"
        for token in tokens.values()
    }
    return described


def _describe_key(api_key: ApiKey) -> str:
    return f"key {api_key.prefix} ({api_key.name})"


def _read_cursor(cursor: str | None) -> uuid.UUID | None:
    try:
        return None if cursor is None else uuid.UUID(cursor)
    except ValueError as error:
        raise InvalidArguments("This is no cursor of ours.", details={"path": "arguments.cursor"}) from error


def _select(principal: Principal, account: str | None) -> QuerySet[Session]:
    """What has to be looked at: where only a principal's own can be seen, the others' are not even read."""
    rows = Session.objects.select_related("account").filter(ended_at=None)
    if not ports.get_authorizer().reaches_others(principal=principal, action=VIEW_SESSIONS, kind="session"):
        rows = rows.filter(account_id=principal.id)
    if account is None:
        return rows
    account_id = find_account_id(username=account)
    return rows.none() if account_id is None else rows.filter(account_id=account_id)


def _iterate(rows: QuerySet[Session], *, before: uuid.UUID | None) -> Iterator[Session | None]:
    """The rows past the position, the newest first: their ids are in the order of time. ``None``: there may be more."""
    for _ in range(_MAX_READS):
        past = rows if before is None else rows.filter(id__lt=before)
        chunk = list(past.order_by("-id")[:_READ_CHUNK])
        yield from chunk
        if len(chunk) < _READ_CHUNK:
            return
        before = chunk[-1].id
    yield None


def _view(session: Session, credentials: dict[uuid.UUID, str], *, current: uuid.UUID | None) -> SessionView:
    return SessionView(
        id=str(session.id),
        account=str(session.account),
        client=session.client_name,
        client_version=session.client_version,
        address=session.remote_address,
        security_level=session.security_level,
        credential=credentials[session.credential_id],
        since=session.created_at,
        last_seen=session.seen_at,
        is_current=session.id == current,
    )
