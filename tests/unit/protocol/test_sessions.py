"""A session's life in the database."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from protocol import outbox, sessions
from protocol.domain.messages import ClientInfo, ResponsePayload
from protocol.models import OutboxMessage, Session
from protocol.ports import Principal
from security.selectors import get_account_principal
from tests.factories import create_service

pytestmark = pytest.mark.django_db


@pytest.fixture
def principal() -> Principal:
    return get_account_principal(account=create_service())


def open_session(principal: Principal) -> Session:
    return sessions.open_session(
        principal=principal,
        channel="here",
        client=ClientInfo(name="agent", version="2"),
        remote_address="127.0.0.1",
    )


def age(session: Session, **times: timedelta) -> None:
    """Put these times of the session so far into the past."""
    now = timezone.now()
    Session.objects.filter(id=session.id).update(**{name: now - ago for name, ago in times.items()})


def test_a_new_session_is_connected_and_says_whose_it_is(principal: Principal) -> None:
    session = Session.objects.get(id=open_session(principal).id)
    assert session.account_id == principal.id
    assert session.credential_id == principal.credential_id
    assert (session.client_name, session.client_version) == ("agent", "2")
    assert (session.channel, session.remote_address) == ("here", "127.0.0.1")
    assert (session.ended_at, session.close_code) == (None, None)
    assert (session.last_sequence, session.acknowledged_sequence) == (0, 0)
    assert session.id.version == 7


def test_ending_is_once_and_drops_what_was_owed(principal: Principal) -> None:
    session, other = open_session(principal), open_session(principal)
    for owed in (session, other):
        outbox.append(session_id=owed.id, correlation_id="c", payload=ResponsePayload("ping", None))
    assert sessions.end_session(session_id=session.id, close_code=1001) is True
    assert sessions.end_session(session_id=session.id, close_code=1006) is False
    session.refresh_from_db()
    assert session.close_code == 1001
    assert session.ended_at is not None
    assert set(OutboxMessage.objects.values_list("session_id", flat=True)) == {other.id}
    assert sessions.end_session(session_id=uuid.uuid4(), close_code=None) is False


def test_only_what_is_connected_is_seen(principal: Principal) -> None:
    live, ended, other = (open_session(principal) for _ in range(3))
    sessions.end_session(session_id=ended.id, close_code=1000)
    for session in (live, ended, other):
        age(session, seen_at=timedelta(seconds=30))
    never = uuid.uuid4()
    assert sessions.touch_sessions(session_ids=[live.id, ended.id, never]) == {ended.id, never}
    recently = timezone.now() - timedelta(seconds=10)
    assert list(Session.objects.filter(seen_at__gte=recently)) == [live]
    assert sessions.touch_sessions(session_ids=[live.id]) == set()


def test_a_channel_is_set_where_there_was_none(principal: Principal) -> None:
    deaf, hearing, ended = (open_session(principal) for _ in range(3))
    sessions.end_session(session_id=ended.id, close_code=1000)
    Session.objects.filter(id__in=[deaf.id, ended.id]).update(channel="")
    sessions.set_channel(session_ids=[deaf.id, hearing.id, ended.id], channel="there")
    assert [sessions.get_channel(session_id=session.id) for session in (deaf, hearing, ended)] == ["there", "here", ""]
    assert sessions.get_channel(session_id=None) == sessions.get_channel(session_id=uuid.uuid4()) == ""


def test_a_session_that_lost_its_process_is_ended_and_another_is_not(principal: Principal) -> None:
    lost, seen = open_session(principal), open_session(principal)
    age(lost, seen_at=sessions.LOST_AFTER + timedelta(seconds=1))
    age(seen, seen_at=sessions.LOST_AFTER - timedelta(seconds=5))
    assert sessions.expire_sessions() == 1
    lost.refresh_from_db()
    seen.refresh_from_db()
    assert lost.ended_at is not None
    assert lost.close_code is None
    assert seen.ended_at is None
    assert sessions.expire_sessions() == 0


def test_what_ended_long_ago_is_forgotten(principal: Principal) -> None:
    old, recent, running = (open_session(principal) for _ in range(3))
    for session in (old, recent):
        sessions.end_session(session_id=session.id, close_code=1000)
    age(old, ended_at=sessions.KEPT_FOR + timedelta(minutes=1))
    age(recent, ended_at=sessions.KEPT_FOR - timedelta(minutes=1))
    age(running, created_at=10 * sessions.KEPT_FOR)
    assert sessions.expire_sessions() == 1
    assert set(Session.objects.values_list("id", flat=True)) == {recent.id, running.id}


def test_one_step_of_forgetting_is_bounded(principal: Principal) -> None:
    ended_at = timezone.now() - 2 * sessions.KEPT_FOR
    Session.objects.bulk_create(
        Session(account_id=principal.id, credential_id=principal.credential_id, channel="", ended_at=ended_at)
        for _ in range(sessions.EXPIRE_LIMIT + 1)
    )
    assert [sessions.expire_sessions() for _ in range(3)] == [sessions.EXPIRE_LIMIT, 1, 0]
