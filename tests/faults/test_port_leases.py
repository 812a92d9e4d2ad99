"""Processes die while ports are leased: no port stays taken, and none is had by two."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.client import Client
from tests.faults.harness import FaultyProduct
from tests.services import wait_until

PATIENCE_SECONDS = 100.0
"""A session whose process is gone is found to be so after 45 s, by a look every 30 s."""


async def list_leases(client: Client, **filters: Any) -> list[dict[str, Any]]:
    leases: list[dict[str, Any]] = (await client.call("ports.list", {"limit": 200, **filters})).result["leases"]
    return leases


@pytest.mark.parametrize(("point", "is_leased"), [("lease.before_commit", False), ("lease.after_commit", True)])
async def test_the_web_process_dies_while_it_leases(faulty: FaultyProduct, point: str, is_leased: bool) -> None:
    armed = faulty.arm(point)
    async with faulty.open_session() as client:
        session = client.session_id
        await client.send_command("ports.allocate", {"purpose": "faults"})
        with pytest.raises(ConnectionClosed):
            await client.wait_for_answer("never")
    assert not armed.exists()
    async with faulty.open_session() as client:
        left = await list_leases(client, session=session)
        assert [lease["state"] for lease in left] == ["reserved"] * is_leased
        mine = (await client.call("ports.allocate", {"purpose": "faults"})).result
        assert mine["port"] not in {lease["port"] for lease in left}
        async with client.kept_alive(every_seconds=5), asyncio.timeout(PATIENCE_SECONDS):
            while await list_leases(client, session=session, state=["reserved", "active", "draining"]):  # noqa: ASYNC110  # asked anew each time
                await asyncio.sleep(0.5)
        reasons = {lease["end_reason"] for lease in await list_leases(client, session=session)}
        assert reasons == ({"session_ended"} if is_leased else set())


@pytest.mark.parametrize("how", ["run.after_lease", "kill"])
async def test_the_worker_dies_while_its_tool_holds_a_port(faulty: FaultyProduct, how: str) -> None:
    async with faulty.open_session() as client:
        if how != "kill":
            armed = faulty.arm(how)
        asked = await client.execute(
            "fault_tools.hold_port", {"folder": str(faulty.trace_dir), "key": how}, mode="queue"
        )
        execution_id = asked.result["execution_id"]
        if how == "kill":
            wait_until(lambda: faulty.count_effects("port", how), what="the tool's hold of its port")
            assert faulty.kill("worker")
        else:
            wait_until(lambda: not armed.exists(), what="the process's end")
        run = await faulty.wait_until_over(client, execution_id)
        assert run["state"] == "interrupted"

        async def get_states() -> set[str]:
            return {lease["state"] for lease in await list_leases(client) if lease["holder_id"] == execution_id}

        async with client.kept_alive(every_seconds=5), asyncio.timeout(PATIENCE_SECONDS):
            while await get_states() != {"released"}:  # noqa: ASYNC110  # asked anew each time
                await asyncio.sleep(0.2)
