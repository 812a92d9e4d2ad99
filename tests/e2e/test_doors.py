"""The same calls at three doors: WebSocket, REST and console have the same outcome, the same code, the same record."""

from __future__ import annotations

import asyncio
import html
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
import pytest

from tests.client import open_client
from tests.services import Product, wait_until

ACCOUNTS = """
import json
from security import services
from security.models import Role
from tools.models import Tool

quarter = Role.objects.get_or_create(name="doors-quarter", defaults={"description": ""})[0]
for effect, action, resource in [
    ("allow", "tools.*", "tool:*"), ("deny", "tools.execute", "tool:text.*"), ("deny", "tools.view", "tool:files.*"),
    ("allow", "executions.*", "execution:*@own"),
]:
    quarter.grants.get_or_create(effect=effect, action_pattern=action, resource_pattern=resource)

for name, role in [("doors-all", "operator"), ("doors-viewer", "viewer"), ("doors-quarter", "doors-quarter")]:
    services.create_account(
        username=name, password="a long doors password", is_staff=True, is_superuser=True, roles=[role]
    )
print(json.dumps({name: str(id) for name, id in Tool.objects.values_list("name", "id")}))
"""
RECORDS = """
import json
from security.models import AuditEvent
from tools.models import Execution

def describe(run_id):
    run = Execution.objects.select_related("tool", "version", "requested_by").get(id=run_id)
    error = json.loads(run.error_json) if run.error_json else {}
    return {
        "run": [run.tool.name, run.version.version, run.definition_hash, run.state, run.requested_by.username,
                run.input_hash, run.output_json, error.get("code")],
        "timeline": [[event.kind, json.loads(event.data_json).get("state")]
                     for event in run.events.order_by("position")],
        "audit": [[event.actor_name, event.action, event.resource_kind, event.outcome]
                  for event in AuditEvent.objects.filter(data_json__contains=run_id).order_by("at")],
    }

print(json.dumps({run_id: describe(run_id) for run_id in RUNS}))
"""
PASSWORD = "a long doors password"  # of accounts that only this test has
WAIT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call, and what comes of it."""

    name: str
    tool: str
    input: Any
    outcome: str
    """A run's state, or the code of the refusal."""
    account: str = "doors-all"
    version: str | None = None


