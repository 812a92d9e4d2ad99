"""What the audit record has of an operator's switching of tools."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse

from security.models import Account, AuditEvent
from security.selectors import get_account_principal
from tools import services
from tools.models import Tool

pytestmark = pytest.mark.django_db


@pytest.fixture
def tool() -> Tool:
    services.synchronise_tools()
    return Tool.objects.get(name="text.search")


def switch(client: Client, tool_id: object, action: str, **fields: str) -> Any:
    return client.post(reverse(f"admin:tools_tool_{action}", args=[tool_id]), {"_form_submitted": "on", **fields})


def list_recorded() -> list[tuple[str, str, dict[str, Any]]]:
    events = AuditEvent.objects.exclude(action="tools.register").order_by("id")
    return [(event.action, event.outcome, json.loads(event.data_json)) for event in events]


def test_each_switch_is_recorded_once_with_who_did_it(console: Client, operator: Account, tool: Tool) -> None:
    disabled = ("tools.disable", "disabled", {"reason": "Wrong."})
    enabled: tuple[str, str, dict[str, Any]] = ("tools.enable", "enabled", {})
    switch(console, tool.pk, "disable", reason="Wrong.")
    assert list_recorded() == [disabled]
    switch(console, tool.pk, "disable", reason="again")
    assert list_recorded() == [disabled]
    switch(console, tool.pk, "enable")
    switch(console, tool.pk, "enable")
    assert list_recorded() == [disabled, enabled]
    events = list(AuditEvent.objects.exclude(action="tools.register"))
    for event in events:
        assert (event.actor_id, event.actor_name) == (operator.id, "operator")
        assert (event.resource_kind, event.resource_name) == ("tool", "text.search")
        assert len(event.trace_id) == 32
    assert len({event.trace_id for event in events}) == 2


def test_what_cannot_be_recorded_is_not_done(operator: Account, tool: Tool) -> None:
    principal = get_account_principal(account=operator)
    unrecordable: Any = None
    with pytest.raises(IntegrityError):
        services.disable_tool(tool=tool, reason="r", principal=principal, trace_id=unrecordable)
    tool.refresh_from_db()
    assert (tool.state, tool.disabled_reason) == ("enabled", "")

    services.disable_tool(tool=tool, reason="r", principal=principal, trace_id=uuid.uuid4().hex)
    with pytest.raises(IntegrityError):
        services.enable_tool(tool=tool, principal=principal, trace_id=unrecordable)
    tool.refresh_from_db()
    assert (tool.state, tool.disabled_reason) == ("disabled", "r")
    assert AuditEvent.objects.exclude(action="tools.register").count() == 1


def test_a_tool_that_there_is_not_cannot_be_switched(console: Client) -> None:
    for action in ("disable", "enable"):
        assert switch(console, uuid.uuid4(), action, reason="r").status_code == 404
    assert list_recorded() == []
