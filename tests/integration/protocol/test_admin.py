"""The console's pages of sessions and outboxes, as a browser uses them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from protocol import outbox
from protocol.domain.messages import ClientInfo, ResponsePayload
from protocol.domain.states import Close
from protocol.models import OutboxMessage, Session
from protocol.sessions import LOST_AFTER, end_session, open_session
from security.models import Account
from security.selectors import get_account_principal
from tests.factories import create_person, create_service
from tests.queries import capture_queries

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def agent() -> Account:
    return create_service(username="finder")


def get_page(client: Client, name: str, *arguments: object, **parameters: Any) -> Any:
    response = client.get(reverse(f"admin:protocol_{name}", args=arguments), parameters)
    assert response.status_code == 200, response.headers
    return response


def get_text(client: Client, name: str, *arguments: object, **parameters: Any) -> str:
    text: str = get_page(client, name, *arguments, **parameters).content.decode()
    return text


def connect(agent: Account, *, name: str = "shell", address: str = "192.0.2.7") -> Session:
    return open_session(
        principal=get_account_principal(account=agent),
        channel="specific.1",
        client=ClientInfo(name=name, version="2.1"),
        remote_address=address,
    )


def append(session: Session, *, command: str = "run-17", result: object = None) -> OutboxMessage:
    appended = outbox.append(
        session_id=session.id, correlation_id=command, payload=ResponsePayload("tools.execute", {"output": result})
    )
    assert appended is not None
    return OutboxMessage.objects.get(session=session, sequence=appended.entry.sequence)


def list_found(client: Client, **parameters: Any) -> set[uuid.UUID]:
    return {row.pk for row in get_page(client, "session_changelist", **parameters).context["cl"].result_list}


def test_who_is_connected_can_be_seen(console: Client, agent: Account) -> None:
    session, ended = connect(agent), connect(agent, name="browser")
    end_session(session_id=ended.id, close_code=1000)
    page = get_text(console, "session_changelist")
    for shown in ("shell 2.1", "browser 2.1", "finder", "192.0.2.7", "connected", "1000: asked for"):
        assert shown in page
    assert list_found(console, connected="yes") == {session.pk}
    assert list_found(console, connected="no") == {ended.pk}
    assert list_found(console, connected="perhaps") == {session.pk, ended.pk}


def test_a_session_whose_process_says_nothing_is_lost(console: Client, agent: Account) -> None:
    session = connect(agent)
    Session.objects.filter(pk=session.pk).update(seen_at=timezone.now() - LOST_AFTER - timedelta(seconds=1))
    assert ">lost<" in "".join(get_text(console, "session_changelist").split())


@pytest.mark.parametrize(
    ("code", "told"),
    [(close.code, close.value.meaning) for close in Close]
    + [(1001, "went away"), (1006, "lost"), (3999, "of the client"), (None, "its process was lost")],
)
def test_how_a_session_ended_is_told(console: Client, agent: Account, code: int | None, told: str) -> None:
    session = connect(agent)
    end_session(session_id=session.id, close_code=code)
    for page in (get_text(console, "session_changelist"), get_text(console, "session_change", session.pk)):
        assert told in page
        assert code is None or f"{code}: " in page


def test_a_session_leads_to_its_account_and_its_runs(console: Client, agent: Account) -> None:
    session = connect(agent)
    append(session)
    page = get_text(console, "session_change", session.pk)
    assert reverse("admin:security_account_change", args=[agent.pk]) in page
    assert f"{reverse('admin:tools_execution_changelist')}?q={session.pk}" in page
    assert str(session.credential_id) in page


def test_sessions_are_found_by_account_client_address_and_id(console: Client, agent: Account) -> None:
    session = connect(agent)
    connect(create_service(username="other"), name="browser", address="198.51.100.1")
    for term in ("FIND", "shell", "192.0.2", str(session.pk)):
        assert list_found(console, q=term) == {session.pk}, term
    for term in ("nobody", str(uuid.uuid4())):
        assert list_found(console, q=term) == set(), term


def test_what_a_session_is_owed_can_be_read(console: Client, agent: Account) -> None:
    message = append(connect(agent), result=HOSTILE)
    assert "run-17" in get_text(console, "outboxmessage_changelist")
    assert list(get_page(console, "outboxmessage_changelist", q="run-17").context["cl"].result_list) == [message]
    page = get_text(console, "outboxmessage_change", message.pk)
    assert "&quot;command&quot;: &quot;tools.execute&quot;" in page
    assert "&lt;script&gt;alert" in page
    assert HOSTILE not in page


def test_what_clients_call_themselves_never_becomes_markup(console: Client, agent: Account) -> None:
    session = connect(agent, name=HOSTILE)
    message = append(session, command="<b>")
    for page in (
        get_text(console, "session_changelist"),
        get_text(console, "session_change", session.pk),
        get_text(console, "outboxmessage_changelist"),
        get_text(console, "outboxmessage_change", message.pk),
    ):
        assert HOSTILE not in page
        assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("name", ["session_changelist", "outboxmessage_changelist"])
def test_lists_ask_the_same_of_the_database_however_long_they_are(console: Client, name: str) -> None:
    def count_queries() -> int:
        with capture_queries() as queries:
            get_page(console, name)
        assert not [query for query in queries if '"payload"' in query["sql"]]
        return len(queries)

    append(connect(create_service()))
    count_queries()
    few = count_queries()
    for _ in range(20):
        append(connect(create_service()))
    assert count_queries() == few


@pytest.mark.parametrize("model", [Session, OutboxMessage])
def test_nothing_is_written_by_hand(console: Client, agent: Account, model: type[Session | OutboxMessage]) -> None:
    message = append(connect(agent))
    row: Any = message.session if model is Session else message
    name = f"admin:protocol_{model._meta.model_name}"
    before = model.objects.filter(pk=row.pk).values().get()
    fields = {"ended_at_0": "2026-01-01", "ended_at_1": "00:00", "client_name": "x", "sequence": "9", "post": "yes"}
    assert console.post(reverse(f"{name}_add"), fields).status_code == 403
    assert console.post(reverse(f"{name}_change", args=[row.pk]), fields).status_code == 403
    assert console.post(reverse(f"{name}_delete", args=[row.pk]), fields).status_code == 403
    console.post(
        reverse(f"{name}_changelist"), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    )
    assert model.objects.filter(pk=row.pk).values().get() == before


def test_looking_needs_the_permission(client: Client, agent: Account) -> None:
    session = connect(agent)
    clerk = create_person(is_staff=True)
    client.force_login(clerk)
    assert client.get(reverse("admin:protocol_session_changelist")).status_code == 403
    clerk.user_permissions.set(Permission.objects.filter(codename="view_session", content_type__app_label="protocol"))
    page = get_text(client, "session_change", session.pk)
    assert reverse("admin:tools_execution_changelist") not in page
    assert client.get(reverse("admin:protocol_outboxmessage_changelist")).status_code == 403


def test_a_connection_is_closed_from_its_sessions_page(console: Client, agent: Account) -> None:
    session = connect(agent)
    address = reverse("admin:protocol_session_close_connection", args=[session.pk])
    assert address in get_text(console, "session_change", session.pk)
    console.get(address)
    session.refresh_from_db()
    assert session.ended_at is None
    response = console.post(address, {"_form_submitted": "on"})
    assert response.headers["HX-Redirect"] == reverse("admin:protocol_session_change", args=[session.pk])
    session.refresh_from_db()
    assert session.close_code == Close.REVOKED.code
    page = get_text(console, "session_change", session.pk)
    assert address not in page
    assert "4403" in page
    assert LogEntry.objects.get().object_id == str(session.pk)
    console.post(address, {"_form_submitted": "on"})
    assert LogEntry.objects.count() == 1
    unknown = reverse("admin:protocol_session_close_connection", args=[uuid.uuid4()])
    assert console.post(unknown, {"_form_submitted": "on"}).status_code == 404


def test_closing_a_connection_needs_its_permission(client: Client, agent: Account) -> None:
    session = connect(agent)
    clerk = create_person(is_staff=True)
    client.force_login(clerk)
    clerk.user_permissions.set(Permission.objects.filter(codename="view_session", content_type__app_label="protocol"))
    address = reverse("admin:protocol_session_close_connection", args=[session.pk])
    assert address not in get_text(client, "session_change", session.pk)
    assert client.post(address, {"_form_submitted": "on"}).status_code == 403
    session.refresh_from_db()
    assert session.ended_at is None
