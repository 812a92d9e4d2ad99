"""Ending sessions from elsewhere: one, or all that an account is signed in to."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from protocol import sessions
from protocol.domain.states import Close
from protocol.errors import AccessDenied
from protocol.ports import Principal, Resource, require_allowed
from protocol.selectors import find_session
from security.models import Account, IssuedToken
from security.selectors import REVOKE_SESSIONS, find_account_id, get_all_sessions_resource, get_session_resource
from security.services import audit
from security.services.revocation import move_revocation_mark
from security.services.tokens import REVOKE_TOKENS, revoke_family

logger = logging.getLogger(__name__)

MAX_NAMED: Final = 100
"""Sessions that the audit record names one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSessions:
    """What an account was signed in to, and is no more."""

    sessions: int
    token_families: int


def revoke_session(*, session_id: uuid.UUID, principal: Principal, trace_id: str) -> bool:
    """End a session; its connection, whichever process has it, closes with 4403 within a second.

    Where it was opened by a token, all tokens of that sign-in count no more, or it would just come back. A key goes on
    counting: it is revoked by itself. ``False`` where there is no such session that is open.

    Raises:
        AccessDenied: the principal may not do that to this session.
        SecurityLevelTooLow: it might, at a higher level.
    """
    session = find_session(session_id=session_id)
    if session is None:
        return False
    require_allowed(principal=principal, action=REVOKE_SESSIONS, resource=get_session_resource(session))
    with transaction.atomic():
        is_revoked = sessions.mark_ended(session_id=session_id, close_code=Close.REVOKED.code) is not None
        if is_revoked:
            token = IssuedToken.objects.filter(id=session.credential_id).first()
            is_family_revoked = token is not None and revoke_family(token.family_id)
            audit.record_event(
                action=REVOKE_SESSIONS,
                principal=principal,
                resource=get_session_resource(session),
                outcome="revoked",
                trace_id=trace_id,
                data={
                    "account_id": str(session.account_id),
                    "token_family": str(token.family_id) if token is not None and is_family_revoked else None,
                },
            )
            move_revocation_mark()
    if is_revoked:
        logger.info("Session %s of account %s revoked by %s", session_id, session.account_id, principal.name)
    return is_revoked


def revoke_all_sessions(*, username: str | None, principal: Principal, trace_id: str) -> EndedSessions:
    """End all that the account of this name is signed in to, or the principal's own without one. See ``end_sign_ins``.

    Raises:
        AccessDenied: the principal may not do that to this account, or there is no such account.
        SecurityLevelTooLow: it might, at a higher level.
    """
    account_id = principal.id if username is None else find_account_id(username=username)
    if account_id is None:
        # As to one that there is, which is not the principal's to end.
        raise AccessDenied(details={"action": REVOKE_SESSIONS})
    require_allowed(principal=principal, action=REVOKE_SESSIONS, resource=get_all_sessions_resource(account_id))
    return end_sign_ins(account_id=account_id, principal=principal, trace_id=trace_id)


def end_sign_ins(*, account_id: uuid.UUID, principal: Principal | None, trace_id: str) -> EndedSessions:
    """End the account's connections, the tokens of all its sign-ins, and its sign-ins to the console, together.

    Connections close within a second, on every node. Keys go on counting. Without ``principal`` it is the server's own
    act, by the command line; whether somebody may was asked before.
    """
    with transaction.atomic():
        # One transaction at a time changes the account's families.
        Account.objects.select_for_update(no_key=True).filter(id=account_id).values_list("id").first()
        now = timezone.now()
        live = IssuedToken.objects.filter(account_id=account_id, revoked_at=None, expires_at__gt=now)
        families = set(live.values_list("family_id", flat=True))
        IssuedToken.objects.filter(account_id=account_id, revoked_at=None).update(revoked_at=now)
        Account.objects.filter(id=account_id).update(sign_in_epoch=F("sign_in_epoch") + 1)
        ended = sessions.end_account_sessions(account_id=account_id)
        audit.record_event(
            action=REVOKE_SESSIONS,
            principal=principal,
            resource=get_all_sessions_resource(account_id),
            outcome="revoked",
            trace_id=trace_id,
            data={
                "account_id": str(account_id),
                "sessions": [str(session_id) for session_id in ended[:MAX_NAMED]],
                "session_count": len(ended),
                "token_families": len(families),
            },
        )
        move_revocation_mark()
    logger.info("All sessions of account %s revoked by %s", account_id, principal.name if principal else "the server")
    return EndedSessions(sessions=len(ended), token_families=len(families))


def revoke_token_family(*, family_id: uuid.UUID, principal: Principal, trace_id: str) -> bool:
    """Let the tokens of one sign-in count no more; its connections close within a second. ``False``: none did.

    Raises:
        AccessDenied: the principal may not do that to this sign-in.
    """
    token = IssuedToken.objects.filter(family_id=family_id).order_by("issued_at").first()
    if token is None:
        return False
    resource = Resource(kind="token_family", name=str(family_id), owner_id=token.account_id)
    require_allowed(principal=principal, action=REVOKE_TOKENS, resource=resource)
    with transaction.atomic():
        is_revoked = revoke_family(family_id)
        if is_revoked:
            audit.record_event(
                action=REVOKE_TOKENS,
                principal=principal,
                resource=resource,
                outcome="revoked",
                trace_id=trace_id,
                data={"account_id": str(token.account_id)},
            )
    return is_revoked
