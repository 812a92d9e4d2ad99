"""Processes are killed in the middle of a load: every accepted run ends, none runs twice that may not."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid

import pytest

from tests.client import Client
from tests.faults.harness import FaultyProduct, kill_tree
from tests.services import wait_until

RUNS = 50
SECONDS_EACH = 0.05


async def start_runs(faulty: FaultyProduct, client: Client, kind: str) -> dict[str, str]:
    """``RUNS`` accepted runs: their ids, by key."""
    keys = [uuid.uuid4().hex for _ in range(RUNS)]
    asked = {await faulty.mark(client, kind, key, seconds=SECONDS_EACH): key for key in keys}
    answers = await client.wait_for_answers(asked)
    return {asked[command]: answer.result["execution_id"] for command, answer in answers.items()}


async def wait_for_some(faulty: FaultyProduct, runs: dict[str, str], kind: str) -> None:
    """Until the load is in its middle."""
    while sum(bool(faulty.count_effects(kind, key)) for key in runs) < RUNS // 5:  # noqa: ASYNC110  # files are what is waited for
        await asyncio.sleep(0.01)


async def check(faulty: FaultyProduct, once: dict[str, str], again: dict[str, str]) -> None:
    """What must hold, whatever was killed."""
    async with faulty.open_session() as client:
        states_again = await faulty.count_states(client, list(again.values()))
        states_once = await faulty.count_states(client, list(once.values()))
    assert states_again == {"succeeded": RUNS}
    assert set(states_once) <= {"succeeded", "interrupted"}
    assert all(faulty.count_effects("again", key) >= 1 for key in again)
    assert all(faulty.count_effects("once", key) <= 1 for key in once)
    succeeded = states_once["succeeded"]
    assert sum(faulty.count_effects("once", key) for key in once) >= succeeded
    wait_until(lambda: not faulty.list_leftovers(), what="nothing left")


@pytest.mark.parametrize("part", ["worker", "web", "valkey", "scheduler"])
async def test_a_part_is_killed_in_the_middle(faulty: FaultyProduct, part: str) -> None:
    async with faulty.open_session() as client:
        again = await start_runs(faulty, client, "again")
        once = await start_runs(faulty, client, "once")
        await wait_for_some(faulty, again, "again")
        assert faulty.kill(part)
    await check(faulty, once, again)


async def test_valkey_is_killed_and_loses_its_data(faulty: FaultyProduct) -> None:
    async with faulty.open_session() as client:
        again = await start_runs(faulty, client, "again")
        once = await start_runs(faulty, client, "once")
        await wait_for_some(faulty, again, "again")
        folder = faulty.product.data_dir / "valkey"
        assert folder.is_dir()
        assert faulty.kill("valkey")
        shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
    await check(faulty, once, again)


async def test_everything_is_killed_and_started_again(faulty: FaultyProduct) -> None:
    async with faulty.open_session() as client:
        again = await start_runs(faulty, client, "again")
        once = await start_runs(faulty, client, "once")
        await wait_for_some(faulty, again, "again")
        assert faulty.product.process is not None
        kill_tree(faulty.product.process.pid)
        faulty.product.process.wait(10)
    (faulty.product.data_dir / "run" / "serve.json").unlink()
    faulty.product.start()
    ready_at = time.monotonic()
    await check(faulty, once, again)
    assert time.monotonic() - ready_at < 30
