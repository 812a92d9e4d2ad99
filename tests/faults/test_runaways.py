"""Tools that do not end, or do not end alone: within their time plus two seconds all of them is gone."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from tests.faults.harness import FaultyProduct
from tests.services import wait_until

TIMEOUT_SECONDS = 1.5
GRACE_SECONDS = 2.0


@pytest.mark.parametrize("tool", ["hang", "loop", "get_stuck", "fork", "flood"])
async def test_a_runaway_is_ended(faulty: FaultyProduct, tool: str) -> None:
    async with faulty.open_session() as client:
        started = time.monotonic()
        runaway = await client.send_command("tools.execute", {"tool": f"fault_tools.{tool}", "input": {}})
        # The other child goes on serving meanwhile.
        other = await client.execute("text.count_words", {"text": "a b"})
        assert other.result["output"]["words"] == 2
        answer = await client.wait_for_answer(runaway)
        took = time.monotonic() - started
        assert answer.code == "tool.timeout"
        assert TIMEOUT_SECONDS <= took < TIMEOUT_SECONDS + GRACE_SECONDS
        wait_until(lambda: not faulty.list_leftovers(), seconds=GRACE_SECONDS, what="nothing left")
        again = await asyncio.gather(client.execute("text.count_words", {"text": "a"}))
        assert again[0].result["state"] == "succeeded"


async def test_what_a_tool_leaves_behind_is_ended_too(faulty: FaultyProduct) -> None:
    async with faulty.open_session() as client:
        assert (await client.execute("fault_tools.leave_daemon")).result["output"] == "left"
    wait_until(lambda: not faulty.list_leftovers(), seconds=GRACE_SECONDS, what="nothing left")


@pytest.mark.parametrize(("mode", "cleaned"), [("graceful", 1), ("kill", 0)])
async def test_a_running_tool_is_cancelled(faulty: FaultyProduct, mode: str, cleaned: int) -> None:
    key = uuid.uuid4().hex
    async with faulty.open_session() as client:
        arguments = {"folder": str(faulty.trace_dir), "key": key}
        running = await client.send_command("tools.execute", {"tool": "fault_tools.clean_up", "input": arguments})
        wait_until(lambda: faulty.count_effects("begun", key), what="the run's beginning")
        cancellation = await client.send_command("command.cancel", {"id": running, "mode": mode})
        answers = await client.wait_for_answers([running, cancellation])
        assert answers[cancellation].result == {"cancelled": True}
        assert answers[running].code == "tool.cancelled"
        execution_id = answers[running].terminal.details["execution_id"]
        assert (await client.call("executions.get", {"execution": execution_id})).result["state"] == "cancelled"
        late = await client.call("executions.cancel", {"execution": execution_id})
        assert late.result == {"cancelled": False}
    assert faulty.count_effects("cleaned", key) == cleaned
