"""Letting a connection in: good credentials become a principal, its session, and the answer that says so.

Called in a database thread. Who asks, and what is done with the answer, is ``link``'s.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from msgspec import Struct

from protocol import ports, sessions
from protocol.domain.connection import Connection
from protocol.domain.messages import Authentication, AuthenticationAnswer, PrincipalInfo
from protocol.errors import AccessDenied, AuthenticationFailed


class Admitted(Struct, frozen=True, kw_only=True):
    """Who is at the other end from now on."""

    principal: ports.Principal
    mark: int
    """The authenticator's, from before the principal was made."""
    session_id: uuid.UUID
    answer: AuthenticationAnswer


def admit(
    *,
    credentials: Authentication,
    connection: Connection,
    principal: ports.Principal | None,
    session_id: uuid.UUID,
    channel: str,
    remote_address: str | None,
    trace_id: str,
) -> Admitted:
    """Judge credentials; ``principal`` and ``session_id`` are those of before, where it is not the first time.

    Raises:
        AuthenticationFailed: whatever is wrong, also where they are another account's than before.
        AccessDenied: the account may not use the connection's level.
        RateLimited: the account, or the address, has as many connections as it may.
    """
    authenticator = ports.get_authenticator()
    # First: what is revoked while the principal is made has moved the mark by the next look.
    mark = authenticator.get_mark()
    found = authenticator.authenticate(
        credentials=credentials, remote_address=remote_address, security_level=connection.security_level
    )
    if principal is not None and found.id != principal.id:
        raise AuthenticationFailed
    level = connection.security_level
    if level.rank > found.security_level_max.rank:
        raise AccessDenied(
            f"This account may not use level {level.value}.",
            details={"security_level": level.value, "security_level_max": found.security_level_max.value},
        )
    with transaction.atomic():
        if principal is None:
            session_id = sessions.open_session(
                principal=found,
                security_level=level,
                channel=channel,
                client=connection.client,
                remote_address=remote_address,
            ).id
        ports.get_recorder().record_authentication(
            principal=found,
            door=ports.Door.WEBSOCKET,
            remote_address=remote_address,
            resource=ports.Resource(kind="session", name=str(session_id), owner_id=found.id),
            trace_id=trace_id,
        )
    if principal is None:
        sessions.refuse_crowd(session_id=session_id, account_id=found.id, remote_address=remote_address)
    answer = AuthenticationAnswer(
        authenticated=True,
        session_id=str(session_id),
        resumed=False,
        principal=PrincipalInfo(id=str(found.id), name=found.name, roles=found.roles),
        expires_at=found.expires_at,
        security_level_max=found.security_level_max,
        handshake_sha256=connection.get_handshake_sha256(),
    )
    return Admitted(principal=found, mark=mark, session_id=session_id, answer=answer)
