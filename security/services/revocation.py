"""The mark that open connections are watched by, and closing one connection from elsewhere.

Every process that has connections reads the mark twice a second, and asks for what changed only when it has moved.
"""

from __future__ import annotations

import logging
import uuid

from django.db import transaction

from protocol import sessions, statements
from protocol.domain.states import Close
from protocol.errors import AccessDenied
from protocol.ports import Principal, Resource
from protocol.selectors import find_session
from security.models import RevocationMark
from security.selectors import REVOKE_SESSIONS, may_revoke_session
from security.services import audit

logger = logging.getLogger(__name__)


def move_revocation_mark() -> None:
    """Have every open connection looked at again, once the transaction that is open has committed.

    The row is the last that a transaction locks: it orders all revocations.
    """
    where, values = {"id": RevocationMark.ONLY_ID}, {"value": statements.Plus(1)}
    if not statements.update(RevocationMark, where=where, values=values):
        RevocationMark.objects.bulk_create([RevocationMark()], ignore_conflicts=True)
        statements.update(RevocationMark, where=where, values=values)


def revoke_session(*, session_id: uuid.UUID, principal: Principal, trace_id: str) -> bool:
    """End a session; its connection, whichever process has it, closes with 4403 within a second.

    ``False`` where there is none that is open.

    Raises:
        AccessDenied: the principal may not do that to this session.
    """
    session = find_session(session_id=session_id)
    if session is None:
        return False
    if not may_revoke_session(principal=principal, session=session):
        raise AccessDenied(details={"action": REVOKE_SESSIONS})
    with transaction.atomic():
        is_revoked = sessions.mark_ended(session_id=session_id, close_code=Close.REVOKED.code) is not None
        if is_revoked:
            audit.record_event(
                action=REVOKE_SESSIONS,
                principal=principal,
                resource=Resource(kind="session", name=str(session_id), owner_id=session.account_id),
                outcome="revoked",
                trace_id=trace_id,
                data={"account_id": str(session.account_id)},
            )
            move_revocation_mark()
    if is_revoked:
        logger.info("Session %s of account %s revoked by %s", session_id, session.account_id, principal.name)
    return is_revoked
