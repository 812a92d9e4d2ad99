"""Levels that tools and roles demand, labels that grants name, and conditions, at every door."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from protocol.domain.messages import SecurityLevel
from protocol.errors import MCPError
from security.domain.authorization import AccountPrincipal
from security.domain.policy import GrantRule
from security.models import Account, AuditEvent, Role
from security.selectors import get_account_principal
from tests.factories import allow, create_role, create_service, deny, issue_key
from tools import selectors, services
from tools.errors import ToolNotFound
from tools.models import Execution, Tool

pytestmark = pytest.mark.django_db

NAME = "text.count_words"


@pytest.fixture
def tool() -> Tool:
    services.synchronise_tools()
    return Tool.objects.get(name=NAME)


def mark(tool: Tool, *labels: str, level: str = "", by: Account | None = None) -> None:
    services.mark_tool(
        tool=tool,
        labels=labels,
        minimum_level=level,
        principal=get_account_principal(account=by or create_service()),
        trace_id="t",
    )


def make_caller(
    grants: Sequence[GrantRule] = (), *, level: str = "standard", address: str = "192.0.2.7", role_level: str = ""
) -> AccountPrincipal:
    """A principal of a new account whose one role has these grants, as it is read back from the database."""
    role = create_role(grants=grants)
    if role_level:
        Role.objects.filter(pk=role.pk).update(minimum_level=role_level)
    account = create_service(roles=[role.name])
    return dataclasses.replace(
        get_account_principal(account=account, remote_address=address), security_level=SecurityLevel(level)
    )


def execute(principal: AccountPrincipal) -> Any:
    return services.accept_execution(
        request=services.ExecutionRequest(
            principal=principal,
            tool=NAME,
            version=None,
            input={"text": "a"},
            mode=Execution.Mode.QUEUE,
            trace_id="t",
        )
    )


def get_refusal(principal: AccountPrincipal) -> tuple[str, Any]:
    with pytest.raises(MCPError) as caught:
        execute(principal)
    return caught.value.code, caught.value.details.get("security_level")


TOO_LOW = "security.security_level_too_low"
EVERYTHING = [allow("*")]


@pytest.mark.parametrize("who", ["operator", "author", "both", "role", "grant"])
def test_a_call_below_the_demanded_level_is_told_which_is(tool: Tool, who: str) -> None:
    role_level, grants = "", list(EVERYTHING)
    if who in ("operator", "both"):
        mark(tool, level="high")
    if who in ("author", "both"):
        level = "standard" if who == "both" else "high"
        tool.versions.update(minimum_level=level)
        selectors.get_definition.cache_clear()
    if who == "role":
        role_level, grants = "high", [allow("tools.execute")]
    if who == "grant":
        grants = [allow("tools.execute")]
    caller, higher = (make_caller(grants, level=level, role_level=role_level) for level in ("standard", "high"))
    if who in ("role", "grant"):
        for principal in (caller, higher):
            principal_roles = Role.objects.filter(name__in=principal.roles)
            for role in principal_roles:
                conditions = {"minimum_level": "high"} if who == "grant" else {}
                role.grants.update(conditions=conditions)
            viewing = create_role(grants=[allow("tools.view", "tool:*")])
            Account.objects.get(pk=principal.id).roles.add(viewing)
        caller, higher = (
            dataclasses.replace(
                get_account_principal(account=Account.objects.get(pk=principal.id)),
                security_level=principal.security_level,
            )
            for principal in (caller, higher)
        )
    assert get_refusal(caller) == (TOO_LOW, "high")
    assert execute(higher)
    selectors.get_definition.cache_clear()


def test_an_operator_only_raises_what_the_author_demands(tool: Tool) -> None:
    tool.versions.update(minimum_level="critical")
    selectors.get_definition.cache_clear()
    mark(tool, level="high")
    assert get_refusal(make_caller(EVERYTHING, level="high")) == (TOO_LOW, "critical")
    described = selectors.describe_tool(principal=make_caller(EVERYTHING), name=NAME, version=None)
    assert described.security_level == "critical"
    selectors.get_definition.cache_clear()


def test_who_would_not_be_allowed_at_any_level_is_told_of_none(tool: Tool) -> None:
    mark(tool, level="critical")
    assert get_refusal(make_caller([allow("tools.view")])) == ("security.access_denied", None)
    assert get_refusal(make_caller([allow("tools.execute")])) == ("tool.not_found", None)
    assert get_refusal(make_caller([*EVERYTHING, deny("tools.execute")])) == ("security.access_denied", None)


def test_labels_give_and_take(tool: Tool) -> None:
    only = make_caller([allow("*", "tool:*@label=production")])
    but = make_caller([*EVERYTHING, deny("*", "tool:*@label=production")])
    assert get_refusal(only)[0] == "tool.not_found"
    assert execute(but)
    mark(tool, "production", "slow")
    assert execute(dataclasses.replace(only))
    assert get_refusal(dataclasses.replace(but))[0] == "tool.not_found"
    for principal, names in ((only, [NAME]), (make_caller([allow("*", "tool:*@label=other")]), [])):
        page = selectors.list_tools(
            principal=dataclasses.replace(principal), capability=None, query=None, state=None, cursor=None, limit=200
        )
        assert [found.name for found in page.tools] == names
    described = selectors.describe_tool(principal=dataclasses.replace(only), name=NAME, version=None)
    assert described.labels == ["production", "slow"]


@pytest.mark.parametrize("version", [None, "1.0.0"])
def test_what_a_label_hides_is_as_what_is_not_there(tool: Tool, version: str | None) -> None:
    caller = make_caller([*EVERYTHING, deny("tools.view", "tool:*@label=secret")])
    mark(tool, "secret")
    errors = []
    for name in (NAME, "text.no_such_tool"):
        with pytest.raises(ToolNotFound) as caught:
            selectors.describe_tool(principal=caller, name=name, version=version)
        errors.append((caught.value.code, caught.value.message))
    assert errors[0] == errors[1]


def test_conditions_of_a_stored_grant_count(tool: Tool) -> None:
    inside = {"networks": ["192.0.2.0/24"]}
    role = create_role(grants=EVERYTHING)
    role.grants.update(conditions=inside)
    account = create_service(roles=[role.name])
    assert execute(get_account_principal(account=account, remote_address="192.0.2.7"))
    for address in ("198.51.100.9", None):
        assert get_refusal(get_account_principal(account=account, remote_address=address))[0] == "tool.not_found"
    role.grants.update(conditions={"unheard_of": 1})
    assert get_refusal(get_account_principal(account=account, remote_address="192.0.2.7"))[0] == "tool.not_found"
    role.grants.update(effect="deny")
    role.grants.create(effect="allow", action_pattern="*", resource_pattern="*:*", conditions=inside)
    assert get_refusal(get_account_principal(account=account, remote_address="192.0.2.7"))[0] == "tool.not_found"


@pytest.mark.parametrize("labels", [["Production"], ["a b"], [""], ["x" * 51], [f"l{n}" for n in range(21)], ["a@b"]])
def test_what_is_no_label_is_not_given(tool: Tool, labels: list[str]) -> None:
    with pytest.raises(ValidationError):
        mark(tool, *labels)
    tool.refresh_from_db()
    assert tool.labels == []


def test_the_console_marks_a_tool_on_record(console: Client, operator: Account, tool: Tool) -> None:
    page = reverse("admin:tools_tool_mark", args=[tool.pk])
    fields = {"_form_submitted": "on", "labels": "production  slow", "minimum_level": "high"}
    console.post(page, fields)
    console.post(page, fields)
    tool.refresh_from_db()
    assert (tool.labels, tool.minimum_level) == (["production", "slow"], "high")
    event = AuditEvent.objects.get(action="tools.mark")
    assert (event.actor_id, event.resource_name) == (operator.id, NAME)
    assert "production" in console.get(reverse("admin:tools_tool_change", args=[tool.pk])).content.decode()
    console.post(page, {**fields, "labels": "NO"})
    tool.refresh_from_db()
    assert tool.labels == ["production", "slow"]


def test_the_console_is_told_of_a_level_it_has_not(console: Client, tool: Tool) -> None:
    mark(tool, level="high")
    page = reverse("admin:tools_tool_run", args=[tool.pk])
    form = console.get(page).context["form"]
    answer = console.post(
        page, {"version": "1.0.0", "way": "json", "key": "0" * 32, "input": '{"text": "a"}', "json": '{"text": "a"}'}
    )
    assert form is not None
    assert answer.status_code == 200
    assert not Execution.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_rest_is_told_of_a_level_it_has_not(client: Client) -> None:
    services.synchronise_tools()
    mark(Tool.objects.get(name=NAME), level="high")
    answer = client.post(
        f"/api/v1/tools/{NAME}/execute/",
        b'{"input": {"text": "a"}}',
        content_type="application/json",
        headers={"host": "localhost", "authorization": f"Bearer {issue_key().secret}"},
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (403, TOO_LOW)
    assert problem["details"]["security_level"] == "high"
