"""The outbox: numbered messages that a session is owed (protocol.md section 10).

``append`` is called inside the transaction that records the effect; ``read_after`` by whoever owns the socket. Session
rows are locked last in a transaction, in ascending order where there are several.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from django.db import IntegrityError, connection, transaction
from msgspec import Struct

from protocol import statements, wakeups
from protocol.domain.handshake import is_sealed
from protocol.domain.messages import ErrorPayload, MessageType, ResponsePayload, SecurityLevel
from protocol.errors import DuplicateId
from protocol.models import OutboxMessage, Session
from protocol.sealed_fields import Plain

logger = logging.getLogger(__name__)

READ_LIMIT = 500
"""Messages read at once over all sessions; the next read goes on from there."""
PAYLOAD = OutboxMessage._meta.get_field("payload")
MAX_SESSIONS_A_QUERY = 200
"""SQLite takes no expression deeper than 1,000."""


class OutboxEntry(Struct, frozen=True, kw_only=True):
    """A numbered message as it lies in the outbox."""

    sequence: int
    kind: MessageType
    correlation_id: str
    payload: bytes
    """As JSON."""


class Appended(Struct, frozen=True, kw_only=True):
    entry: OutboxEntry
    channel: str
    """Where the session's owner listens."""


def append(*, session_id: uuid.UUID, correlation_id: str, payload: ResponsePayload | ErrorPayload) -> Appended | None:
    """Number a terminal answer and put it in the outbox; ``None`` where the session has ended and nobody is owed it.

    It wakes nobody: the caller does so on commit, by ``wake``, with the events that go before.

    Raises:
        DuplicateId: a command of this id has its terminal answer already. The transaction must be rolled back.
    """
    # Numbered by the session's own row, whose lock orders who else appends.
    row = statements.update_returning(
        Session,
        where={"id": session_id, "ended_at": None},
        values={"last_sequence": statements.Plus(1)},
        names=("last_sequence", "channel", "security_level"),
    )
    if row is None:
        return None
    sequence, channel, level = row
    kind = MessageType.ERROR if isinstance(payload, ErrorPayload) else MessageType.RESPONSE
    body = msgspec.json.encode(payload)
    message = OutboxMessage(
        session_id=session_id,
        sequence=sequence,
        correlation_id=correlation_id,
        kind=kind.value,
        # What was sealed on its way must not lie open at its end.
        payload=body if is_sealed(SecurityLevel(level)) else Plain(body),
    )
    try:
        statements.insert(message)
    except IntegrityError as error:
        raise DuplicateId("A command of this id has been answered.", details={"id": correlation_id}) from error
    entry = OutboxEntry(sequence=sequence, kind=kind, correlation_id=correlation_id, payload=body)
    return Appended(entry=entry, channel=channel)


def wake(
    *, session_id: uuid.UUID, channel: str, events: Iterable[wakeups.RiddenEvent] = (), has_outbox: bool = True
) -> None:
    """On commit, tell the session's owner that there is something."""
    wakeup = wakeups.Wakeup(session_id=session_id, events=tuple(events), has_outbox=has_outbox)
    transaction.on_commit(lambda: wakeups.publish(channel=channel, wakeup=wakeup))


def read_after(positions: Mapping[uuid.UUID, int]) -> dict[uuid.UUID, list[OutboxEntry]]:
    """What each session's outbox holds after its position, ascending; at most ``READ_LIMIT`` messages in all."""
    wanted = list(positions.items())
    entries: dict[uuid.UUID, list[OutboxEntry]] = {}
    unreadable: set[uuid.UUID] = set()
    remaining = READ_LIMIT
    for start in range(0, len(wanted), MAX_SESSIONS_A_QUERY):
        rows = _read_rows(wanted[start : start + MAX_SESSIONS_A_QUERY], limit=remaining)
        for session_id, sequence, kind, correlation_id, payload, key_id in rows:
            key = session_id if isinstance(session_id, uuid.UUID) else uuid.UUID(session_id)
            if key in unreadable:
                continue
            body = bytes(payload)
            try:
                if key_id:
                    body = PAYLOAD.open(data=body, key_id=key_id, row=(key, sequence))
            except Exception:
                # One session's message that does not open is not the others' harm; its own wait behind it.
                logger.exception("Session %s: message %d does not open", key, sequence)
                unreadable.add(key)
                continue
            entries.setdefault(key, []).append(
                OutboxEntry(sequence=sequence, kind=MessageType(kind), correlation_id=correlation_id, payload=body)
            )
        remaining -= len(rows)
        if remaining <= 0:
            break
    return entries


def _read_rows(wanted: Sequence[tuple[uuid.UUID, int]], *, limit: int) -> list[tuple[Any, ...]]:
    prepare = Session._meta.pk.get_db_prep_value
    table = connection.ops.quote_name(OutboxMessage._meta.db_table)
    condition = " OR ".join(["(session_id = %s AND sequence > %s)"] * len(wanted))
    parameters: list[Any] = []
    for session_id, position in wanted:
        parameters += [prepare(session_id, connection), position]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT session_id, sequence, kind, correlation_id, payload, key_id FROM {table}"  # noqa: S608  # as above
            f" WHERE {condition} ORDER BY session_id, sequence LIMIT {limit}",
            parameters,
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def acknowledge(positions: Mapping[uuid.UUID, int]) -> None:
    """Forget what the clients of these sessions say that they have."""
    with transaction.atomic():
        # In ascending order, as everywhere where several sessions' rows are locked.
        for session_id, sequence in sorted(positions.items()):
            Session.objects.filter(id=session_id, acknowledged_sequence__lt=sequence).update(
                acknowledged_sequence=sequence
            )
            OutboxMessage.objects.filter(session_id=session_id, sequence__lte=sequence).delete()