COUNT = "text.count_words"
NESTED = {"value": json.loads("[" * 40 + "]" * 40)}
CASES = [
    Case(name="a trivial call", tool=COUNT, input={"text": "a b"}, outcome="succeeded"),
    Case(name="no text", tool=COUNT, input={"text": ""}, outcome="succeeded"),
    Case(name="text beyond ASCII", tool=COUNT, input={"text": "ä 漢字 😀\u2028"}, outcome="succeeded"),
    Case(name="markup", tool=COUNT, input={"text": "<script>alert(1)</script> & 'x'"}, outcome="succeeded"),
    Case(name="a long text", tool=COUNT, input={"text": "word " * 20_000}, outcome="succeeded"),
    Case(name="a named version", tool=COUNT, input={"text": "a"}, version="1.0.0", outcome="succeeded"),
    Case(
        name="any JSON", tool="sample_tools.echo", input={"value": [1, 2.5, None, True, {"a": []}]}, outcome="succeeded"
    ),
    Case(name="null", tool="sample_tools.echo", input={"value": None}, outcome="succeeded"),
    Case(name="deep JSON", tool="sample_tools.echo", input=NESTED, outcome="succeeded"),
    Case(name="progress", tool="sample_tools.report", input={"times": 3}, outcome="succeeded"),
    Case(name="a tool that says no", tool="sample_tools.report", input={"times": 1, "end": "no"}, outcome="failed"),
    Case(name="a defect", tool="sample_tools.fail", input={}, outcome="failed"),
    Case(name="too slow", tool="sample_tools.loop_forever", input={}, outcome="timed_out"),
    Case(name="a wrong output", tool="sample_tools.lie", input={}, outcome="failed"),
    Case(name="a missing file", tool="files.read", input={"path": "no/such.md"}, outcome="failed"),
    Case(name="out of the workspace", tool="files.read", input={"path": "../README.md"}, outcome="failed"),
    Case(name="a file", tool="files.read", input={"path": "index.md"}, outcome="succeeded"),
    Case(name="a refused address", tool="http.request", input={"url": "http://127.0.0.1:1/"}, outcome="failed"),
    Case(name="a missing argument", tool=COUNT, input={}, outcome="tool.invalid_input"),
    Case(name="a wrong type", tool=COUNT, input={"text": 5}, outcome="tool.invalid_input"),
    Case(name="an unknown argument", tool=COUNT, input={"text": "a", "more": 1}, outcome="tool.invalid_input"),
    Case(name="out of bounds", tool="sample_tools.swell", input={"size": "big"}, outcome="tool.invalid_input"),
    Case(name="a huge integer", tool="sample_tools.echo", input={"value": 2**60}, outcome="tool.invalid_input"),
    Case(name="no such version", tool=COUNT, input={"text": "a"}, version="9.9.9", outcome="tool.not_found"),
    Case(name="a viewer", tool=COUNT, input={"text": "a"}, account="doors-viewer", outcome="security.access_denied"),
    Case(
        name="a denied tool", tool=COUNT, input={"text": "a"}, account="doors-quarter", outcome="security.access_denied"
    ),
    Case(
        name="a hidden tool", tool="files.read", input={"path": "a"}, account="doors-quarter", outcome="tool.not_found"
    ),
    Case(
        name="an allowed tool",
        tool="sample_tools.echo",
        input={"value": 1},
        account="doors-quarter",
        outcome="succeeded",
    ),
    Case(name="another wrong type", tool="sample_tools.report", input={"times": "3"}, outcome="tool.invalid_input"),
    Case(name="a fraction", tool="sample_tools.report", input={"times": 1.5}, outcome="tool.invalid_input"),
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a door told: a run's id, or the code of a refusal."""

    run: str = ""
    code: str = ""


class Door(Protocol):
    def call(self, case: Case) -> Outcome: ...


@pytest.fixture(scope="module")
def tools(product: Product) -> dict[str, str]:
    """The accounts are there; the tools' ids."""
    made = product.manage("shell", "--no-imports", "-c", ACCOUNTS)
    assert made.returncode == 0, made.stderr
    ids: dict[str, str] = json.loads(made.stdout.splitlines()[-1])
    return ids


@pytest.fixture(scope="module")
def tokens(product: Product, tools: dict[str, str]) -> dict[str, str]:
    """Access tokens, by account."""
    return {
        name: httpx2.post(
            f"{product.url}api/v1/auth/token/", json={"username": name, "password": PASSWORD}, timeout=20
        ).json()["access"]
        for name in sorted({case.account for case in CASES})
    }


class WebSocketDoor:
    def __init__(self, product: Product, tokens: dict[str, str]) -> None:
        self._product, self._tokens = product, tokens

    def call(self, case: Case) -> Outcome:
        return asyncio.run(self._call(case))

    async def _call(self, case: Case) -> Outcome:
        async with open_client(self._product.websocket_url) as client:
            await client.shake_hands()
            token = self._tokens[case.account]
            await client.wait_for_reply(await client.send("authentication", {"method": "jwt", "token": token}))
            version = {} if case.version is None else {"version": case.version}
            arguments = {"tool": case.tool, "input": case.input, "mode": "queue", **version}
            answer = await client.call("tools.execute", arguments)
            if answer.terminal.type == "error":
                return Outcome(code=answer.code)
            return Outcome(run=answer.result["execution_id"])


class RestDoor:
    def __init__(self, product: Product, tokens: dict[str, str]) -> None:
        self._product, self._tokens = product, tokens

    def call(self, case: Case) -> Outcome:
        version = {} if case.version is None else {"version": case.version}
        answer = httpx2.post(
            f"{self._product.url}api/v1/tools/{case.tool}/execute/",
            json={"input": case.input, **version},
            headers={"Authorization": f"Bearer {self._tokens[case.account]}"},
            timeout=20,
        )
        body = answer.json()
        return Outcome(run=body["execution_id"]) if answer.status_code == 202 else Outcome(code=body["code"])


class ConsoleDoor:
    def __init__(self, product: Product, tools: dict[str, str]) -> None:
        self._product, self._tools = product, tools
        self._clients: dict[str, httpx2.Client] = {}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def call(self, case: Case) -> Outcome:
        client = self._sign_in(case.account)
        address = f"admin/tools/tool/{self._tools[case.tool]}/run/"
        form = {
            "csrfmiddlewaretoken": client.cookies["mcp_csrf"],
            "version": case.version or "1.0.0",
            "way": "json",
            "key": uuid.uuid4().hex,
            "input": json.dumps(case.input),
        }
        answer = client.post(address, data=form)
        if answer.status_code == 302:
            found = re.search(r"/execution/([0-9a-f-]{36})/", answer.headers["location"])
            assert found, answer.headers["location"]
            return Outcome(run=found.group(1))
        if answer.status_code == 404:
            return Outcome(code="tool.not_found")
        if answer.status_code == 403:
            return Outcome(code="security.access_denied")
        told = re.search(r"\(([a-z]+\.[a-z_]+)\)", html.unescape(answer.text.partition('role="alert"')[2]))
        assert told, answer.text
        return Outcome(code=told.group(1))

    def _sign_in(self, account: str) -> httpx2.Client:
        if account not in self._clients:
            client = httpx2.Client(base_url=self._product.url, timeout=20)
            client.get("admin/login/")
            form = {"username": account, "password": PASSWORD, "csrfmiddlewaretoken": client.cookies["mcp_csrf"]}
            assert client.post("admin/login/", data=form).status_code == 302
            self._clients[account] = client
        return self._clients[account]


@pytest.fixture(scope="module")
def doors(product: Product, tools: dict[str, str], tokens: dict[str, str]) -> Iterator[dict[str, Door]]:
    console = ConsoleDoor(product, tools)
    yield {"websocket": WebSocketDoor(product, tokens), "rest": RestDoor(product, tokens), "console": console}
    console.close()


@pytest.fixture(scope="module")
def outcomes(doors: dict[str, Door]) -> dict[str, dict[str, Outcome]]:
    """Every case at every door, all asked before any is looked at."""
    return {case.name: {name: door.call(case) for name, door in doors.items()} for case in CASES}


@pytest.fixture(scope="module")
def records(product: Product, tokens: dict[str, str], outcomes: dict[str, dict[str, Outcome]]) -> dict[str, Any]:
    """What the database has of each run, once all have ended."""
    runs = [outcome.run for found in outcomes.values() for outcome in found.values() if outcome.run]
    headers = {"Authorization": f"Bearer {tokens['doors-all']}"}

    def are_over() -> bool:
        states = {httpx2.get(f"{product.url}api/v1/executions/{run}/", headers=headers).json()["state"] for run in runs}
        return not states & {"queued", "running"}

    wait_until(are_over, seconds=60, what="the end of all runs")
    made = product.manage("shell", "--no-imports", "-c", f"RUNS = {runs!r}\n{RECORDS}")
    assert made.returncode == 0, made.stderr
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def test_there_are_thirty() -> None:
    assert len({case.name for case in CASES}) == len(CASES) == 30


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_three_doors_tell_and_record_the_same(
    case: Case, outcomes: dict[str, dict[str, Outcome]], records: dict[str, Any]
) -> None:
    found = outcomes[case.name]
    if "." in case.outcome:
        assert {name: outcome.code for name, outcome in found.items()} == dict.fromkeys(found, case.outcome)
        return
    assert all(outcome.run for outcome in found.values()), found
    of_runs = [records[outcome.run] for outcome in found.values()]
    assert of_runs[0] == of_runs[1] == of_runs[2]
    assert of_runs[0]["run"][3] == case.outcome
    assert of_runs[0]["run"][4] == case.account
