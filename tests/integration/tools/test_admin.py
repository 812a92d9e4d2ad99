"""The console's pages of tools, runs and workers, as a browser uses them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from protocol.admin import MAX_LISTED
from protocol.domain.messages import Priority
from protocol.models import Session
from security.models import Account
from security.selectors import get_account_principal
from tests.factories import create_person, create_service
from tests.queries import capture_queries
from tests.runs import accept_run
from tools import services
from tools.errors import ToolUnavailable
from tools.models import Execution, ExecutionEvent, Tool, ToolVersion, WorkerLease

pytestmark = pytest.mark.django_db

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(autouse=True)
def _tools() -> None:
    services.synchronise_tools()


@pytest.fixture
def agent() -> Account:
    return create_service(username="finder")


def get_page(client: Client, name: str, *arguments: object, **parameters: Any) -> Any:
    response = client.get(reverse(f"admin:tools_{name}", args=arguments), parameters)
    assert response.status_code == 200, response.headers
    return response


def get_text(client: Client, name: str, *arguments: object, **parameters: Any) -> str:
    text: str = get_page(client, name, *arguments, **parameters).content.decode()
    return text


def list_found(client: Client, **parameters: Any) -> set[uuid.UUID]:
    return {row.pk for row in get_page(client, "execution_changelist", **parameters).context["cl"].result_list}


def run(agent: Account, tool: str = "text.count_words", **fields: Any) -> Execution:
    """A run that has ended, well or not."""
    execution = accept_run(agent, tool, **fields)
    services.run_execution(execution_id=execution.id, worker="worker-1@host")
    execution.refresh_from_db()
    return execution


def switch(client: Client, tool: Tool, action: str, **fields: str) -> Any:
    return client.post(reverse(f"admin:tools_tool_{action}", args=[tool.pk]), {"_form_submitted": "on", **fields})


def test_a_run_that_succeeded_is_told_in_full(console: Client, agent: Account) -> None:
    session = Session.objects.create(account=agent, credential_id=uuid.uuid4(), channel="c", client_name="shell")
    execution = run(agent, input={"text": "one two"}, session_id=session.id, message_id="run-17")
    page = get_text(console, "execution_change", execution.pk)
    for shown in (
        "text.count_words@1.0.0",
        execution.definition_hash,
        "finder",
        "run-17",
        execution.trace_id,
        "worker-1@host",
        "one two",
        "&quot;words&quot;: 2",
        reverse("admin:protocol_session_change", args=[session.pk]),
        reverse("admin:tools_tool_change", args=[execution.tool_id]),
    ):
        assert shown in page
    told = [entry["event"].state for entry in get_page(console, "execution_change", execution.pk).context["timeline"]]
    assert told == ["queued", "running", "succeeded"]
    assert 'hx-trigger="every' not in page


def test_a_run_that_was_cancelled_and_repeated_says_so(console: Client, agent: Account) -> None:
    first = accept_run(agent, idempotency_key="once")
    Execution.objects.filter(pk=first.pk).update(cancel_mode="graceful", cancel_requested_at=timezone.now())
    second = accept_run(agent, retry_of=first.id)
    page = get_text(console, "execution_change", first.pk)
    assert "graceful" in page
    assert "once" in page
    assert reverse("admin:tools_execution_change", args=[second.pk]) in page
    assert reverse("admin:tools_execution_change", args=[first.pk]) in get_text(console, "execution_change", second.pk)


def test_a_run_that_failed_shows_its_error(console: Client, agent: Account) -> None:
    execution = run(agent, "text.search", input={"pattern": "(", "text": "x"})
    page = get_text(console, "execution_change", execution.pk)
    assert "tool.execution_failed" in page
    assert 'id="output"' not in page


def test_a_run_that_goes_on_is_read_again(console: Client, agent: Account) -> None:
    execution = accept_run(agent)
    Execution.objects.filter(pk=execution.pk).update(progress_fraction=0.42, progress_message="21 of 50")
    page = get_text(console, "execution_change", execution.pk)
    assert f'data-live="{reverse("admin:tools_execution_watch", args=[execution.pk])}"' in page
    assert 'hx-trigger="every' not in page
    assert 'value="42"' in page
    assert "21 of 50" in page
    services.run_execution(execution_id=execution.id, worker="worker-1@host")
    assert "data-live" not in get_text(console, "execution_change", execution.pk)


def test_who_is_told_no_news_by_the_policy_reads_the_page_again_by_the_clock(client: Client, agent: Account) -> None:
    clerk = create_person(is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename="view_execution"))
    client.force_login(clerk)
    page = get_text(client, "execution_change", accept_run(agent).pk)
    assert 'hx-trigger="every 2s"' in page
    assert "data-live" not in page


def test_of_a_long_timeline_the_end_is_shown(console: Client, agent: Account) -> None:
    execution = accept_run(agent)
    ExecutionEvent.objects.bulk_create(
        ExecutionEvent(
            execution=execution,
            position=position,
            kind="progress",
            data_json=json.dumps({"message": f"step-{position}."}),
            at=execution.created_at + timedelta(milliseconds=position),
        )
        for position in range(2, 602)
    )
    response = get_page(console, "execution_change", execution.pk)
    assert [entry["event"].position for entry in response.context["timeline"]] == list(range(102, 602))
    assert response.context["timeline_left_out"] == 101
    assert response.context["timeline"][-1]["event"].offset_seconds == 0.601
    page = response.content.decode()
    assert "101 earlier ones" in page
    assert "step-101." not in page
    assert "step-102." in page


def test_large_values_are_shown_in_part(console: Client, agent: Account) -> None:
    execution = accept_run(agent, input={"text": "word " * 150_000})
    page = get_text(console, "execution_change", execution.pk)
    assert len(page) < 150_000
    assert "The beginning only" in page


def test_what_is_not_json_is_shown_as_it_is(console: Client, agent: Account) -> None:
    execution = accept_run(agent)
    Execution.objects.filter(pk=execution.pk).update(input_json='{"half', output_json="[" * 20_000)
    page = get_text(console, "execution_change", execution.pk)
    assert "{&quot;half" in page
    assert "[[[[" in page


def test_nothing_that_agents_send_becomes_markup(console: Client, agent: Account) -> None:
    execution = run(agent, "text.search", input={"pattern": "script", "text": HOSTILE}, message_id="m")
    Execution.objects.filter(pk=execution.pk).update(
        error_json=json.dumps({"message": HOSTILE}),
        worker=HOSTILE,
        message_id=HOSTILE[:64],
        trace_id=HOSTILE[:32],
        progress_message=HOSTILE,
        finished_at=None,
        state="running",
    )
    for position, data in enumerate(({"message": HOSTILE}, {"output_chunk": HOSTILE}, {"state": HOSTILE}), start=10):
        ExecutionEvent.objects.create(
            execution=execution, position=position, kind="progress", data_json=json.dumps(data), at=timezone.now()
        )
    Tool.objects.filter(pk=execution.tool_id).update(name=HOSTILE, state="disabled", disabled_reason=HOSTILE)
    ToolVersion.objects.filter(pk=execution.version_id).update(
        description=HOSTILE,
        capabilities=[HOSTILE],
        state_reason=HOSTILE,
        entry_point=HOSTILE,
        version=HOSTILE[:64],
        input_schema={HOSTILE: HOSTILE},
    )
    WorkerLease.objects.create(name=HOSTILE, host=HOSTILE, pid=1, expires_at=timezone.now())
    Account.objects.filter(pk=agent.pk).update(username=HOSTILE)
    pages = [
        get_text(console, "execution_change", execution.pk),
        get_text(console, "execution_changelist"),
        get_text(console, "execution_changelist", q=HOSTILE, tool__id__exact=execution.tool_id),
        get_text(console, "tool_change", execution.tool_id),
        get_text(console, "tool_changelist"),
        get_text(console, "workerlease_changelist"),
        console.get(reverse("admin:index")).content.decode(),
        console.get(reverse("admin:tools_tool_disable", args=[execution.tool_id])).content.decode(),
    ]
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    assert all("&lt;script&gt;alert" in page for page in pages[:7])


def test_the_list_of_runs_asks_the_same_of_the_database_however_long_it_is(console: Client, agent: Account) -> None:
    def count_queries() -> int:
        with capture_queries() as queries:
            get_page(console, "execution_changelist")
        assert not [query for query in queries if "input_json" in query["sql"] or "input_schema" in query["sql"]]
        return len(queries)

    accept_run(agent)
    count_queries()
    few = count_queries()
    for _ in range(10):
        accept_run(create_service())
        accept_run(create_service(), "files.list", input={})
    assert count_queries() == few


def test_the_list_of_tools_asks_the_same_of_the_database_however_long_it_is(console: Client, agent: Account) -> None:
    def count_queries() -> int:
        with capture_queries() as queries:
            get_page(console, "tool_changelist")
        return len(queries)

    count_queries()
    few = count_queries()
    template = ToolVersion.objects.filter(tool__name="text.search").values().get()
    for number in range(20):
        tool = Tool.objects.create(name=f"more.tool_{number}")
        version = ToolVersion.objects.create(**{**template, "id": uuid.uuid4(), "tool_id": tool.id})
        Tool.objects.filter(pk=tool.pk).update(current_version=version)
    assert count_queries() == few


def test_a_long_list_is_counted_no_further_than_it_is_paged(console: Client) -> None:
    now = timezone.now()
    WorkerLease.objects.bulk_create(
        WorkerLease(name=f"worker-{number:05}", host="h", pid=1, expires_at=now) for number in range(MAX_LISTED + 5)
    )
    with capture_queries() as queries:
        response = get_page(console, "workerlease_changelist", p="200")
    changelist = response.context["cl"]
    assert (changelist.result_count, len(changelist.result_list)) == (MAX_LISTED, 50)
    assert "narrow the list" in response.content.decode()
    keys, rows = [query["sql"] for query in queries if 'FROM "tools_workerlease"' in query["sql"]]
    assert f"LIMIT {MAX_LISTED + 1}" in keys
    assert " IN (" in rows
    assert "COUNT(*)" not in keys + rows


@pytest.mark.parametrize("model", ["tool", "execution", "workerlease"])
def test_nothing_is_written_by_hand(console: Client, agent: Account, model: str) -> None:
    execution = run(agent)
    lease = WorkerLease.objects.create(name="worker-1@host", host="h", pid=1, expires_at=timezone.now())
    row: Any = {"tool": execution.tool, "execution": execution, "workerlease": lease}[model]
    before = type(row).objects.filter(pk=row.pk).values().get()
    name = f"admin:tools_{model}"
    fields = {"name": "x", "state": "disabled", "host": "x", "post": "yes"}
    assert console.post(reverse(f"{name}_add"), fields).status_code == 403
    assert console.post(reverse(f"{name}_change", args=[row.pk]), fields).status_code == 403
    assert console.post(reverse(f"{name}_delete", args=[row.pk]), fields).status_code == 403
    console.post(
        reverse(f"{name}_changelist"), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    )
    assert type(row).objects.filter(pk=row.pk).values().get() == before


def test_filters_narrow_the_list_of_runs(console: Client, agent: Account) -> None:
    other = create_service(username="other")
    good, bad = run(agent), run(agent, "text.search", input={"pattern": "(", "text": ""})
    urgent = accept_run(agent, priority=Priority.URGENT, mode=Execution.Mode.WAIT)
    others = run(other, "files.list", input={})
    old = run(agent)
    Execution.objects.filter(pk=old.pk).update(created_at=datetime(2026, 3, 14, 15, 9, 26, 535_000, tzinfo=UTC))
    everything = {row.pk for row in (good, bad, urgent, others, old)}
    words = good.tool_id
    cases: list[tuple[dict[str, Any], set[uuid.UUID]]] = [
        ({}, everything),
        ({"state": "failed"}, {bad.pk, *({others.pk} if others.state == "failed" else ())}),
        ({"state": ["failed", "queued"]}, {bad.pk, urgent.pk, *({others.pk} if others.state == "failed" else ())}),
        ({"state": "no such state"}, set()),
        ({"priority": "urgent"}, {urgent.pk}),
        ({"mode__exact": "wait"}, {urgent.pk}),
        ({"tool__id__exact": words}, {good.pk, urgent.pk, old.pk}),
        ({"tool__id__exact": words, "version": good.version_id}, {good.pk, urgent.pk, old.pk}),
        ({"requested_by__id__exact": other.pk}, {others.pk}),
        ({"created_at_from_0": "2026-03-14", "created_at_to_0": "2026-03-14"}, {old.pk}),
        ({"created_at_to_0": "2026-03-14", "created_at_to_1": "15:09:26"}, {old.pk}),
        ({"created_at_to_0": "2026-03-14", "created_at_to_1": "15:09:25"}, set()),
        ({"created_at_from_0": "2026-03-14", "created_at_from_1": "15:09:27"}, everything - {old.pk}),
        ({"created_at_from_0": "the ides of March"}, everything),
    ]
    for parameters, expected in cases:
        assert list_found(console, **parameters) == expected, parameters


def test_versions_are_a_filter_once_a_tool_is_chosen(console: Client, agent: Account) -> None:
    first = accept_run(agent)
    fields = ToolVersion.objects.filter(pk=first.version_id).values().get()
    second = ToolVersion.objects.create(**{**fields, "id": uuid.uuid4(), "version": "2.0.0"})
    newer = accept_run(agent, version="2.0.0")
    tool = first.tool_id
    assert list_found(console, tool__id__exact=tool, version=second.pk) == {newer.pk}
    assert list_found(console, tool__id__exact=tool, version="nonsense") == {first.pk, newer.pk}
    assert "2.0.0</option>" in re.sub(r"\s+", "", get_text(console, "execution_changelist", tool__id__exact=tool))


@pytest.mark.parametrize(
    "make_term",
    [
        lambda run: str(run.pk),
        lambda run: str(run.pk)[:13],
        lambda run: f"  {str(run.pk).upper()} ",
        lambda run: run.pk.hex,
        lambda run: run.trace_id,
        lambda run: run.message_id,
        lambda run: str(run.session_id),
        lambda _run: "TEXT.sea",
        lambda _run: "seek",
    ],
    ids=["id", "short id", "id in capitals", "id without dashes", "trace", "message", "session", "tool", "account"],
)
def test_a_run_is_found_by(console: Client, agent: Account, make_term: Callable[[Execution], str]) -> None:
    seeker = create_service(username="seeker")
    session = Session.objects.create(account=seeker, credential_id=uuid.uuid4(), channel="c")
    wanted = accept_run(
        seeker,
        "text.search",
        input={"pattern": "x", "text": "x"},
        session_id=session.id,
        message_id="9b1d-message",
    )
    other = accept_run(agent, trace_id="f" * 32)
    # Both may have been made in the same millisecond, which the short id is.
    ExecutionEvent.objects.filter(execution=other).delete()
    Execution.objects.filter(pk=other.pk).update(id=uuid.UUID(int=wanted.pk.int ^ (1 << 100)))
    assert list_found(console, q=make_term(wanted)) == {wanted.pk}


def test_a_search_that_finds_nothing_finds_nothing(console: Client, agent: Account) -> None:
    accept_run(agent)
    for term in ("nothing", str(uuid.uuid4()), "%", "'; --", "a" * 500):
        assert list_found(console, q=term) == set(), term


def test_a_search_is_within_the_filters(console: Client, agent: Account) -> None:
    waiting, ended = accept_run(agent), run(agent)
    assert list_found(console, q="count_words", state="queued") == {waiting.pk}
    assert list_found(console, q=str(ended.pk), state="queued") == set()


def test_a_tool_shows_its_versions(console: Client, agent: Account) -> None:
    tool = Tool.objects.get(name="text.search")
    fields = ToolVersion.objects.filter(tool=tool).values().get()
    ToolVersion.objects.create(
        **{
            **fields,
            "id": uuid.uuid4(),
            "version": "2.0.0",
            "state": "quarantined",
            "state_reason": "It differs.",
            "timeout_seconds": None,
        }
    )
    page = get_text(console, "tool_change", tool.pk)
    for shown in (
        fields["description"],
        fields["definition_hash"],
        fields["entry_point"],
        "&quot;pattern&quot;: {",
        "It differs.",
        "quarantined",
        "the server's default",
    ):
        assert shown in page
    assert "2 (1 quarantined)" in get_text(console, "tool_changelist")


@pytest.mark.parametrize("state", ["enabled", "disabled", "unavailable", "quarantined"])
def test_tools_are_filtered_by_the_state_that_callers_see(console: Client, state: str) -> None:
    names = {
        "enabled": "files.list",
        "disabled": "files.read",
        "unavailable": "text.search",
        "quarantined": "files.search",
    }
    tools = {name: Tool.objects.get(name=name) for name in names.values()}
    services.disable_tool(
        tool=tools["files.read"],
        reason="r",
        principal=get_account_principal(account=Account.objects.get(username="operator")),
        trace_id=uuid.uuid4().hex,
    )
    for name in ("text.search", "files.search"):
        new = {"text.search": "unavailable", "files.search": "quarantined"}[name]
        ToolVersion.objects.filter(tool=tools[name]).update(state=new)
    Tool.objects.exclude(name__in=names.values()).update(current_version=None, state="enabled")
    shown = get_page(console, "tool_changelist", state=state).context["cl"].result_list
    assert names[state] in {tool.name for tool in shown}
    assert not {tool.name for tool in shown} & (set(names.values()) - {names[state]})


def test_a_tool_without_a_version_has_a_page(console: Client) -> None:
    tool = Tool.objects.create(name="empty.tool")
    assert "unavailable" in get_text(console, "tool_change", tool.pk)
    assert "empty.tool" in get_text(console, "tool_changelist", state="unavailable")


def test_a_disabled_tool_is_refused_until_it_is_enabled(console: Client, agent: Account) -> None:
    tool = Tool.objects.get(name="text.count_words")
    address = reverse("admin:tools_tool_disable", args=[tool.pk])
    assert "reason" in console.get(address).content.decode()
    assert switch(console, tool, "disable", reason="").status_code == 200
    accept_run(agent)

    response = switch(console, tool, "disable", reason="Wrong <b>results</b>")
    assert response.headers["HX-Redirect"] == reverse("admin:tools_tool_change", args=[tool.pk])
    with pytest.raises(ToolUnavailable) as refusal:
        accept_run(agent)
    assert refusal.value.code == "tool.unavailable"
    page = get_text(console, "tool_change", tool.pk)
    assert "Wrong &lt;b&gt;results" in page
    assert address not in page
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.get_username()) == (str(tool.pk), "operator")
    assert "Wrong" in entry.get_change_message()

    switch(console, tool, "disable", reason="again")
    tool.refresh_from_db()
    assert tool.disabled_reason == "Wrong <b>results</b>"

    console.get(reverse("admin:tools_tool_enable", args=[tool.pk]))
    with pytest.raises(ToolUnavailable):
        accept_run(agent)
    switch(console, tool, "enable")
    accept_run(agent)
    switch(console, tool, "enable")
    tool.refresh_from_db()
    assert (tool.state, tool.disabled_reason) == ("enabled", "")
    assert LogEntry.objects.count() == 2


def test_switching_needs_its_permission_and_looking_another(client: Client, agent: Account) -> None:
    clerk = create_person(is_staff=True)
    client.force_login(clerk)
    tool = Tool.objects.get(name="text.search")
    execution = accept_run(agent)
    addresses = [reverse(f"admin:tools_{model}_changelist") for model in ("tool", "execution", "workerlease")]
    assert [client.get(address).status_code for address in addresses] == [403, 403, 403]
    assert switch(client, tool, "disable", reason="r").status_code == 403

    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_tool", "view_execution"]))
    assert [client.get(address).status_code for address in addresses] == [200, 200, 403]
    page = get_text(client, "execution_change", execution.pk)
    assert reverse("admin:security_account_change", args=[agent.pk]) not in page
    assert reverse("admin:tools_tool_disable", args=[tool.pk]) not in get_text(client, "tool_change", tool.pk)
    assert switch(client, tool, "disable", reason="r").status_code == 403
    tool.refresh_from_db()
    assert tool.state == Tool.State.ENABLED

    clerk.user_permissions.add(Permission.objects.get(codename="change_tool"))
    switch(client, tool, "disable", reason="r")
    tool.refresh_from_db()
    assert tool.state == Tool.State.DISABLED
    assert client.post(reverse("admin:tools_tool_change", args=[tool.pk]), {"name": "x"}).status_code == 403


def test_workers_are_alive_or_lapsed(console: Client) -> None:
    services.take_lease(name="worker-1@host", host="host", pid=4711)
    WorkerLease.objects.create(name="gone", host="h", pid=1, expires_at=timezone.now() - timedelta(seconds=1))
    page = get_text(console, "workerlease_changelist")
    assert "alive" in page
    assert "lapsed" in page
    assert "4711" in get_text(console, "workerlease_change", "worker-1@host")
