"""Statements that are compiled once see what the ORM sees, on either database."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from protocol import statements
from protocol.models import OutboxMessage, Session
from security.models import Account, LoginFailure
from security.services import create_account

NAMES = ("id", "account_id", "client_name", "last_sequence", "ended_at", "close_code", "created_at")


def make_session(**values: Any) -> Session:
    account = create_account(username=f"a-{uuid.uuid4().hex}", kind=Account.Kind.SERVICE, roles=[])
    return Session(account=account, credential_id=uuid.uuid4(), channel="specific.1", **values)


def read(session: Session) -> tuple[Any, ...]:
    row: tuple[Any, ...] = Session.objects.values_list(*NAMES).get(id=session.id)
    return row


@pytest.mark.django_db
def test_an_inserted_row_is_what_the_orm_would_have_saved() -> None:
    session = make_session(client_name="ünï", last_sequence=7)
    statements.insert(session)
    stored = Session.objects.get(id=session.id)
    for field in Session._meta.concrete_fields:
        assert getattr(stored, field.attname) == getattr(session, field.attname), field.attname
    assert stored.created_at.tzinfo is not None
    session.client_name = "again"
    session.save()
    assert Session.objects.count() == 1


@pytest.mark.django_db
def test_several_rows_and_ids_that_the_database_gives() -> None:
    session = make_session()
    statements.insert(session)
    rows = [
        OutboxMessage(
            session=session, sequence=number, correlation_id=f"c{number}", kind="response", payload=b"\x00\xff"
        )
        for number in (1, 2, 3)
    ]
    statements.insert(*rows)
    stored = OutboxMessage.objects.order_by("sequence")
    assert [(row.sequence, bytes(row.payload)) for row in stored] == [(number, b"\x00\xff") for number in (1, 2, 3)]
    assert len({row.pk for row in stored}) == 3


@pytest.mark.django_db
def test_a_row_that_a_constraint_refuses_is_an_integrity_error() -> None:
    session = make_session()
    statements.insert(session)
    with pytest.raises(IntegrityError), transaction.atomic():
        statements.insert(session)
    assert Session.objects.count() == 1


@pytest.mark.django_db
def test_an_update_changes_what_satisfies_all_of_the_condition() -> None:
    one, other = make_session(), make_session()
    statements.insert(one, other)
    now = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
    where = {"id": one.id, "ended_at": None}
    assert statements.update(Session, where=where, values={"ended_at": now, "close_code": None}) == 1
    assert Session.objects.get(id=one.id).ended_at == now
    assert Session.objects.get(id=other.id).ended_at is None
    assert statements.update(Session, where=where, values={"close_code": 1000}) == 0
    assert Session.objects.get(id=one.id).close_code is None


@pytest.mark.django_db
def test_what_an_update_returns_is_what_the_orm_reads() -> None:
    session = make_session(last_sequence=41)
    statements.insert(session)
    returned = statements.update_returning(
        Session, where={"id": session.id}, values={"last_sequence": statements.Plus(1)}, names=NAMES
    )
    assert returned == read(session)
    assert returned is not None
    assert returned[3] == 42
    assert (
        statements.update_returning(Session, where={"id": uuid.uuid4()}, values={"close_code": 1}, names=NAMES) is None
    )


@pytest.mark.django_db
def test_a_selection_is_what_the_orm_reads() -> None:
    one, other = make_session(), make_session(ended_at=datetime(2026, 1, 1, tzinfo=UTC))
    statements.insert(one, other)
    assert statements.select(Session, where={"id": one.id}, names=NAMES) == [read(one)]
    assert statements.select(Session, where={"ended_at": None}, names=("id",)) == [(one.id,)]
    assert statements.select(Session, where={"id": uuid.uuid4()}, names=NAMES) == []


@pytest.mark.django_db
def test_names_are_what_from_db_takes() -> None:
    session = make_session()
    statements.insert(session)
    names = statements.get_names(Session)
    (row,) = statements.select(Session, where={"id": session.id}, names=names)
    assert Session.from_db("default", names, row) == session


@pytest.mark.django_db
def test_values_are_parameters_and_never_sql() -> None:
    hostile = "x'; DROP TABLE protocol_session; --%s"
    session = make_session(client_name=hostile)
    statements.insert(session)
    assert statements.select(Session, where={"client_name": hostile}, names=("client_name",)) == [(hostile,)]
    with CaptureQueriesContext(connection) as queries, pytest.raises(KeyError):
        statements.select(Session, where={"id = id OR id": 1}, names=("id",))
    assert not queries.captured_queries


class AnyText(TestCase):
    """What text and numbers come back as."""

    @given(
        text=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=100),
        at=st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # made aware by timezones
    )
    def test_what_goes_in_comes_out(self, text: str, at: datetime) -> None:
        """For either way in."""
        counter = LoginFailure(key=text, clear_at=datetime(2026, 1, 1, tzinfo=UTC))
        statements.insert(counter)
        statements.update(LoginFailure, where={"key": text}, values={"clear_at": at})
        assert statements.select(LoginFailure, where={"key": text}, names=("key", "clear_at")) == [(text, at)]
        stored = LoginFailure.objects.get(key=text)
        assert (stored.key, stored.clear_at) == (text, at)
