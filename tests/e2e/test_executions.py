"""Runs over a real socket: waiting and queueing, progress, numbers, deadlines, and what befalls the services below."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.client import Answer, Client, Encoding, open_session
from tests.e2e.conftest import Keys, find_valkey, find_web, find_worker, read_log
from tests.services import Product, wait_until

both_encodings = pytest.mark.parametrize("encoding", Encoding)
COUNT = "text.count_words"


@pytest.fixture
async def client(product: Product, keys: Keys) -> AsyncIterator[Client]:
    """An agent over JSON."""
    async with open_session(product.websocket_url, keys.agent) as client:
        yield client


async def wait_for_end(client: Client, execution_id: str) -> dict[str, Any]:
    """Ask until the run has ended; what is told of it."""
    async with asyncio.timeout(15):
        while True:
            view: dict[str, Any] = (await client.call("executions.get", {"execution": execution_id})).result
            if view["finished_at"] is not None:
                return view
            await asyncio.sleep(0.02)


def get_states(answer: Answer) -> list[str]:
    return [event.data["state"] for event in answer.events if event.event == "execution.updated"]


# Waiting and queueing


@both_encodings
async def test_waiting_is_answered_with_the_output(product: Product, keys: Keys, encoding: Encoding) -> None:
    async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
        answer = await client.execute(COUNT, {"text": "one two\nthree"}, priority="high")
        assert answer.result == {
            "execution_id": answer.result["execution_id"],
            "state": "succeeded",
            "output": {"words": 3, "lines": 2, "characters": 13},
        }
        assert uuid.UUID(answer.result["execution_id"]).version == 7
        assert get_states(answer) == ["queued", "running", "succeeded"]
        assert [event.data["position"] for event in answer.events] == [1, 2, 3]
        assert {event.data["execution_id"] for event in answer.events} == {answer.result["execution_id"]}


@both_encodings
async def test_queueing_is_answered_at_once_and_later_events_have_no_command(
    product: Product, keys: Keys, encoding: Encoding
) -> None:
    async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
        answer = await client.execute(COUNT, {"text": "one"}, mode="queue")
        execution_id = answer.result["execution_id"]
        assert answer.result == {"execution_id": execution_id, "state": "queued"}
        assert answer.events == []
        while (event := await client.wait_for_event("execution.updated")).data["state"] != "succeeded":
            assert event.data["execution_id"] == execution_id
        assert event.correlation_id is None
        view = await wait_for_end(client, execution_id)
        assert (view["state"], view["output"]) == ("succeeded", {"words": 1, "lines": 1, "characters": 3})


@both_encodings
async def test_any_json_comes_back_as_it_went(product: Product, keys: Keys, encoding: Encoding) -> None:
    value: dict[str, Any] = {"é": [None, True, 2**53 - 1, -1.5, "\U0001f600\n\0", {}, []], "": {"deep": [[[0]]]}}
    async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
        answer = await client.execute("sample_tools.echo", {"value": value})
        assert answer.result["output"] == value
        view = await client.call("executions.get", {"execution": answer.result["execution_id"]})
        assert (view.result["input"], view.result["output"]) == ({"value": value}, value)


# Progress


@both_encodings
async def test_progress_comes_before_the_answer_in_its_order_and_never_after(
    product: Product, keys: Keys, encoding: Encoding
) -> None:
    async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
        message_id = await client.send_command(
            "tools.execute", {"tool": "files.search", "input": {"pattern": "WebSocket"}}
        )
        answer = await client.wait_for_answer(message_id)
        found = answer.result["output"]
        assert found["matches"]
        progress = [event for event in answer.events if event.event == "execution.progress"]
        assert progress
        assert get_states(answer) == ["queued", "running", "succeeded"]
        positions = [event.data["position"] for event in answer.events]
        assert positions == sorted(set(positions))
        fractions = [event.data["fraction"] for event in progress]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
        # What was told is what is kept.
        view = (await client.call("executions.get", {"execution": answer.result["execution_id"]})).result
        kept = {event["position"]: event["data"] for event in view["events"]}
        for event in progress:
            assert kept[event.data["position"]] == {
                "fraction": event.data["fraction"],
                "message": event.data["message"],
            }
        assert view["progress"]["fraction"] == view["events"][-2]["data"]["fraction"]
        await client.check_usable()
        terminal = client.received.index(answer.terminal)
        assert all(message.correlation_id != message_id for message in client.received[terminal + 1 :])


async def test_a_client_that_did_not_agree_to_progress_gets_none(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent, features=[]) as client:
        answer = await client.execute("sample_tools.report", {"times": 5})
        assert answer.result["output"] == 5
        assert get_states(answer) == ["queued", "running", "succeeded"]
        assert {event.event for event in answer.events} == {"execution.updated"}


async def test_a_talkative_tool_is_bounded_and_its_end_is_never_missed(client: Client) -> None:
    answer = await client.execute("sample_tools.report", {"times": 3000})
    assert answer.result["output"] == 3000
    sent = [event.data["position"] for event in answer.events]
    assert sent == sorted(set(sent))
    position = max(event.data["position"] for event in answer.events if event.event == "execution.progress")
    execution_id = answer.result["execution_id"]
    kept: list[Any] = []
    while page := (await client.call("executions.get", {"execution": execution_id, "after": position})).result[
        "events"
    ]:
        kept += page
        position = page[-1]["position"]
    assert [event["position"] for event in kept] == sorted({event["position"] for event in kept})
    assert kept[-1]["data"] == {"state": "succeeded", "attempt": 1}
    # How much was sent before depends on the machine; from there on nothing is missing.
    first = kept[0]["position"]
    assert [event["position"] for event in kept[:-1]] == list(range(first, first + len(kept) - 1))
    assert len(kept) <= 1001


# Numbers


async def test_terminal_answers_of_runs_are_numbered_and_nothing_else(client: Client) -> None:
    numbers = []
    for tool, value, mode in (
        (COUNT, {"text": "a"}, "wait"),
        (COUNT, {"text": "a"}, "queue"),
        ("sample_tools.fail", {}, "wait"),
        (COUNT, {"text": "b"}, "queue"),
        (COUNT, {"text": "b"}, "wait"),
    ):
        answer = await client.execute(tool, value, mode=mode)
        numbers.append(answer.terminal.sequence)
        assert all(event.sequence is None for event in answer.events)
        for command, arguments in (("session.ping", {}), ("tools.list", {}), ("tools.execute", {"tool": "no.such"})):
            assert (await client.call(command, arguments)).terminal.sequence is None
    assert numbers == [1, 2, 3, 4, 5]


async def test_many_at_once_are_numbered_without_gaps_in_the_order_of_the_wire(client: Client) -> None:
    sent = [
        await client.send_command(
            "tools.execute", {"tool": COUNT, "input": {"text": "x"}, "mode": "wait" if number % 3 else "queue"}
        )
        for number in range(30)
    ]
    answers = await client.wait_for_answers(sent)
    assert all(answer.terminal.type == "response" for answer in answers.values())
    numbers = [message.sequence for message in client.received if message.sequence is not None]
    assert numbers == list(range(1, 31))


# Looking at runs


async def test_a_run_is_told_in_full_and_from_a_position_on(client: Client) -> None:
    execution_id = (await client.execute("sample_tools.report", {"times": 3})).result["execution_id"]
    view = (await client.call("executions.get", {"execution": execution_id})).result
    assert {key: view[key] for key in ("execution_id", "tool", "version", "state", "attempt", "requested_by")} == {
        "execution_id": execution_id,
        "tool": "sample_tools.report",
        "version": "1.0.0",
        "state": "succeeded",
        "attempt": 1,
        "requested_by": "tests-agent",
    }
    assert (view["input"], view["output"]) == ({"times": 3}, 3)
    assert "error" not in view
    assert [event["position"] for event in view["events"]] == [1, 2, 3, 4, 5, 6]
    assert view["created_at"] <= view["started_at"] <= view["finished_at"]
    for after in (0, 4, 6, 1000):
        part = (await client.call("executions.get", {"execution": execution_id, "after": after})).result
        assert part["events"] == view["events"][after:]


async def test_a_run_is_seen_by_whom_it_concerns(product: Product, keys: Keys, client: Client) -> None:
    execution_id = (await client.execute(COUNT, {"text": "secret"})).result["execution_id"]
    async with open_session(product.websocket_url, keys.viewer) as viewer:
        assert (await viewer.call("executions.get", {"execution": execution_id})).result["tool"] == COUNT
    async with open_session(product.websocket_url, keys.other) as other:
        foreign = await other.call("executions.get", {"execution": execution_id})
        missing = await other.call("executions.get", {"execution": str(uuid.uuid4())})
        assert foreign.code == missing.code == "tool.execution_not_found"
        assert foreign.terminal.payload["message"] == missing.terminal.payload["message"]
    async with open_session(product.websocket_url, keys.reader) as reader:
        assert (await reader.call("executions.get", {"execution": execution_id})).code == "security.access_denied"


# Runs that fail


async def test_a_failing_tool_tells_its_caller_little_and_the_log_the_rest(product: Product, client: Client) -> None:
    answer = await client.execute("sample_tools.fail")
    error = answer.terminal.payload
    assert (error["code"], error["category"], error["retryable"]) == ("tool.execution_failed", "tool", False)
    assert "RuntimeError" in error["message"]
    assert "swordfish" not in str(error)
    assert get_states(answer) == ["queued", "running", "failed"]
    log = read_log(product, "worker")
    assert error["trace_id"] in log
    assert "swordfish" in log
    view = (await client.call("executions.get", {"execution": error["details"]["execution_id"]})).result
    assert view["state"] == "failed"
    assert view["error"] == error


async def test_what_a_tool_says_itself_is_told(client: Client) -> None:
    answer = await client.execute("sample_tools.report", {"times": 0, "end": "The shelf is empty."})
    assert answer.code == "tool.execution_failed"
    assert answer.terminal.payload["message"] == "The shelf is empty."


@pytest.mark.parametrize(
    ("tool", "value", "code"),
    [
        ("sample_tools.lie", {}, "tool.invalid_output"),
        ("sample_tools.swell", {"size": 2_000_000}, "tool.invalid_output"),
        ("sample_tools.count_high", {"power": 70}, "tool.invalid_output"),
        ("sample_tools.leave", {}, "tool.execution_failed"),
        ("sample_tools.interrupt", {}, "tool.execution_failed"),
    ],
)
@both_encodings
async def test_no_failure_takes_the_worker_with_it(
    product: Product, keys: Keys, encoding: Encoding, tool: str, value: Any, code: str
) -> None:
    worker = find_worker(product)
    before = {child.pid for child in worker.children()}
    async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
        assert (await client.execute(tool, value)).code == code
        assert (await client.execute(COUNT, {"text": ""})).result["state"] == "succeeded"
    assert {child.pid for child in worker.children()} == before


async def test_an_output_that_the_client_does_not_take_is_an_error_in_its_place(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent, max_message_size=2048) as client:
        answer = await client.execute("sample_tools.swell", {"size": 3000})
        assert answer.code == "protocol.message_too_large"
        assert answer.terminal.sequence == 1
        assert (await client.execute(COUNT, {"text": ""})).terminal.sequence == 2


# Deadlines


async def test_the_callers_deadline_ends_a_slow_run(client: Client, tmp_path: Path) -> None:
    started = time.monotonic()
    answer = await client.execute("sample_tools.wait_for", {"path": str(tmp_path / "never")}, timeout_ms=400)
    assert 0.4 <= time.monotonic() - started < 4
    assert answer.code == "tool.timeout"
    assert answer.terminal.payload["retryable"] is False
    view = await wait_for_end(client, answer.terminal.details["execution_id"])
    assert view["state"] == "timed_out"


async def test_queueing_bounds_the_acceptance_only(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "there"
    answer = await client.execute("sample_tools.wait_for", {"path": str(path)}, mode="queue", timeout_ms=1000)
    started = time.monotonic()
    while time.monotonic() - started < 1.2:
        view = (await client.call("executions.get", {"execution": answer.result["execution_id"]})).result
        assert view["state"] in ("queued", "running")
        await asyncio.sleep(0.1)
    path.touch()
    assert (await wait_for_end(client, answer.result["execution_id"]))["output"] == "found"


@pytest.mark.parametrize(
    "tool", ["loop_forever", "swallow_everything", "swallow_interruptions", "hide_in_a_task", "keep_the_database_busy"]
)
async def test_no_tool_outlives_its_limit_by_much(client: Client, tool: str) -> None:
    started = time.monotonic()
    answer = await client.execute(f"sample_tools.{tool}")
    assert time.monotonic() - started < 6
    assert answer.code == "tool.timeout"
    assert answer.terminal.payload["retryable"] is False
    assert (await client.execute(COUNT, {"text": ""})).result["state"] == "succeeded"


# The window


async def test_64_in_flight_are_answered_and_one_more_is_refused(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "go"
    arguments = {"tool": "sample_tools.wait_for", "input": {"path": str(path)}}
    sent = [await client.send_command("tools.execute", arguments) for _ in range(64)]
    one_more = await client.send_command("session.ping")
    refused = await client.wait_for_reply(one_more)
    assert refused.code == "system.overloaded"
    assert refused.payload["retryable"] is True
    assert refused.payload["retry_after_ms"] > 0
    beat = await client.wait_for_reply(await client.send("heartbeat", {"ack": 0}))
    assert beat.type == "heartbeat", "a heartbeat has to pass"
    path.touch()
    answers = await client.wait_for_answers(sent)
    assert {answer.result["output"] for answer in answers.values()} == {"found"}
    await client.check_usable()


async def test_an_agreed_window_is_held(product: Product, keys: Keys, tmp_path: Path) -> None:
    async with open_session(product.websocket_url, keys.agent, max_in_flight=1) as client:
        path = tmp_path / "go"
        running = await client.send_command(
            "tools.execute", {"tool": "sample_tools.wait_for", "input": {"path": str(path)}}
        )
        refused = await client.wait_for_reply(await client.send_command("session.ping"))
        assert refused.code == "system.overloaded"
        path.touch()
        assert (await client.wait_for_answer(running)).result["output"] == "found"


async def test_many_clients_at_once_each_get_their_own_answers(product: Product, keys: Keys) -> None:
    async def work(number: int) -> None:
        encoding = Encoding.JSON if number % 2 else Encoding.MESSAGEPACK
        async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
            sent = {}
            for turn in range(4):
                text = "x" * (100 * number + turn)
                sent[await client.send_command("tools.execute", {"tool": COUNT, "input": {"text": text}})] = len(text)
            answers = await client.wait_for_answers(sent)
            for message_id, characters in sent.items():
                assert answers[message_id].result["output"]["characters"] == characters
            numbers = [message.sequence for message in client.received if message.sequence is not None]
            assert numbers == [1, 2, 3, 4]

    await asyncio.gather(*(work(number) for number in range(25)))


# What happens below


@asynccontextmanager
async def stopped_worker(product: Product) -> AsyncIterator[psutil.Process]:
    """The worker, parent and children, stopped by a signal: it lives and does nothing."""
    worker = find_worker(product)
    processes = [worker, *worker.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield worker
    finally:
        for process in processes:
            process.resume()


async def test_a_run_that_no_worker_takes_is_answered_by_its_deadline(impatient: Product) -> None:
    async with (
        open_session(impatient.websocket_url, impatient.agent_api_key) as client,
        client.kept_alive(),
    ):
        async with stopped_worker(impatient):
            started = time.monotonic()
            answer = await client.execute(COUNT, {"text": "a"}, timeout_ms=300)
            assert 0.3 <= time.monotonic() - started < 4
            assert answer.code == "tool.timeout"
            assert answer.terminal.payload["retryable"] is True
            assert get_states(answer) == ["queued", "timed_out"]
        # It is over also for the worker that comes back to it.
        assert (await client.execute(COUNT, {"text": "b"})).result["state"] == "succeeded"
        execution_id = answer.terminal.details["execution_id"]
        view = (await client.call("executions.get", {"execution": execution_id})).result
        assert (view["state"], view["attempt"]) == ("timed_out", 0)


async def test_files_of_the_workspace_are_searched_with_progress(impatient: Product) -> None:
    async with open_session(impatient.websocket_url, impatient.agent_api_key) as client, client.kept_alive():
        answer = await client.execute("files.search", {"pattern": "needle 7$"})
        assert [match["path"] for match in answer.result["output"]["matches"]] == ["7.txt"]
        assert sum(event.event == "execution.progress" for event in answer.events) >= 10


async def test_after_the_broker_was_lost_runs_and_their_events_go_on_by_themselves(impatient: Product) -> None:
    async with open_session(impatient.websocket_url, impatient.agent_api_key) as client, client.kept_alive():
        assert (await client.execute(COUNT, {"text": "a"})).result["state"] == "succeeded"
        valkey = find_valkey(impatient)
        valkey.kill()
        await asyncio.to_thread(psutil.wait_procs, [valkey], timeout=10)
        # Accepted while the broker is away or just back: sent later, by nobody's hand, and not lost.
        answer = await client.execute(COUNT, {"text": "b"}, timeout_ms=20_000)
        assert answer.result["output"]["words"] == 1

        async with asyncio.timeout(20):
            # Progress is told by wake-ups alone: they come again to a session that was there before.
            while True:
                answer = await client.execute("sample_tools.report", {"times": 3})
                told = [event for event in answer.events if event.event == "execution.progress"]
                status = (await client.call("session.status")).result
                if len(told) == 3 and status["degraded"] == []:
                    break


@pytest.mark.own_web_server
async def test_a_stop_lets_a_run_finish_answers_it_and_closes_with_1012(impatient: Product, tmp_path: Path) -> None:
    path = tmp_path / "go"
    async with open_session(impatient.websocket_url, impatient.agent_api_key) as client, client.kept_alive():
        running = await client.send_command(
            "tools.execute", {"tool": "sample_tools.wait_for", "input": {"path": str(path)}}
        )
        while (await client.wait_for_event("execution.updated")).data["state"] != "running":
            pass
        web = find_web(impatient)
        os.kill(web.pid, signal.SIGTERM)
        await client.wait_for_event("session.draining")
        assert (await client.call("session.ping")).code == "system.unavailable"
        path.touch()
        assert (await client.wait_for_answer(running)).result["output"] == "found"
        assert await client.wait_closed() == 1012
    await asyncio.to_thread(psutil.wait_procs, [web], timeout=10)
    await asyncio.to_thread(wait_until, lambda: impatient.get("healthz")[0] == 200, what="the next web process")


async def test_a_call_that_joined_anothers_run_cancels_it_too(product: Product, keys: Keys, tmp_path: Path) -> None:
    wait = {"tool": "sample_tools.wait_for", "input": {"path": str(tmp_path / "go")}}
    key = uuid.uuid4().hex
    async with open_session(product.websocket_url, keys.agent) as first:
        asked = await first.send_command("tools.execute", wait, idempotency_key=key)
        await first.wait_for_event("execution.progress")
        async with open_session(product.websocket_url, keys.agent) as second:
            joined = await second.send_command("tools.execute", wait, idempotency_key=key)
            while not (await second.call("command.cancel", {"id": joined, "mode": "kill"})).result["cancelled"]:
                # The call is still on its way to the database.
                pass
            # It may have come before the cancellation's own.
            while not (told := [each for each in second.received if each.correlation_id == joined]):
                await second.receive()
            assert told[-1].code == "tool.cancelled"
        assert (await first.wait_for_answer(asked)).code == "tool.cancelled"
