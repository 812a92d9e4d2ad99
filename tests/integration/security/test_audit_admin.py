"""The console's page of the audit record, as a browser uses it."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from protocol.ports import Resource
from security import services
from security.models import Account, AuditEvent, AuditSeal
from security.selectors import get_account_principal
from security.services.audit import record_event
from tests.factories import create_person, create_service
from tests.keys import ensure_keys
from tests.queries import capture_queries

pytestmark = pytest.mark.django_db

LIST = "admin:security_auditevent_changelist"
HOSTILE = "</pre><script>alert(1)</script>"


def record(
    account: Account | None = None,
    action: str = "tools.disable",
    resource: tuple[str, str] = ("tool", "text.search"),
    outcome: str = "disabled",
    **fields: Any,
) -> AuditEvent:
    principal = None if account is None else get_account_principal(account=account)
    fields.setdefault("trace_id", uuid.uuid4().hex)
    kind, name = resource
    return record_event(
        action=action, principal=principal, resource=Resource(kind=kind, name=name), outcome=outcome, **fields
    )


def get_text(client: Client, name: str, *arguments: object) -> str:
    response = client.get(reverse(name, args=arguments))
    assert response.status_code == 200, response.headers
    return response.content.decode()


def list_found(client: Client, **parameters: str) -> set[uuid.UUID]:
    response = client.get(reverse(LIST), parameters)
    assert response.status_code == 200, response.headers
    return {row.pk for row in response.context["cl"].result_list}


def test_an_event_is_told_in_full(console: Client) -> None:
    account = create_service(username="finder")
    event = record(account, data={"reason": "Wrong results."})
    page = get_text(console, "admin:security_auditevent_change", event.pk)
    for shown in (
        "finder",
        str(account.pk),
        "tools.disable",
        "tool:text.search",
        "disabled",
        event.trace_id,
        "&quot;reason&quot;: &quot;Wrong results.&quot;",
    ):
        assert shown in page
    listed = get_text(console, LIST)
    for shown in ("finder", "tools.disable", "tool:text.search", event.trace_id):
        assert shown in listed
    assert "the server" not in listed
    record(action="execution.ended", resource=("execution", "x"), outcome="failed")
    assert "the server" in get_text(console, LIST)


def test_the_newest_comes_first(console: Client) -> None:
    events = [record() for _ in range(3)]
    rows = console.get(reverse(LIST)).context["cl"].result_list
    assert [row.pk for row in rows] == [event.pk for event in reversed(events)]


def test_filters_narrow_the_list(console: Client) -> None:
    finder, other = create_service(username="finder"), create_service(username="finder-2")
    off, on = record(finder), record(other, "tools.enable", outcome="enabled")
    run = record(finder, "tools.execute", ("tool", "files.list"), "accepted")
    end = record(None, "execution.ended", ("execution", "x"), "succeeded")
    everything = {event.pk for event in (off, on, run, end)}
    for parameters, expected in [
        ({}, everything),
        ({"action": "tools.disable"}, {off.pk}),
        ({"action": " tools. "}, {off.pk, on.pk, run.pk}),
        ({"action": "e"}, {end.pk}),
        ({"action": "nothing"}, set()),
        ({"action": " "}, everything),
        ({"outcome": "accepted"}, {run.pk}),
        ({"outcome": "accept"}, set()),
        ({"actor": "Finder"}, {off.pk, run.pk}),
        ({"actor": "nobody"}, set()),
        ({"actor": "finder", "action": "tools.e"}, {run.pk}),
        ({"actor": "finder", "outcome": "succeeded"}, set()),
    ]:
        assert list_found(console, **parameters) == expected, parameters


def test_an_account_is_found_under_its_name_of_now_and_of_then(console: Client) -> None:
    account = create_service(username="earlier")
    before = record(account)
    Account.objects.filter(pk=account.pk).update(username="later")
    account.refresh_from_db()
    after = record(account)
    record(create_service())
    assert list_found(console, actor="later") == {before.pk, after.pk}
    assert list_found(console, q="earlier") == {before.pk}


def test_events_are_searched(console: Client) -> None:
    execution = str(uuid.uuid4())
    wanted = record(create_service(username="finder"), "executions.cancel", ("execution", execution), "kill")
    record(create_service(username="other"))
    for term in (execution, execution[:13], execution.upper(), "finder", "FIND", wanted.trace_id):
        assert list_found(console, q=term) == {wanted.pk}, term
    for term in ("nothing", wanted.trace_id[:8], "%", "'; --"):
        assert list_found(console, q=term) == set(), term


def test_nothing_is_written_by_hand(console: Client) -> None:
    event = record()
    before = AuditEvent.objects.values().get(pk=event.pk)
    fields = {"action": "x", "outcome": "x", "actor_name": "x", "post": "yes"}
    assert console.post(reverse("admin:security_auditevent_add"), fields).status_code == 403
    assert console.post(reverse("admin:security_auditevent_change", args=[event.pk]), fields).status_code == 403
    assert console.post(reverse("admin:security_auditevent_delete", args=[event.pk]), fields).status_code == 403
    console.post(reverse(LIST), {"action": "delete_selected", "_selected_action": [event.pk], "post": "yes"})
    assert AuditEvent.objects.values().get(pk=event.pk) == before
    assert set(AuditEvent.objects.exclude(pk=event.pk).values_list("action", flat=True)) == {"access.deny"}
    page = get_text(console, "admin:security_auditevent_change", event.pk)
    assert 'name="_save"' not in page
    assert reverse("admin:security_auditevent_delete", args=[event.pk]) not in page


def test_looking_needs_its_permission(client: Client) -> None:
    event = record()
    addresses = [reverse(LIST), reverse("admin:security_auditevent_change", args=[event.pk])]
    clerk = create_person(is_staff=True)
    assert client.get(addresses[0]).headers["Location"].startswith(reverse("admin:login"))
    client.force_login(clerk)
    assert [client.get(address).status_code for address in addresses] == [403, 403]
    assert addresses[0] not in get_text(client, "admin:index")
    clerk.user_permissions.set(Permission.objects.filter(codename="view_auditevent"))
    assert [client.get(address).status_code for address in addresses] == [200, 200]
    assert addresses[0] in get_text(client, "admin:index")


def test_nothing_that_is_recorded_becomes_markup(console: Client) -> None:
    event = AuditEvent.objects.create(
        action=HOSTILE,
        resource_kind=HOSTILE,
        resource_name=HOSTILE,
        outcome=HOSTILE,
        trace_id=HOSTILE[:32],
        data_json=json.dumps({HOSTILE: HOSTILE}),
    )
    for page in (get_text(console, LIST), get_text(console, "admin:security_auditevent_change", event.pk)):
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_the_list_asks_the_same_of_the_database_however_long_it_is(console: Client) -> None:
    def count_queries() -> int:
        with capture_queries() as queries:
            get_text(console, LIST)
        return len(queries)

    record()
    count_queries()
    few = count_queries()
    for _ in range(10):
        record(create_service())
    assert count_queries() == few


def test_the_chain_is_shown_and_searched_by_position(console: Client) -> None:
    ensure_keys()
    for _ in range(3):
        record_event(action="execution.ended", resource=Resource(kind="execution", name="x"), outcome="done")
    services.seal_events()
    page = console.get("/admin/security/auditevent/").content.decode()
    assert "As it was sealed" in page
    services.sign_chain(interval=timedelta(0))
    seal = AuditSeal.objects.get(position=2)
    page = console.get(f"/admin/security/auditevent/{seal.event_id}/change/").content.decode()
    assert seal.hash in page
    assert "As it was sealed, up to the signed head 1" in page
    found = console.get("/admin/security/auditevent/", {"q": "2"}).context["cl"].result_list
    assert [event.id for event in found] == [seal.event_id]
