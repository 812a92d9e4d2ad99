"""The database or the broker is away: refused or kept, never half done, and all by itself again."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from django.conf import settings

from tests.faults.harness import FaultyProduct
from tests.services import wait_until

RUNS = 30


@contextmanager
def full_disk(processes: list[psutil.Process]) -> Iterator[None]:
    """Let them write no file beyond what it has, as on a disk that is full."""
    before = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in processes]
    for process, (_, hard) in before:
        process.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for process, limits in before:
            process.rlimit(psutil.RLIMIT_FSIZE, limits)


@contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """Processes that are there and do nothing."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def count_words() -> dict[str, object]:
    return {"tool": "text.count_words", "input": {"text": "a b"}, "mode": "queue"}


@pytest.mark.skipif(settings.MCP.database_url is not None, reason="the disk is the server's there, not the product's")
async def test_a_full_disk_refuses_what_changes_something_and_is_over_when_there_is_room(faulty: FaultyProduct) -> None:
    async with faulty.open_session() as client:
        assert (await client.call("tools.execute", count_words())).result["state"] == "queued"
        with full_disk(faulty.list_processes("web")):
            refused = [await client.call("tools.execute", count_words()) for _ in range(3)]
            assert {answer.code for answer in refused} == {"system.storage_unavailable"}
            assert all(answer.terminal.payload["retryable"] for answer in refused)
            assert "text.count_words" in str((await client.call("tools.list")).result)
            await asyncio.to_thread(
                wait_until, lambda: read_check(faulty, "database").get("error") == "not writable", what="a full disk"
            )
            assert read_check(faulty, "database")["since"]
        await asyncio.to_thread(
            wait_until, lambda: read_check(faulty, "database")["status"] == "ok", what="a disk that has room"
        )
        key = uuid.uuid4().hex
        accepted = await client.call("tools.execute", count_words(), idempotency_key=key)
        assert (await faulty.wait_until_over(client, accepted.result["execution_id"]))["state"] == "succeeded"
        # Nothing of the refused ones is there: the numbers go on without a gap.
        again = await client.call("tools.execute", count_words())
        assert again.terminal.sequence == (accepted.terminal.sequence or 0) + 1


async def test_with_the_broker_away_runs_are_accepted_and_sent_once_it_is_back(faulty: FaultyProduct) -> None:
    keys = [uuid.uuid4().hex for _ in range(4)]
    async with faulty.open_session() as client, client.kept_alive():
        with stopped(faulty.list_processes("valkey")):
            asked = {await faulty.mark(client, "once", key): key for key in keys}
            answers = await client.wait_for_answers(asked)
            runs = [answer.result["execution_id"] for answer in answers.values()]
            await asyncio.to_thread(
                wait_until, lambda: read_check(faulty, "broker").get("since"), what="a broker that is missed"
            )
        assert await faulty.count_states(client, runs) == {"succeeded": len(keys)}
        assert [faulty.count_effects("once", key) for key in keys] == [1] * len(keys)
        await asyncio.to_thread(
            wait_until, lambda: read_check(faulty, "broker")["status"] == "ok", what="a broker that is back"
        )


def read_check(faulty: FaultyProduct, name: str) -> dict[str, str]:
    """What ``/readyz`` says of it."""
    check: dict[str, str] = json.loads(faulty.product.get("readyz")[1])["checks"][name]
    return check


async def test_workers_that_are_restarted_one_after_the_other_under_load_lose_nothing(faulty: FaultyProduct) -> None:
    keys = [uuid.uuid4().hex for _ in range(RUNS)]
    async with faulty.open_session() as client, client.kept_alive():
        asked = {await faulty.mark(client, "once", key, seconds=0.1): key for key in keys}
        answers = await client.wait_for_answers(asked)
        for _ in range(2):
            before = faulty.list_processes("worker")
            # The parent alone is asked, as a supervisor does it.
            next(process for process in before if process.ppid() == faulty.product.run_file["pid"]).terminate()
            await asyncio.to_thread(psutil.wait_procs, before, timeout=20)
            await asyncio.to_thread(wait_until, lambda: faulty.list_processes("worker"), what="the next worker")
        runs = [answer.result["execution_id"] for answer in answers.values()]
        assert await faulty.count_states(client, runs) == {"succeeded": RUNS}
    assert [faulty.count_effects("once", key) for key in keys] == [1] * RUNS
    wait_until(lambda: not faulty.list_leftovers(), what="nothing left")
