"""Who may end whose sessions."""

from __future__ import annotations

from typing import Final

from protocol import ports
from protocol.models import Session
from protocol.ports import Principal, Resource

REVOKE_SESSIONS: Final = "sessions.revoke"


def may_revoke_session(*, principal: Principal, session: Session) -> bool:
    """Whether the principal may end the session."""
    resource = Resource(kind="session", name=str(session.id), owner_id=session.account_id)
    return ports.get_authorizer().is_allowed(principal=principal, action=REVOKE_SESSIONS, resource=resource)
