"""A session's life in the database: opened, seen, ended, forgotten."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from protocol import ports, statements
from protocol.domain.messages import ClientInfo, SecurityLevel
from protocol.domain.states import Close
from protocol.errors import RateLimited
from protocol.models import OutboxMessage, Session
from protocol.ports import Principal
from protocol.signals import session_ended

SEEN_INTERVAL_SECONDS = 15.0
"""How often a process says of its sessions that they are connected."""
LOST_AFTER = timedelta(seconds=3 * SEEN_INTERVAL_SECONDS)
"""A session that nobody has said so of for this long lost its process."""
KEPT_FOR = timedelta(days=7)
"""How long an ended session stays visible."""
EXPIRE_LIMIT = 1_000
"""Rows ended or deleted in one transaction."""
CONNECTION_RETRY_MS = 1_000
"""When who has too many connections may try again."""
MAX_IDS_A_QUERY = 500
"""Databases bound how many values a query takes."""


def open_session(
    *,
    principal: Principal,
    channel: str,
    client: ClientInfo,
    remote_address: str | None,
    security_level: SecurityLevel = SecurityLevel.STANDARD,
) -> Session:
    """A new session, owned by the process that listens on ``channel``."""
    return Session.objects.create(
        account_id=principal.id,
        credential_id=principal.credential_id,
        security_level=security_level.value,
        channel=channel,
        client_name=client.name,
        client_version=client.version,
        remote_address=remote_address,
        address_key=_make_address_key(remote_address),
    )


def refuse_crowd(*, session_id: uuid.UUID, account_id: uuid.UUID, remote_address: str | None) -> None:
    """End the new session again if its account or address has more than it may; called once it is committed.

    Of several that come at once for the last place all may be refused, and never too many are let in.

    Raises:
        RateLimited: it was ended; the details say which limit is reached.
    """
    reached = _find_reached_limit(account_id=account_id, address=remote_address)
    if reached is None:
        return
    end_session(session_id=session_id, close_code=Close.OVERLOADED.code)
    raise RateLimited("Too many connections are open.", retry_after_ms=CONNECTION_RETRY_MS, details={"limit": reached})


def _find_reached_limit(*, account_id: uuid.UUID, address: str | None) -> str | None:
    """Which limit on connections is exceeded, if one is. Those whose process is gone are not counted for long."""
    live = Session.objects.filter(ended_at=None, seen_at__gte=timezone.now() - LOST_AFTER)
    if live.filter(account_id=account_id).count() > settings.MCP.connections_per_account:
        return "connections_per_account"
    if address and live.filter(address_key=_make_address_key(address)).count() > settings.MCP.connections_per_address:
        return "connections_per_address"
    return None


def _make_address_key(address: str | None) -> str:
    """The same for all addresses of one IPv6 network, or each connection would come from an address of its own."""
    return ports.get_limiter().get_address_key(address=address)


def end_session(*, session_id: uuid.UUID, close_code: int | None) -> bool:
    """End it, and put that on record; ``False`` where it had ended already."""
    with transaction.atomic():
        account_id = mark_ended(session_id=session_id, close_code=close_code)
        if account_id is not None:
            ports.get_recorder().record_session_end(session_id=session_id, account_id=account_id, close_code=close_code)
    return account_id is not None


def mark_ended(*, session_id: uuid.UUID, close_code: int | None) -> uuid.UUID | None:
    """Mark it ended and drop what it was still owed, inside the caller's transaction, which has it on record.

    Nobody can take it over (``resume`` is not offered yet), so its outbox has no reader.

    Returns:
        Whose it was; ``None`` where it had ended already.
    """
    row = statements.update_returning(
        Session,
        where={"id": session_id, "ended_at": None},
        values={"ended_at": timezone.now(), "close_code": close_code},
        names=("account_id",),
    )
    OutboxMessage.objects.filter(session_id=session_id).delete()
    if row is None:
        return None
    session_ended.send(sender=Session, session_id=session_id)
    account_id: uuid.UUID = row[0]
    return account_id


def end_account_sessions(*, account_id: uuid.UUID) -> list[uuid.UUID]:
    """Revoke every open session of the account, inside the caller's transaction, which has it on record; which."""
    ids = list(Session.objects.filter(account_id=account_id, ended_at=None).values_list("id", flat=True))
    for start in range(0, len(ids), MAX_IDS_A_QUERY):
        batch = ids[start : start + MAX_IDS_A_QUERY]
        Session.objects.filter(id__in=batch, ended_at=None).update(
            ended_at=timezone.now(), close_code=Close.REVOKED.code
        )
        OutboxMessage.objects.filter(session_id__in=batch).delete()
    return ids


def get_channel(*, session_id: uuid.UUID | None) -> str:
    """Where the session's owner listens; empty where there is no session, or it has ended."""
    if session_id is None:
        return ""
    found = statements.select(Session, where={"id": session_id, "ended_at": None}, names=("channel",))
    return str(found[0][0]) if found else ""


def set_channel(*, session_ids: Collection[uuid.UUID], channel: str) -> None:
    """Say of these, which had none, where their owner listens."""
    Session.objects.filter(id__in=session_ids, channel="", ended_at=None).update(channel=channel)


def touch_sessions(*, session_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Say of these that they are connected; those that have ended meanwhile."""
    live = Session.objects.filter(id__in=session_ids, ended_at=None)
    if live.update(seen_at=timezone.now()) == len(session_ids):
        return set()
    return set(session_ids) - set(live.values_list("id", flat=True))


def list_revoked(*, session_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the sessions that were ended by revoking them."""
    ids = list(session_ids)
    revoked: set[uuid.UUID] = set()
    for start in range(0, len(ids), MAX_IDS_A_QUERY):
        batch = Session.objects.filter(id__in=ids[start : start + MAX_IDS_A_QUERY], close_code=Close.REVOKED.code)
        revoked.update(batch.values_list("id", flat=True))
    return revoked


def expire_sessions() -> int:
    """End what lost its process, forget what ended long ago; how many rows were touched."""
    now = timezone.now()
    lost = list(
        Session.objects.filter(ended_at=None, seen_at__lt=now - LOST_AFTER).values_list("id", flat=True)[:EXPIRE_LIMIT]
    )
    for session_id in lost:
        end_session(session_id=session_id, close_code=None)
    old = Session.objects.filter(ended_at__lt=now - KEPT_FOR).values_list("id", flat=True)[:EXPIRE_LIMIT]
    deleted, _ = Session.objects.filter(id__in=list(old)).delete()
    return len(lost) + deleted
