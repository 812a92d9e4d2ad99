"""Lists of REST and of the console ask the same of the database however many rows there are."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from protocol.models import Session
from protocol.ports import Resource
from security.models import Account
from security.selectors import get_account_principal
from security.services.audit import record_event
from tests.factories import create_operator, create_service, ensure_builtin_roles, issue_key
from tests.queries import LOOKS
from tools import services
from tools.models import Execution, Tool, ToolVersion

pytestmark = pytest.mark.django_db(transaction=True)

FEW, MANY = 5, 60
"""Less than a page of each list, and more."""
RUNS = "/api/v1/executions/"
RUNS_PAGE, AUDIT_PAGE, SESSIONS_PAGE, TOOLS_PAGE = (
    f"admin:{name}_changelist" for name in ("tools_execution", "security_auditevent", "protocol_session", "tools_tool")
)
CONSOLE_LISTS: list[tuple[str, dict[str, Any]]] = [
    (RUNS_PAGE, {}),
    (RUNS_PAGE, {"o": "6"}),
    (RUNS_PAGE, {"state": ["queued", "running"]}),
    (RUNS_PAGE, {"state": "succeeded", "priority": "normal", "mode__exact": "wait"}),
    (RUNS_PAGE, {"q": "worker-of-lists"}),
    (AUDIT_PAGE, {}),
    (AUDIT_PAGE, {"action": "tools.", "outcome": "done"}),
    (AUDIT_PAGE, {"actor": "worker-of-lists"}),
    (AUDIT_PAGE, {"q": "text.count"}),
    (SESSIONS_PAGE, {}),
    (SESSIONS_PAGE, {"connected": "yes"}),
    (SESSIONS_PAGE, {"q": "worker-of-lists"}),
    (TOOLS_PAGE, {}),
    (TOOLS_PAGE, {"q": "bulk"}),
    ("admin:index", {}),
]
REST_LISTS: list[tuple[str, dict[str, Any]]] = [
    (RUNS, {}),
    (RUNS, {"limit": "3"}),
    (RUNS, {"order": "created_at"}),
    (RUNS, {"tool": "text.count_words", "state": "succeeded"}),
    (RUNS, {"state": ["queued", "running"]}),
    (RUNS, {"requested_by": "worker-of-lists", "created_from": "2020-01-01T00:00:00Z"}),
    ("/api/v1/tools/", {"limit": "3"}),
]


class QueryCounter:
    """Counts what is executed on any connection, those of the database threads included."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> QueryCounter:
    found = QueryCounter()
    execute = CursorWrapper.execute

    def count_and_execute(self: CursorWrapper, sql: str, params: Any = None) -> Any:
        if not any(f'FROM "{table}"' in sql for table in LOOKS):
            found.add()
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", count_and_execute)
    return found


@pytest.fixture
def account() -> Account:
    ensure_builtin_roles()
    services.synchronise_tools()
    return create_service(username="worker-of-lists")


def add_rows(account: Account, count: int) -> None:
    """So many runs of each of two states, audit events, sessions and tools."""
    version = ToolVersion.objects.select_related("tool").get(tool__name="text.count_words")
    now = timezone.now()
    for number in range(count):
        shared: dict[str, Any] = {
            "tool": version.tool,
            "version": version,
            "definition_hash": version.definition_hash,
            "input_json": "{}",
            "input_hash": "0" * 64,
            "arguments_hash": "0" * 64,
            "requested_by": account,
            "trace_id": uuid.uuid4().hex,
            "timeout_seconds": 30,
        }
        Execution.objects.create(**shared, state="succeeded", finished_at=now)
        Execution.objects.create(**shared, state="queued", not_before=now + timedelta(days=1))
        record_event(
            action="tools.disable",
            principal=get_account_principal(account=account),
            resource=Resource(kind="tool", name="text.count_words"),
            outcome="done",
        )
        Session.objects.create(account=account, credential_id=account.id, channel="c", client_name="shell")
        tool = Tool.objects.create(name=f"bulk.tool_{uuid.uuid4().hex}")
        tool.current_version = ToolVersion.objects.create(
            tool=tool,
            version=f"1.0.{number}",
            description="One of many.",
            input_schema={},
            output_schema={},
            adapter="python",
            entry_point="bulk:tool",
            definition_hash="0" * 64,
        )
        tool.save()


def ask(client: Client, address: str, query: dict[str, Any]) -> None:
    response = client.get(address, query)
    assert response.status_code == 200, (address, query, response.content[:200])


def test_lists_ask_the_same_of_the_database_however_many_rows_there_are(
    client: Client, account: Account, counter: QueryCounter
) -> None:
    client.force_login(create_operator())
    api = Client(headers={"authorization": f"Bearer {issue_key(account=account).secret}"})
    lists = [
        *((client, reverse(name), query) for name, query in CONSOLE_LISTS),
        *((api, address, query) for address, query in REST_LISTS),
    ]

    def count_each() -> list[int]:
        counts = []
        for who, address, query in lists:
            ask(who, address, query)
            before = counter.count
            ask(who, address, query)
            counts.append(counter.count - before)
        return counts

    add_rows(account, FEW)
    few = count_each()
    assert all(few)
    add_rows(account, MANY - FEW)
    for (_, address, query), with_few, with_many in zip(lists, few, count_each(), strict=True):
        assert with_many == with_few, (address, query)
