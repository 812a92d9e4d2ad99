"""The outbox: numbers without gaps whoever appends, reads in order and by position, acknowledgements."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from django.db import connection, transaction

from protocol import outbox, sessions
from protocol.domain.messages import (
    ClientInfo,
    ErrorPayload,
    MessageType,
    ResponsePayload,
    SecurityLevel,
    describe_error,
)
from protocol.errors import AccessDenied, DuplicateId
from protocol.models import OutboxMessage, Session
from security.selectors import get_account_principal
from tests.factories import create_service


def open_session(*, channel: str = "here", level: SecurityLevel = SecurityLevel.STANDARD) -> Session:
    principal = get_account_principal(account=create_service())
    return sessions.open_session(
        principal=principal,
        channel=channel,
        client=ClientInfo(name="test"),
        remote_address=None,
        security_level=level,
    )


def append(
    session: Session, correlation_id: str, payload: ResponsePayload | ErrorPayload | None = None
) -> outbox.Appended | None:
    return outbox.append(
        session_id=session.id, correlation_id=correlation_id, payload=payload or ResponsePayload("ping", correlation_id)
    )


def read(session: Session, *, after: int = 0) -> list[int]:
    return [entry.sequence for entry in outbox.read_after({session.id: after}).get(session.id, [])]


def read_column(message: OutboxMessage) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM protocol_outboxmessage WHERE id = %s", [message.pk])
        return bytes(cursor.fetchone()[0])


@pytest.mark.django_db
def test_messages_are_numbered_from_one_and_come_back_as_they_went() -> None:
    session, other = open_session(), open_session()
    error = describe_error(AccessDenied(), trace_id="t")
    payloads: list[ResponsePayload | ErrorPayload] = [ResponsePayload("ping", {"a": [1, None]}), error]
    for number, payload in enumerate(payloads, 1):
        appended = append(session, f"c-{number}", payload)
        assert appended is not None
        assert appended.channel == "here"
        assert appended.entry.sequence == number
        assert outbox.read_after({session.id: number - 1}) == {session.id: [appended.entry]}
    first = append(other, "c-1")
    assert first is not None
    assert first.entry.sequence == 1
    entries = outbox.read_after({session.id: 0})[session.id]
    assert [(entry.kind, entry.correlation_id) for entry in entries] == [
        (MessageType.RESPONSE, "c-1"),
        (MessageType.ERROR, "c-2"),
    ]
    assert msgspec.json.decode(entries[0].payload) == {"command": "ping", "result": {"a": [1, None]}}
    assert msgspec.json.decode(entries[1].payload, type=ErrorPayload) == error


@pytest.mark.django_db
def test_nobody_is_owed_anything_by_a_session_that_ended_or_never_was() -> None:
    session = open_session()
    sessions.end_session(session_id=session.id, close_code=1000)
    assert append(session, "c-1") is None
    assert outbox.append(session_id=uuid.uuid4(), correlation_id="c", payload=ResponsePayload("ping", None)) is None
    assert not OutboxMessage.objects.exists()
    session.refresh_from_db()
    assert session.last_sequence == 0


@pytest.mark.django_db
def test_a_command_has_one_terminal_answer() -> None:
    session = open_session()
    append(session, "c-1")
    with pytest.raises(DuplicateId), transaction.atomic():
        append(session, "c-1")
    again = append(session, "c-2")
    assert again is not None
    assert again.entry.sequence == 2, "the refused one left a gap"


@pytest.mark.django_db
def test_what_is_rolled_back_leaves_no_gap() -> None:
    session = open_session()
    with transaction.atomic():
        append(session, "lost")
        transaction.set_rollback(True)
    append(session, "kept")
    assert read(session) == [1]


@pytest.mark.django_db(transaction=True)
def test_threads_that_append_at_once_get_each_number_once() -> None:
    session = open_session()
    barrier = threading.Barrier(4)

    def append_some(thread: int) -> list[int]:
        try:
            barrier.wait()
            appended = [append(session, f"{thread}-{number}") for number in range(10)]
            return [found.entry.sequence for found in appended if found is not None]
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(append_some, range(4)))
    assert sorted(number for numbers in taken for number in numbers) == list(range(1, 41))
    assert all(numbers == sorted(numbers) for numbers in taken)
    assert read(session) == list(range(1, 41))


@pytest.mark.django_db
def test_reading_goes_on_from_each_sessions_own_position() -> None:
    first, second, quiet = open_session(), open_session(), open_session()
    for number in range(3):
        append(first, f"c-{number}")
        append(second, f"c-{number}")
    found = outbox.read_after({first.id: 1, second.id: 3, quiet.id: 0, uuid.uuid4(): 0})
    assert {key: [entry.sequence for entry in entries] for key, entries in found.items()} == {first.id: [2, 3]}
    assert outbox.read_after({}) == {}


@pytest.mark.django_db
def test_one_read_is_bounded_and_the_next_goes_on() -> None:
    session, other = open_session(), open_session()
    for number in range(outbox.READ_LIMIT + 5):
        append(session if number % 2 else other, f"c-{number}")
    positions = {session.id: 0, other.id: 0}
    seen: dict[uuid.UUID, list[int]] = {session.id: [], other.id: []}
    for expected in (outbox.READ_LIMIT, 5, 0):
        found = outbox.read_after(positions)
        assert sum(map(len, found.values())) == expected
        for key, entries in found.items():
            seen[key] += [entry.sequence for entry in entries]
            positions[key] = entries[-1].sequence
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())


@pytest.mark.django_db
def test_as_many_sessions_as_a_process_may_have_are_read_at_once() -> None:
    session = open_session()
    append(session, "c-1")
    positions = {uuid.uuid4(): 0 for _ in range(2_000)} | {session.id: 0}
    assert list(outbox.read_after(positions)) == [session.id]


@pytest.mark.django_db
def test_what_is_acknowledged_is_forgotten_and_nothing_else() -> None:
    session, other = open_session(), open_session()
    for number in range(4):
        append(session, f"c-{number}")
        append(other, f"c-{number}")
    outbox.acknowledge({session.id: 3, other.id: 1})
    assert (read(session), read(other)) == ([4], [2, 3, 4])
    outbox.acknowledge({session.id: 1})
    session.refresh_from_db()
    assert session.acknowledged_sequence == 3, "an older acknowledgement took one back"
    following = append(session, "c-5")
    assert following is not None
    assert following.entry.sequence == 5


@pytest.mark.django_db
@pytest.mark.parametrize("level", list(SecurityLevel))
def test_from_high_on_the_outbox_holds_nothing_in_the_open(level: SecurityLevel) -> None:
    session = open_session(level=level)
    appended = append(session, "c-1", ResponsePayload("ping", "a secret answer"))
    assert appended is not None
    row = OutboxMessage.objects.get(session=session)
    is_sealed = level in (SecurityLevel.HIGH, SecurityLevel.CRITICAL)
    assert (b"a secret answer" not in read_column(row)) is is_sealed
    assert bool(row.key_id) is is_sealed
    assert outbox.read_after({session.id: 0}) == {session.id: [appended.entry]}


@pytest.mark.django_db
def test_a_sealed_message_opens_in_its_place_only_and_is_no_others_harm() -> None:
    session, other = open_session(level=SecurityLevel.HIGH), open_session(level=SecurityLevel.HIGH)
    for number in (1, 2):
        append(session, f"c-{number}")
        append(other, f"c-{number}")
    moved = OutboxMessage.objects.get(session=other, sequence=1)
    OutboxMessage.objects.filter(session=session, sequence=1).update(payload=moved.__dict__["payload"])
    found = outbox.read_after({session.id: 0, other.id: 0})
    assert session.id not in found
    assert [entry.sequence for entry in found[other.id]] == [1, 2]
