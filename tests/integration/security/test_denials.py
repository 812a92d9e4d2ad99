"""A denial is told once it is on record, by whatever door; repeated ones are one event."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test import AsyncClient, Client

from protocol.acting import acting
from protocol.admin import tell_refusal
from protocol.errors import AccessDenied, MCPError
from protocol.ports import Denial, Door
from security.models import Account, AuditEvent
from security.selectors import get_account_principal
from security.services.denials import DenialRecorder, submit_denial
from tests.factories import allow, create_role, create_service, ensure_builtin_roles, issue_key
from tests.services import wait_until
from tools.errors import ToolUnavailable
from tools.services import load_tools, synchronise_tools

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
    wait_until(list_denials, what="the event")
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


def describe_missing(agent: Account, tool: str) -> dict[str, Any]:
    """What an agent over HTTP is told of a tool, without what differs from one request to the next."""
    key = issue_key(account=agent).secret
    answer = async_to_sync(AsyncClient().get)(f"/api/v1/tools/{tool}/", headers={"authorization": f"Bearer {key}"})
    told: dict[str, Any] = answer.json()
    return {"status": answer.status_code, **{name: told[name] for name in told if name not in ("trace_id", "instance")}}


@strikes
def test_what_may_not_be_seen_is_a_denial_that_nobody_is_told_of() -> None:
    ensure_builtin_roles()
    load_tools()
    synchronise_tools()
    role = create_role(grants=[allow("tools.view", "tool:files.*")])
    agent = create_service(roles=[role.name])
    hidden = describe_missing(agent, "text.count_words")
    missing = describe_missing(agent, "text.count_nothing")
    in_reach = describe_missing(agent, "files.nothing")
    assert hidden["status"] == 404
    assert hidden["code"] == "tool.not_found"
    for other, name in ((missing, "text.count_nothing"), (in_reach, "files.nothing")):
        assert str(other).replace(name, "text.count_words") == str(hidden)
    wait_until(lambda: count_codes() == {"security.access_denied": 2, "tool.not_found": 1}, what="the events")
    assert {json.loads(event.data_json).get("action") for event in list_denials()} >= {"tools.view"}
    assert {event.actor_id for event in list_denials()} == {agent.id}


@strikes
def test_a_limit_that_was_reached_is_counted_and_not_waited_for() -> None:
    recorder = DenialRecorder()
    limited = make_denial()
    recorder.submit(limited).result(10)
    counted = [
        recorder.submit(dataclasses.replace(limited, code="security.rate_limited", is_awaited=False)) for _ in range(9)
    ]
    assert all(waiter.done() for waiter in counted)
    wait_until(lambda: count_codes() == {"security.access_denied": 1, "security.rate_limited": 9}, what="the event")
    assert len(list_denials()) == 2


@strikes
def test_who_shows_no_credential_is_counted_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with away("security_auditevent"):
        answer = async_to_sync(AsyncClient().get)("/api/v1/tools/")
        assert (answer.status_code, answer.json()["code"]) == (401, "security.authentication_required")
        wait_until(lambda: "1 refusals that were told could not be recorded" in caplog.text, what="the line")
    async_to_sync(AsyncClient().get)("/api/v1/tools/")
    wait_until(lambda: count_codes() == {"security.authentication_required": 1}, what="the event")


@strikes
def test_what_is_counted_does_not_fail_with_the_database(caplog: pytest.LogCaptureFixture) -> None:
    recorder = DenialRecorder()
    with away("security_auditevent"):
        recorder.submit(dataclasses.replace(make_denial(), is_awaited=False)).result(0)
        wait_until(lambda: "1 refusals that were told could not be recorded" in caplog.text, what="the line")


def count_codes() -> Counter[str]:
    """How many of each code the events tell of."""
    codes: Counter[str] = Counter()
    for event in list_denials():
        data = json.loads(event.data_json)
        codes.update(data.get("codes", {event.outcome: data["count"]}))
    return codes


@pytest.mark.django_db
def test_what_the_console_refuses_in_a_page(operator: Account) -> None:
    principal = get_account_principal(account=operator)
    refusal = AccessDenied(details={"action": "sessions.revoke"})
    with acting(
        find_principal=lambda: principal, trace_id="b" * 32, remote_address="192.0.2.7", request="POST /admin/x/"
    ):
        assert refusal.code in tell_refusal(refusal)
        assert "tool.unavailable" in tell_refusal(ToolUnavailable())
    (event,) = list_denials()
    assert (event.outcome, event.actor_id, event.trace_id) == ("security.access_denied", operator.id, "b" * 32)
    assert event.resource_name == "POST /admin/x/"
    data = json.loads(event.data_json)
    assert (data["door"], data["action"], data["address"]) == ("console", "sessions.revoke", "192.0.2.7")
