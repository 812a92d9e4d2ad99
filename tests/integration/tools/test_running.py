"""Running a tool from its page in the console, as a browser does."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from security.models import Account, AuditEvent
from tests.factories import create_person
from tools import services
from tools.models import Execution, Tool, ToolVersion

pytestmark = pytest.mark.django_db

HOSTILE = "</textarea><script>alert(1)</script>"
KEY = re.compile(r'name="key" value="([0-9a-f]{32})"')
WORDS = {"input-0": "one two"}


@pytest.fixture(autouse=True)
def _tools() -> None:
    services.synchronise_tools()


def get_address(tool: str, name: str = "run") -> str:
    return reverse(f"admin:tools_tool_{name}", args=[Tool.objects.get(name=tool).pk])


def get_page(client: Client, tool: str = "text.count_words", **parameters: str) -> str:
    response = client.get(get_address(tool), parameters)
    assert response.status_code == 200
    return response.content.decode()


def send(client: Client, tool: str = "text.count_words", *, way: str = "fields", **fields: str) -> Any:
    sent = {"version": "1.0.0", "way": way, "key": uuid.uuid4().hex, **fields}
    return client.post(get_address(tool), sent)


def get_run(response: Any) -> Execution:
    assert response.status_code == 302, response.context["form"].errors
    execution = Execution.objects.latest("created_at")
    assert response.headers["Location"] == reverse("admin:tools_execution_change", args=[execution.pk])
    return execution


def list_errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    assert not Execution.objects.exists()
    errors: dict[str, list[str]] = response.context["form"].errors
    return errors


def change_schema(tool: str, schema: dict[str, Any]) -> None:
    """As a new version, since definitions are kept by the process."""
    fields = ToolVersion.objects.filter(tool__name=tool).values().get()
    version = ToolVersion.objects.create(**{**fields, "id": uuid.uuid4(), "version": "2.0.0", "input_schema": schema})
    Tool.objects.filter(name=tool).update(current_version=version)


def test_a_tool_is_run_with_what_was_typed(console: Client, operator: Account) -> None:
    assert get_address("text.count_words") in console.get(get_address("text.count_words", "change")).content.decode()
    execution = get_run(send(console, **WORDS))
    assert json.loads(execution.input_json) == {"text": "one two"}
    assert (execution.requested_by, execution.mode, execution.state) == (operator, "queue", "queued")
    event = AuditEvent.objects.get(action="tools.execute")
    assert (event.actor_id, event.outcome) == (operator.pk, "accepted")
    services.run_execution(execution_id=execution.id, worker="worker-1@host")
    assert (
        "&quot;words&quot;: 2"
        in console.get(reverse("admin:tools_execution_change", args=[execution.pk])).content.decode()
    )


def test_fields_are_what_the_schema_has(console: Client) -> None:
    page = get_page(console, "text.search")
    for shown in (
        "ignore_case",
        "Where to stop.",
        'max="1000"',
        'min="1"',
        'value="100"',
        "required",
        'maxlength="1000"',
    ):
        assert shown in page
    execution = get_run(
        send(console, "text.search", **{"input-0": "x", "input-1": "a\r\nx", "input-2": "true", "input-3": ""})
    )
    assert json.loads(execution.input_json) == {"pattern": "x", "text": "a\nx", "ignore_case": True}


def test_an_input_is_written_as_json_too(console: Client) -> None:
    assert "&quot;text&quot;: &quot;&quot;" in get_page(console, way="json")
    execution = get_run(send(console, way="json", input='{"text": "a"}'))
    assert json.loads(execution.input_json) == {"text": "a"}


def test_a_form_that_is_sent_twice_makes_one_run(console: Client) -> None:
    key = KEY.findall(get_page(console))[0]
    first, second = (get_run(send(console, key=key, **WORDS)) for _ in range(2))
    assert first == second
    assert Execution.objects.count() == 1
    other = send(console, key=key, **{"input-0": "three"})
    assert "protocol.duplicate_id" in other.content.decode()
    assert KEY.findall(other.content.decode()) != [key]
    assert Execution.objects.count() == 1


def test_what_the_version_does_not_take_is_said_at_its_field(console: Client) -> None:
    response = send(console, "text.search", **{"input-0": "", "input-1": "kept as typed", "input-3": "9999"})
    errors = list_errors(response)
    assert set(errors) == {"input-0", "input-3", "__all__"}
    assert "tool.invalid_input" in errors["__all__"][0]
    assert "kept as typed" in response.content.decode()
    assert set(list_errors(send(console, "text.search", **{"input-3": "many"}))) == {"input-3"}
    errors = list_errors(send(console, way="json", input='{"text": 1}'))
    assert errors["input"][0].startswith("/text: ")
    assert "is not JSON" in list_errors(send(console, way="json", input="{"))["input"][0]
    assert list_errors(send(console, way="json", input="[]"))["input"]


def test_a_schema_without_fields_is_written_as_json(console: Client) -> None:
    change_schema("text.count_words", {"type": "object", "properties": {"a": {}}, "oneOf": [{"required": ["a"]}]})
    page = get_page(console)
    assert 'name="input"' in page
    assert "way=fields" not in page


def test_another_version_may_be_chosen(console: Client) -> None:
    change_schema("text.count_words", {"type": "object", "properties": {"newer": {"type": "string"}}})
    assert "newer" in get_page(console)
    assert "newer" not in get_page(console, version="1.0.0")
    assert console.get(get_address("text.count_words"), {"version": "9"}).status_code == 404
    assert get_run(send(console, version="1.0.0", **WORDS)).version.version == "1.0.0"


@pytest.mark.parametrize(
    "wrong", [{"key": "../.."}, {"key": ""}, {"way": "post"}, {"version": ""}], ids=["key", "no key", "way", "version"]
)
def test_what_no_page_sends_is_refused(console: Client, wrong: dict[str, str]) -> None:
    assert send(console, **{**WORDS, **wrong}).status_code == 400
    assert not Execution.objects.exists()


def test_a_disabled_tool_is_not_offered_and_refused_with_its_reason(console: Client) -> None:
    tool = Tool.objects.get(name="text.count_words")
    Tool.objects.filter(pk=tool.pk).update(state="disabled", disabled_reason="It lies")
    assert get_address(tool.name) not in console.get(get_address(tool.name, "change")).content.decode()
    assert "It lies" in get_page(console)
    assert list_errors(send(console, **WORDS))["__all__"] == [
        "Refused: The tool is disabled: It lies. (tool.unavailable)"
    ]


def test_running_needs_the_policy_and_looking_the_permission(client: Client) -> None:
    clerk = create_person(is_staff=True)
    assert send(client, **WORDS).headers["Location"].startswith(reverse("admin:login"))
    client.force_login(clerk)
    clerk.user_permissions.set(Permission.objects.filter(codename="view_tool"))
    page = client.get(get_address("text.count_words", "change")).content.decode()
    assert get_address("text.count_words") not in page
    assert client.get(get_address("text.count_words")).status_code == 403
    assert send(client, **WORDS).status_code == 403

    other = create_person(is_staff=True, roles=["operator"])
    client.force_login(other)
    assert send(client, **WORDS).status_code == 403
    other.user_permissions.set(Permission.objects.filter(codename="view_tool"))
    assert send(client, **WORDS).status_code == 302
    assert client.get(reverse("admin:tools_tool_run", args=[uuid.uuid4()])).status_code == 403


def test_nothing_of_a_tool_or_of_what_is_typed_becomes_markup(console: Client) -> None:
    change_schema(
        "text.count_words",
        {
            "type": "object",
            "properties": {
                HOSTILE: {"type": "string", "description": HOSTILE, "title": HOSTILE, "default": HOSTILE},
                "choice": {"enum": [HOSTILE]},
            },
        },
    )
    ToolVersion.objects.filter(version="2.0.0").update(description=HOSTILE)
    for page in (
        get_page(console),
        get_page(console, way="json"),
        send(console, version="2.0.0", way="json", input=HOSTILE).content.decode(),
        send(console, version="2.0.0", **{"input-0": HOSTILE, "input-1": HOSTILE}).content.decode(),
    ):
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page
