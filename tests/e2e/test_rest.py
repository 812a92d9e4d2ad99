"""REST on the running product: what the OpenAPI document cannot say, and Schemathesis therefore not check."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.e2e.conftest import Keys
from tests.services import Product, wait_until

NOBODY = str(uuid.UUID(int=7))


@pytest.fixture
def api(product: Product, keys: Keys) -> Iterator[httpx2.Client]:
    """The API as an agent sees it."""
    with open_api(product, keys.agent) as client:
        yield client


def open_api(product: Product, key: str | None) -> httpx2.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=f"{product.url}api/v1/", headers=headers, timeout=20)


def execute(api: httpx2.Client, tool: str, input_value: Any, *, query: str = "", **headers: str) -> httpx2.Response:
    return api.post(f"tools/{tool}/execute/{query}", json={"input": input_value}, headers=headers)


def get_code(answer: httpx2.Response) -> str:
    """The code of a problem; fails where it is none."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:mcp:error:{problem['code']}"
    assert problem["trace_id"] == answer.headers["x-trace-id"]
    return str(problem["code"])


# Calling tools


def test_a_call_is_accepted_and_leads_to_its_run(api: httpx2.Client) -> None:
    accepted = execute(api, "text.count_words", {"text": "a b"})
    assert accepted.status_code == 202
    assert accepted.json()["state"] == "queued"
    address = accepted.headers["location"]
    wait_until(lambda: api.get(address).json()["state"] == "succeeded", what="the run's end")
    assert api.get(address).json()["output"]["words"] == 2


def test_who_waits_gets_the_outcome(api: httpx2.Client) -> None:
    answer = execute(api, "text.count_words", {"text": "a b"}, query="?wait=15")
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert answer.json()["output"]["words"] == 2
    failed = execute(api, "sample_tools.report", {"times": 1, "end": "as asked"}, query="?wait=15")
    assert (failed.status_code, failed.json()["code"]) == (424, "tool.execution_failed")
    assert failed.json()["detail"] == "as asked"
    assert failed.json()["details"]["execution_id"] in failed.headers["location"]


def test_who_waits_too_short_gets_the_runs_address(api: httpx2.Client, tmp_path: Path) -> None:
    answer = execute(api, "sample_tools.wait_for", {"path": str(tmp_path / "go")}, query="?wait=0.2")
    assert answer.status_code == 202
    cancelled = api.post(f"{answer.headers['location']}cancel/", json={"mode": "kill"})
    assert cancelled.json() == {"cancelled": True}
    wait_until(lambda: api.get(answer.headers["location"]).json()["state"] == "cancelled", what="the cancellation")


