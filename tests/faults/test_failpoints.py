"""A process dies at each commit that matters: what was accepted ends, and nothing runs twice that may not."""

from __future__ import annotations

import uuid

import pytest
from websockets.exceptions import ConnectionClosed

from protocol.failpoints import NAMES
from tests.faults.harness import FaultyProduct
from tests.faults.test_key_rotation import REWRAP_POINTS, ROTATE_POINTS
from tests.services import wait_until

WORKER_CASES = [
    # Point, tool, state, attempts, effects.
    ("claim.before_commit", "once", "succeeded", 1, 1),
    ("claim.before_commit", "again", "succeeded", 1, 1),
    ("claim.after_commit", "once", "interrupted", 1, 0),
    ("claim.after_commit", "again", "succeeded", 2, 1),
    ("run.after_tool", "once", "interrupted", 1, 1),
    ("run.after_tool", "again", "succeeded", 2, 2),
    ("finish.before_commit", "once", "interrupted", 1, 1),
    ("finish.before_commit", "again", "succeeded", 2, 2),
    ("finish.after_commit", "once", "succeeded", 1, 1),
    ("finish.after_commit", "again", "succeeded", 1, 1),
]
ACCEPT_CASES = [
    # Point, and whether the first call was accepted although its caller was not told.
    ("accept.before_commit", False),
    ("accept.after_commit", True),
    ("accept.after_send", True),
]


@pytest.mark.parametrize(("point", "kind", "state", "attempts", "effects"), WORKER_CASES)
async def test_a_worker_dies(
    faulty: FaultyProduct, point: str, kind: str, state: str, attempts: int, effects: int
) -> None:
    key = uuid.uuid4().hex
    armed = faulty.arm(point)
    async with faulty.open_session() as client:
        answer = await client.execute(
            f"fault_tools.mark_{kind}", {"folder": str(faulty.trace_dir), "key": key}, timeout_ms=50_000
        )
        wait_until(lambda: not armed.exists(), what="the process's end")
        is_done = answer.terminal.type == "response"
        execution_id = answer.result["execution_id"] if is_done else answer.terminal.details["execution_id"]
        run = (await client.call("executions.get", {"execution": execution_id})).result
    assert (run["state"], run["attempt"], faulty.count_effects(kind, key)) == (state, attempts, effects)
    assert is_done == (state == "succeeded")
    wait_until(lambda: not faulty.list_leftovers(), what="an empty scratch folder")


@pytest.mark.parametrize(("point", "is_accepted"), ACCEPT_CASES)
async def test_the_web_process_dies_while_it_accepts(faulty: FaultyProduct, point: str, is_accepted: bool) -> None:
    key = uuid.uuid4().hex
    armed = faulty.arm(point)
    async with faulty.open_session() as client:
        await faulty.mark(client, "once", key, idempotency_key=key)
        with pytest.raises(ConnectionClosed):
            await client.wait_for_answer("never")
    assert not armed.exists()
    async with faulty.open_session() as client:
        answer = await client.wait_for_answer(await faulty.mark(client, "once", key, idempotency_key=key))
        assert answer.terminal.payload.get("duplicate", False) is is_accepted
        run = await faulty.wait_until_over(client, answer.result["execution_id"])
    assert (run["state"], faulty.count_effects("once", key)) == ("succeeded", 1)


@pytest.mark.parametrize(("point", "is_taken"), [("cancel.before_commit", False), ("cancel.after_commit", True)])
async def test_the_web_process_dies_while_it_cancels(faulty: FaultyProduct, point: str, is_taken: bool) -> None:
    key = uuid.uuid4().hex
    async with faulty.open_session() as client:
        answer = await client.execute(
            "fault_tools.clean_up", {"folder": str(faulty.trace_dir), "key": key}, mode="queue"
        )
        execution_id = answer.result["execution_id"]
        wait_until(lambda: faulty.count_effects("begun", key), what="the run's beginning")
        armed = faulty.arm(point)
        await client.send_command("executions.cancel", {"execution": execution_id})
        with pytest.raises(ConnectionClosed):
            await client.wait_for_answer("never")
    assert not armed.exists()
    async with faulty.open_session() as client:
        if not is_taken:
            state = (await client.call("executions.get", {"execution": execution_id})).result["state"]
            assert state == "running"
            assert (await client.call("executions.cancel", {"execution": execution_id})).result == {"cancelled": True}
        run = await faulty.wait_until_over(client, execution_id)
    assert (run["state"], faulty.count_effects("cleaned", key)) == ("cancelled", 1)


@pytest.mark.parametrize("point", ["recover.before_commit", "recover.after_commit"])
async def test_whoever_recovers_a_run_dies_too(faulty: FaultyProduct, point: str) -> None:
    key = uuid.uuid4().hex
    faulty.arm("run.after_tool")
    armed = faulty.arm(point)
    async with faulty.open_session() as client:
        answer = await client.wait_for_answer(await faulty.mark(client, "again", key))
        run = await faulty.wait_until_over(client, answer.result["execution_id"])
    assert not armed.exists()
    assert (run["state"], run["attempt"], faulty.count_effects("again", key)) == ("succeeded", 2, 2)


def test_every_failpoint_is_tried() -> None:
    tried = {case[0] for case in [*WORKER_CASES, *ACCEPT_CASES]}
    # By ``test_sealing``.
    tried |= {"seal.before_commit", "seal.after_commit", "sign.before_commit", "sign.after_commit"}
    # By ``test_key_rotation``.
    tried |= {*ROTATE_POINTS, *REWRAP_POINTS}
    # By ``test_port_leases``.
    tried |= {"run.after_lease", "lease.before_commit", "lease.after_commit"}
    assert (
        tried | {"cancel.before_commit", "cancel.after_commit", "recover.before_commit", "recover.after_commit"}
        == NAMES
    )
