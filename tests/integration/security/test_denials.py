"""A denial is told once it is on record, by whatever door; repeated ones are one event."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test import AsyncClient, Client

from protocol.errors import MCPError
from protocol.ports import Denial, Door
from security.models import AuditEvent
from security.services.denials import DenialRecorder, submit_denial

strikes = pytest.mark.django_db(transaction=True)


def make_denial(address: str = "192.0.2.1", subject: str = "tools.execute") -> Denial:
    return Denial(
        code="security.access_denied",
        door=Door.WEBSOCKET,
        remote_address=address,
        principal=None,
        kind="command",
        subject=subject,
        action="tools.execute",
        trace_id="a" * 32,
    )


def list_denials() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action="access.deny").order_by("id"))


@contextmanager
def away(table: str) -> Iterator[None]:
    """The database without one of its tables: it takes no event."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE away RENAME TO {table}")


@strikes
def test_it_is_durable_when_it_may_be_told() -> None:
    DenialRecorder().submit(make_denial()).result(10)
    (event,) = list_denials()
    assert (event.outcome, event.resource_kind, event.resource_name) == (
        "security.access_denied",
        "command",
        "tools.execute",
    )
    assert event.trace_id == "a" * 32
    assert json.loads(event.data_json) == {
        "door": "websocket",
        "address": "192.0.2.1",
        "count": 1,
        "action": "tools.execute",
    }


@strikes
def test_repeated_ones_wait_and_are_one_event() -> None:
    recorder = DenialRecorder()
    recorder.submit(make_denial()).result(10)
    began = time.monotonic()
    for waiter in [recorder.submit(make_denial(subject=f"s{number}")) for number in range(20)]:
        waiter.result(10)
    assert time.monotonic() - began > 0.5
    counts = [json.loads(event.data_json)["count"] for event in list_denials()]
    assert counts == [1, 20]


@strikes
def test_another_source_does_not_wait() -> None:
    recorder = DenialRecorder()
    recorder.submit(make_denial()).result(10)
    repeated = recorder.submit(make_denial())
    recorder.submit(make_denial("192.0.2.2")).result(10)
    assert not repeated.done()
    repeated.result(10)


@strikes
def test_what_cannot_be_recorded_is_not_told() -> None:
    recorder = DenialRecorder()
    with away("security_auditevent"), pytest.raises(MCPError) as failed:
        recorder.submit(make_denial()).result(30)
    assert failed.value.code == "system.storage_unavailable"
    recorder.submit(make_denial()).result(30)
    assert len(list_denials()) == 1


@strikes
def test_who_gave_up_does_not_keep_the_others() -> None:
    recorder = DenialRecorder()
    recorder.submit(make_denial()).result(10)
    gone, there = recorder.submit(make_denial()), recorder.submit(make_denial())
    assert gone.cancel()
    there.result(10)
    assert json.loads(list_denials()[1].data_json)["count"] == 2


@pytest.mark.django_db
def test_in_a_transaction_it_is_part_of_that() -> None:
    with transaction.atomic():
        submit_denial(make_denial()).result(0)
        assert len(list_denials()) == 1
        transaction.set_rollback(True)
    assert list_denials() == []


@pytest.mark.django_db
@pytest.mark.parametrize("subject", ["x" * 5000, "nul \x00 line \n", "\ud800"])
def test_what_strangers_send_is_no_harm(subject: str) -> None:
    submit_denial(make_denial(subject=subject)).result(0)
    (event,) = list_denials()
    assert event.resource_name.isprintable()
    assert len(event.resource_name) <= 200


@strikes
def test_over_http() -> None:
    answer = async_to_sync(AsyncClient().get)("/api/v1/tools/", headers={"authorization": "Bearer mcp_wrong"})
    assert answer.json()["code"] == "security.authentication_failed"
    (event,) = list_denials()
    assert (event.outcome, event.resource_name) == ("security.authentication_failed", "GET /api/v1/tools/")
    assert json.loads(event.data_json)["door"] == "http"
    with away("security_auditevent"):
        answer = async_to_sync(AsyncClient().get)("/api/v1/tools/", headers={"authorization": "Bearer mcp_wrong"})
    assert (answer.status_code, answer.json()["code"]) == (503, "system.storage_unavailable")


@strikes
def test_in_messages_over_http() -> None:
    message = {
        "id": "m-1",
        "type": "command",
        "payload": {"command": "session.ping", "arguments": {}},
        "timestamp": "2026-11-20T16:31:00.123Z",
    }
    answer = async_to_sync(AsyncClient().post)("/api/v1/messages/", message, content_type="application/json")
    assert answer.json()["payload"]["code"] == "security.authentication_required"
    (event,) = list_denials()
    assert (event.resource_kind, event.resource_name) == ("command", "session.ping")


@strikes
def test_in_the_console(client: Client) -> None:
    client.post("/admin/login/", {"username": "nobody", "password": "wrong"})
    (event,) = list_denials()
    assert (event.outcome, event.resource_kind) == ("security.authentication_failed", "credentials")
    assert json.loads(event.data_json)["door"] == "console"
    # What was typed as the name may be a password.
    assert "nobody" not in repr(AuditEvent.objects.values())


class LateCondition(threading.Condition):
    """One whose wait ends by its time just as somebody comes."""

    def __init__(self, come: Callable[[], None]) -> None:
        super().__init__()
        self._come = come

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002  # as the base class has it
        self._come()
        return False


@pytest.mark.django_db
def test_who_comes_as_the_thread_is_about_to_end_is_not_forgotten() -> None:
    recorder = DenialRecorder()
    waiter: Future[None] = Future()
    recorder._condition = LateCondition(lambda: recorder._ledger.add(make_denial(), waiter, now=time.monotonic()))
    with recorder._condition:
        groups = recorder._wait()
    assert groups is not None
    assert [group.waiting for group in groups] == [[waiter]]