def test_the_same_key_is_the_same_run_also_for_eight_at_once(api: httpx2.Client) -> None:
    key = uuid.uuid4().hex
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda _: execute(api, "text.count_words", {"text": "a"}, query="?wait=15", **{"Idempotency-Key": key}),
                range(8),
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["execution_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 7
    other = execute(api, "text.count_words", {"text": "b"}, **{"Idempotency-Key": key})
    assert (other.status_code, get_code(other)) == (409, "protocol.duplicate_id")


def test_a_run_is_repeated(api: httpx2.Client) -> None:
    first = execute(api, "text.count_words", {"text": "a"}, query="?wait=15").json()["execution_id"]
    again = api.post(f"executions/{first}/retry/?wait=15")
    assert again.status_code == 200
    assert again.json()["execution_id"] != first
    assert again.json()["output"]["words"] == 1


# Lists


def test_pages_hold_every_run_once_in_either_order(api: httpx2.Client, product: Product, keys: Keys) -> None:
    made = [execute(api, "sample_tools.echo", {"value": number}).json()["execution_id"] for number in range(7)]

    def walk(order: str) -> list[str]:
        found: list[str] = []
        address: str | None = f"executions/?tool=sample_tools.echo&limit=3&order={order}"
        while address is not None:
            page = api.get(address)
            found += [run["execution_id"] for run in page.json()["executions"]]
            address = page.links.get("next", {}).get("url")
        return found

    newest_first = walk("-created_at")
    assert newest_first[:7] == made[::-1]
    assert walk("created_at") == newest_first[::-1]
    assert len(set(newest_first)) == len(newest_first)
    with open_api(product, keys.other) as other:
        assert not set(made) & {run["execution_id"] for run in other.get("executions/?limit=200").json()["executions"]}


def test_runs_are_filtered(api: httpx2.Client) -> None:
    execute(api, "sample_tools.fail", {}, query="?wait=15")
    execute(api, "text.count_words", {"text": "a"}, query="?wait=15")
    failed = api.get("executions/?state=failed&state=timed_out&limit=200").json()["executions"]
    assert failed
    assert {run["state"] for run in failed} <= {"failed", "timed_out"}
    assert {run["tool"] for run in api.get("executions/?tool=text.count_words").json()["executions"]} == {
        "text.count_words"
    }
    assert api.get("executions/?tool=no.such").json() == {"executions": [], "next_cursor": None}
    assert api.get("executions/?requested_by=nobody-there").json()["executions"] == []
    assert api.get("executions/?created_from=2100-01-01T00:00:00Z").json()["executions"] == []


# Events


def test_events_stream_until_the_run_ends(api: httpx2.Client) -> None:
    run = execute(api, "sample_tools.report", {"times": 3}).headers["location"]
    with api.stream("GET", f"{run}events/") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = list(read_events(answer))
    names = [name for _, name, _ in events]
    assert names.count("execution.progress") == 3
    assert [data["state"] for _, name, data in events if name == "execution.updated"] == [
        "queued",
        "running",
        "succeeded",
    ]
    positions = [position for position, _, _ in events]
    assert positions == sorted(positions)
    assert all(data["position"] == position for position, _, data in events)
    with api.stream("GET", f"{run}events/", headers={"Last-Event-ID": str(positions[-2])}) as answer:
        assert [position for position, _, _ in read_events(answer)] == positions[-1:]
    assert api.get(f"{run}events/", headers={"Last-Event-ID": str(positions[-1])}).status_code == 204


def test_events_come_while_the_run_lives(api: httpx2.Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = execute(api, "sample_tools.wait_for", {"path": str(go)}).headers["location"]
    states = []
    with api.stream("GET", f"{run}events/") as answer:
        for _, name, data in read_events(answer):
            if name == "execution.updated":
                states.append(data["state"])
            if states[-1] == "running":
                go.touch()
    assert states == ["queued", "running", "succeeded"]


def read_events(answer: httpx2.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Position, name and data of each event."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


# Refusals


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (("GET", "tools/no.such/"), 404, "tool.not_found"),
        (("GET", f"executions/{NOBODY}/"), 404, "tool.execution_not_found"),
        (("GET", f"executions/{NOBODY}/events/"), 404, "tool.execution_not_found"),
        (("GET", "executions/no-id/"), 400, "protocol.invalid_arguments"),
        (("GET", "executions/?limit=0"), 400, "protocol.invalid_arguments"),
        (("GET", "executions/?cursor=nonsense"), 400, "protocol.invalid_arguments"),
        (("GET", "executions/?unknown=1"), 400, "protocol.invalid_arguments"),
        (("GET", "tools/?limit=1&limit=2"), 400, "protocol.invalid_arguments"),
        (("DELETE", "tools/"), 405, "protocol.unsupported_type"),
        (("GET", "nothing/here/"), 404, "protocol.unknown_command"),
    ],
)
def test_what_cannot_be_answered_is_a_problem(
    api: httpx2.Client, request_: tuple[str, str], status: int, code: str
) -> None:
    answer = api.request(*request_)
    assert (answer.status_code, get_code(answer)) == (status, code)


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "protocol.invalid_message"),
        (b'{"input": {"text": "\xff"}}', "application/json", 400, "protocol.invalid_message"),
        (b"[1]", "application/json", 400, "protocol.invalid_arguments"),
        (b"[" * 10_000, "application/json", 400, "protocol.invalid_message"),
        (b'{"input": {}, "tool": "files.read"}', "application/json", 400, "protocol.invalid_arguments"),
        (b'{"input": {}, "mode": "wait"}', "application/json", 400, "protocol.invalid_arguments"),
        (b'{"input": {}, "dry_run": true}', "application/json", 400, "protocol.feature_not_agreed"),
        (b"{}", "application/json", 400, "protocol.invalid_arguments"),
        (b'{"input": {"text": 5}}', "application/json", 422, "tool.invalid_input"),
        (b'{"input": {"text": "a"}}', "text/plain", 415, "protocol.unsupported_type"),
        (b'{"input": {"text": "' + b"a" * 1_100_000 + b'"}}', "application/json", 413, "protocol.message_too_large"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_a_bad_body_is_refused(api: httpx2.Client, content: bytes, content_type: str, status: int, code: str) -> None:
    answer = api.post("tools/text.count_words/execute/", content=content, headers={"Content-Type": content_type})
    assert (answer.status_code, get_code(answer)) == (status, code)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "security.authentication_required"),
        ("Basic YTpi", "security.authentication_required"),
        ("Bearer", "security.authentication_required"),
        ("Bearer mcp_unknown", "security.authentication_failed"),
        ("Bearer " + "a" * 9000, "security.authentication_failed"),
        ("Bearer a.b.c", "security.authentication_failed"),
    ],
)
def test_strangers_are_told_how_to_say_who_they_are(product: Product, header: str | None, code: str) -> None:
    with open_api(product, None) as api:
        answer = api.get("tools/", headers={} if header is None else {"Authorization": header})
    assert (answer.status_code, get_code(answer)) == (401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_policy_is_the_commands_own(product: Product, keys: Keys) -> None:
    with open_api(product, keys.viewer) as viewer, open_api(product, keys.nobody) as nobody:
        assert get_code(execute(viewer, "text.count_words", {"text": "a"})) == "security.access_denied"
        assert get_code(nobody.get("tools/")) == "security.access_denied"
    with open_api(product, keys.reader) as reader:
        assert reader.get("tools/text.count_words/").status_code == 200
        assert get_code(execute(reader, "text.count_words", {"text": "a"})) == "security.access_denied"
        assert get_code(reader.get(f"executions/{NOBODY}/events/")) == "security.access_denied"


# Messages


def make_message(command: str, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": "m-1",
        "type": "command",
        "payload": {"command": command, "arguments": arguments},
        "timestamp": "2026-11-20T16:31:00.123Z",
        **fields,
    }


EXECUTE = make_message("tools.execute", {"tool": "text.count_words", "input": {"text": "a b"}})


def test_a_message_is_answered_in_the_response(api: httpx2.Client) -> None:
    answer = api.post("messages/", json=EXECUTE)
    assert answer.status_code == 200
    assert answer.json()["metadata"] == {"correlation_id": "m-1"}
    assert answer.json()["payload"]["result"]["output"]["words"] == 2


def test_a_batch_is_answered_in_order_each_by_itself(api: httpx2.Client) -> None:
    batch = [
        {**EXECUTE, "id": "one"},
        {**make_message("no.such", {}), "id": "two"},
        {**make_message("session.ping", {}), "id": "three"},
        5,
    ]
    answer = api.post("messages/", json=batch)
    assert answer.status_code == 200
    outcomes = [(entry.get("metadata", {}).get("correlation_id"), entry["type"]) for entry in answer.json()]
    assert outcomes == [("one", "response"), ("two", "error"), ("three", "response"), (None, "error")]


def test_messages_may_be_messagepack(api: httpx2.Client) -> None:
    answer = api.post(
        "messages/", content=msgspec.msgpack.encode([EXECUTE]), headers={"Content-Type": "application/msgpack"}
    )
    assert answer.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(answer.content)[0]["payload"]["result"]["output"]["words"] == 2


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ({**EXECUTE, "type": "heartbeat", "payload": {}}, 400, "protocol.unsupported_type"),
        ({**EXECUTE, "security": {"security_level": "high"}}, 400, "protocol.feature_not_agreed"),
        ({**EXECUTE, "security": {"auth_token": "mcp_x"}}, 400, "protocol.invalid_message"),
        ({**EXECUTE, "unknown": 1}, 400, "protocol.invalid_message"),
        ({**EXECUTE, "metadata": {"unknown": 1}}, 400, "protocol.invalid_metadata"),
        (make_message("session.status", {}), 400, "protocol.feature_not_agreed"),
        (make_message("session.close", {}), 400, "protocol.feature_not_agreed"),
        (make_message("command.cancel", {"id": "m-0"}), 400, "protocol.feature_not_agreed"),
        (make_message("tools.list", {"limit": 0}), 400, "protocol.invalid_arguments"),
        ([], 400, "protocol.invalid_message"),
        ([EXECUTE] * 65, 413, "protocol.batch_too_large"),
    ],
)
def test_a_message_that_cannot_be_taken_is_refused(api: httpx2.Client, message: Any, status: int, code: str) -> None:
    answer = api.post("messages/", json=message)
    body = answer.json()
    assert (answer.status_code, body["payload"]["code"] if "payload" in body else body["code"]) == (status, code)


