"""Accepting a run: what is refused and with which code, what is recorded, what goes to the broker."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest
from celery import current_app
from django.db import transaction
from django.utils import timezone

from protocol import outbox
from protocol.domain.messages import Priority
from protocol.errors import AccessDenied, DuplicateId, MCPError
from protocol.models import Session
from security.domain.authorization import AccountPrincipal
from tests.factories import allow, deny, make_principal
from tools import services
from tools.errors import InvalidInput, ToolNotFound, ToolQuarantined, ToolUnavailable
from tools.models import Execution, ExecutionEvent, Tool, ToolVersion
from tools.services.acceptance import ExecutionRequest, Joined, get_execution_id, make_task_id

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("samples")]

Accept = Callable[..., Execution]


def nest(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


REFUSED_INPUTS: dict[str, tuple[str, Any, str | None]] = {
    "a missing argument": ("text.count_words", {}, ""),
    "an unknown argument": ("text.count_words", {"text": "a", "speed": 1}, ""),
    "a wrong type": ("text.count_words", {"text": 1}, "/text"),
    "a value out of bounds": ("files.search", {"pattern": "a", "max_matches": 0}, "/max_matches"),
    "several": ("files.search", {"pattern": 1, "path": 2}, "/pattern"),
    "an integer beyond 2^53": ("sample_tools.echo", {"value": 2**53}, None),
    "an integer below -2^53": ("sample_tools.echo", {"value": [-(2**53)]}, None),
    "a number that is none": ("sample_tools.echo", {"value": float("nan")}, None),
    "a lone surrogate": ("sample_tools.echo", {"value": "\ud800"}, None),
    "bytes": ("sample_tools.echo", {"value": b"x"}, None),
    "a time": ("sample_tools.echo", {"value": timezone.now()}, None),
    "an extension type": ("sample_tools.echo", {"value": msgspec.msgpack.Ext(5, b"x")}, None),
    "keys that are numbers": ("sample_tools.echo", {"value": {1: 2}}, None),
    "ten thousand levels": ("sample_tools.echo", {"value": nest(10_000)}, None),
    "ten thousand levels where text is wanted": ("text.count_words", {"text": nest(10_000)}, None),
}


@pytest.mark.parametrize("name", REFUSED_INPUTS)
def test_an_input_that_does_not_fit_is_refused_with_its_place(accept: Accept, name: str) -> None:
    tool, value, path = REFUSED_INPUTS[name]
    with pytest.raises(InvalidInput) as refused:
        accept(tool, value)
    if path is not None:
        assert refused.value.details["path"] == path
        assert path in {violation["path"] for violation in refused.value.details["violations"]}
    assert not Execution.objects.exists()


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, 1.5e300, "x\U0001f600", None, nest(60), {"": []}])
def test_json_as_far_as_it_means_the_same_everywhere_is_taken(accept: Accept, value: Any) -> None:
    execution = accept("sample_tools.echo", {"value": value})
    assert msgspec.json.decode(execution.input_json) == {"value": value}


@pytest.mark.parametrize("tool", ["no.such", "", "text.count_words ", "TEXT.COUNT_WORDS", "text.count_words@1.0.0"])
def test_an_unknown_tool_is_not_found(accept: Accept, tool: str) -> None:
    with pytest.raises(ToolNotFound) as refused:
        accept(tool)
    assert refused.value.details == {"tool": tool}


def test_an_unknown_version_is_not_found(accept: Accept) -> None:
    with pytest.raises(ToolNotFound):
        accept("text.count_words", {"text": ""}, version="9.9.9")
    assert accept("text.count_words", {"text": ""}, version="1.0.0").version.version == "1.0.0"


@pytest.mark.parametrize(
    ("grants", "error"),
    [
        ([], ToolNotFound),
        ([allow("tools.execute", "tool:*")], ToolNotFound),
        ([allow("tools.view", "tool:*")], AccessDenied),
        ([allow("tools.view", "tool:*"), allow("tools.execute", "tool:text.*")], AccessDenied),
        ([allow("*"), deny("tools.execute", "tool:sample_tools.*")], AccessDenied),
        ([allow("*"), deny("tools.view", "tool:sample_tools.echo")], ToolNotFound),
    ],
)
def test_who_may_not_is_refused_and_who_may_not_see_is_told_nothing(
    accept: Accept, grants: list[Any], error: type[MCPError]
) -> None:
    with pytest.raises(error):
        accept("sample_tools.echo", {"value": 1}, principal=make_principal(grants=grants))


def test_a_scope_narrows_what_the_roles_give(accept: Accept) -> None:
    with pytest.raises(AccessDenied):
        accept("sample_tools.echo", {"value": 1}, principal=make_principal(grants=[allow("*")], scopes=["tools.view"]))


def test_permission_is_asked_before_the_input_is_looked_at(accept: Accept) -> None:
    viewer = make_principal(grants=[allow("tools.view", "tool:*")])
    with pytest.raises(AccessDenied):
        accept("text.count_words", {"nonsense": 1}, principal=viewer)


def test_a_disabled_tool_says_why(accept: Accept) -> None:
    Tool.objects.filter(name="sample_tools.echo").update(state=Tool.State.DISABLED, disabled_reason="under repair")
    with pytest.raises(ToolUnavailable, match="under repair") as refused:
        accept("sample_tools.echo", {"value": 1})
    assert refused.value.details == {"tool": "sample_tools.echo", "version": "1.0.0"}


@pytest.mark.parametrize(
    ("state", "error"),
    [(ToolVersion.State.QUARANTINED, ToolQuarantined), (ToolVersion.State.UNAVAILABLE, ToolUnavailable)],
)
def test_a_version_that_cannot_run_is_refused(accept: Accept, state: ToolVersion.State, error: type[MCPError]) -> None:
    ToolVersion.objects.filter(tool__name="sample_tools.echo").update(state=state)
    with pytest.raises(error):
        accept("sample_tools.echo", {"value": 1})


def test_what_is_accepted_says_all_that_was_decided(accept: Accept, agent: AccountPrincipal, session: Session) -> None:
    deadline = timezone.now() + timedelta(seconds=7)
    execution = accept(
        "sample_tools.loop_forever", session=session, message_id="m-1", deadline=deadline, priority=Priority.HIGH
    )
    version = ToolVersion.objects.get(tool__name="sample_tools.loop_forever")
    assert execution.version == version
    assert execution.definition_hash == version.definition_hash
    assert execution.input_hash == hashlib.sha256(b"{}").hexdigest()
    assert execution.requested_by_id == agent.id
    assert (execution.session_id, execution.message_id) == (session.id, "m-1")
    assert (execution.state, execution.mode, execution.priority) == ("queued", "wait", "high")
    assert (execution.attempt, execution.worker, execution.output_json, execution.error_json) == (0, "", None, "")
    assert execution.timeout_seconds == 0.3
    assert execution.deadline == deadline
    event = ExecutionEvent.objects.get(execution=execution)
    assert (event.position, event.kind) == (execution.event_count, "state") == (1, "state")
    assert msgspec.json.decode(event.data_json) == {"state": "queued", "attempt": 0}


def test_the_input_hash_does_not_hang_on_the_order_of_keys(accept: Accept) -> None:
    first = accept("sample_tools.echo", {"value": {"a": 1, "b": [1.0]}})
    second = accept("sample_tools.echo", {"value": {"b": [1.0], "a": 1}})
    other = accept("sample_tools.echo", {"value": {"b": [2.0], "a": 1}})
    assert first.input_hash == second.input_hash != other.input_hash


def test_a_tool_may_not_state_more_time_than_the_server_gives(accept: Accept, settings: Any) -> None:
    settings.MCP = msgspec.structs.replace(
        settings.MCP, default_tool_timeout_seconds=5.0, max_tool_timeout_seconds=20.0
    )
    assert accept("sample_tools.wait_for", {"path": "x"}).timeout_seconds == 20
    assert accept("sample_tools.echo", {"value": 1}).timeout_seconds == 5


def test_queueing_is_answered_in_the_outbox_and_bounds_nothing(accept: Accept, session: Session) -> None:
    execution = accept("sample_tools.echo", {"value": 1}, mode=Execution.Mode.QUEUE, session=session, message_id="m-1")
    assert execution.deadline is None
    (entry,) = outbox.read_after({session.id: 0})[session.id]
    assert entry.correlation_id == "m-1"
    assert msgspec.json.decode(entry.payload) == {
        "command": "tools.execute",
        "result": {"execution_id": str(execution.id), "state": "queued"},
    }


def test_waiting_is_not_answered_before_its_end(accept: Accept, session: Session) -> None:
    accept("sample_tools.echo", {"value": 1}, session=session)
    assert outbox.read_after({session.id: 0}) == {}


# The same call again


def make_request(agent: AccountPrincipal, session: Session, **fields: Any) -> ExecutionRequest:
    values: dict[str, Any] = {
        "principal": agent,
        "tool": "sample_tools.echo",
        "version": None,
        "input": {"value": 1},
        "mode": Execution.Mode.WAIT,
        "session_id": session.id,
        "message_id": "m-1",
        "trace_id": "0" * 32,
        **fields,
    }
    return ExecutionRequest(**values)


def test_the_same_message_again_is_the_same_run(agent: AccountPrincipal, session: Session) -> None:
    first = services.accept_execution(request=make_request(agent, session))
    again = services.accept_execution(request=make_request(agent, session))
    assert isinstance(again, Joined)
    assert again.execution_id == first.execution_id
    assert Execution.objects.count() == 1


@pytest.mark.parametrize(
    "change", [{"input": {"value": 2}}, {"mode": Execution.Mode.QUEUE}, {"tool": "sample_tools.fail", "input": {}}]
)
def test_the_same_message_with_another_content_is_refused(
    agent: AccountPrincipal, session: Session, change: dict[str, Any]
) -> None:
    services.accept_execution(request=make_request(agent, session))
    with pytest.raises(DuplicateId):
        services.accept_execution(request=make_request(agent, session, **change))
    assert Execution.objects.count() == 1


# The broker


def test_broker_messages_name_their_run() -> None:
    execution_id = Execution().id
    first, second = make_task_id(execution_id), make_task_id(execution_id)
    assert first != second
    assert get_execution_id(first) == get_execution_id(second) == execution_id
    assert get_execution_id("something else") is None


def read_queue(priority: Priority) -> list[str]:
    """The runs named by the messages of a queue, which are taken out of it."""
    # celery-types knows only the abstract channel.
    with current_app.connection_for_read() as connection, cast("Any", connection.channel()) as channel:
        found = []
        while message := channel.basic_get(f"mcp.{priority.value}", no_ack=True):
            found.append(get_execution_id(message.headers["id"]))
        return [str(execution_id) for execution_id in found]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("valkey_url")
@pytest.mark.parametrize("priority", Priority)
def test_a_run_is_sent_to_the_queue_of_its_priority_once_it_is_recorded(accept: Accept, priority: Priority) -> None:
    for other in Priority:
        read_queue(other)
    with transaction.atomic():
        execution = accept("sample_tools.echo", {"value": 1}, priority=priority)
        assert read_queue(priority) == [], "a worker could look for it before it is there"
    assert {other: read_queue(other) for other in Priority} == {
        other: [str(execution.id)] if other is priority else [] for other in Priority
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("valkey_url")
def test_the_caller_hears_of_the_run_before_any_worker_can(agent: AccountPrincipal, session: Session) -> None:
    read_queue(Priority.NORMAL)
    heard: list[dict[str, Any]] = []

    def announce(update: dict[str, Any]) -> None:
        assert read_queue(Priority.NORMAL) == []
        assert Execution.objects.filter(id=update["execution_id"]).exists()
        heard.append(update)

    accepted = services.accept_execution(request=make_request(agent, session), announce=announce)
    assert heard == [{"execution_id": str(accepted.execution_id), "state": "queued", "attempt": 0, "position": 1}]
    assert read_queue(Priority.NORMAL) == [str(accepted.execution_id)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("valkey_url")
def test_of_two_that_send_the_same_message_at_once_one_makes_the_run(agent: AccountPrincipal, session: Session) -> None:
    results: list[object] = []

    def call() -> None:
        try:
            results.append(services.accept_execution(request=make_request(agent, session)))
        finally:
            transaction.get_connection().close()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert sum(isinstance(result, Joined) for result in results) == 3
    assert Execution.objects.count() == 1