def test_a_message_may_carry_its_own_token(product: Product, keys: Keys) -> None:
    with open_api(product, None) as api:
        known = api.post("messages/", json={**EXECUTE, "security": {"auth_token": keys.agent}})
        assert known.json()["payload"]["result"]["state"] == "succeeded"
        assert api.post("messages/", json=EXECUTE).json()["payload"]["code"] == "security.authentication_required"
        wrong = api.post("messages/", json={**EXECUTE, "security": {"auth_token": "mcp_wrong"}})
        assert (wrong.status_code, wrong.json()["payload"]["code"]) == (401, "security.authentication_failed")


def test_a_waiting_message_is_ended_at_its_deadline(api: httpx2.Client, tmp_path: Path) -> None:
    message = make_message(
        "tools.execute",
        {"tool": "sample_tools.wait_for", "input": {"path": str(tmp_path / "go")}},
        metadata={"timeout_ms": 300},
    )
    answer = api.post("messages/", json=message)
    assert (answer.status_code, answer.json()["payload"]["code"]) == (424, "tool.timeout")
    run = answer.json()["payload"]["details"]["execution_id"]
    assert api.get(f"executions/{run}/").json()["state"] == "timed_out"


def test_one_run_is_watched_by_many(api: httpx2.Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    key = uuid.uuid4().hex
    answers: list[int] = []

    def call() -> None:
        answer = execute(api, "sample_tools.wait_for", {"path": str(go)}, query="?wait=15", **{"Idempotency-Key": key})
        answers.append(answer.status_code)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: api.get("executions/?tool=sample_tools.wait_for&state=running").json()["executions"],
        what="the run's start",
    )
    go.touch()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
