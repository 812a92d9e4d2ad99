"""Killing the product's processes under a load whose tools leave durable traces, and looking at what is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.client import Client, open_session
from tests.services import Product

TERMINAL_STATES = frozenset({"succeeded", "failed", "timed_out", "cancelled", "rejected", "interrupted"})
PATIENCE_SECONDS = 60.0
MARKER = "sleep 3571"
"""What the processes that a tool leaves behind are called."""


@dataclass(kw_only=True)
class FaultyProduct:
    """A product whose processes are killed."""

    product: Product
    trace_dir: Path

    def __post_init__(self) -> None:
        self.trace_dir.mkdir(exist_ok=True)

    def arm(self, failpoint: str) -> Path:
        """Have the next process that passes the point killed; the file that is gone once it was."""
        folder = self.product.data_dir / "run" / "failpoints"
        folder.mkdir(exist_ok=True)
        (folder / failpoint).touch()
        return folder / failpoint

    def count_effects(self, kind: str, key: str) -> int:
        """How often a run took effect."""
        path = self.trace_dir / f"{kind}.{key}"
        return path.stat().st_size if path.exists() else 0

    def list_processes(self, part: str) -> list[psutil.Process]:
        """The processes of a part: ``web``, ``worker`` (its children too), ``scheduler``, ``valkey``."""
        found = []
        for process in self.product.list_processes()[1:]:
            try:
                line = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                # Among them zombies: it was just killed.
                continue
            matches = {
                "web": "serve web" in line,
                "worker": "celeryd" in line or "serve worker" in line,
                "scheduler": "celery beat" in line or "serve scheduler" in line,
                "valkey": "valkey-server" in line or "redis-server" in line,
            }
            if matches[part]:
                found.append(process)
        return found

    def kill(self, part: str) -> int:
        """``kill -9`` all processes of a part; how many."""
        processes = self.list_processes(part)
        for process in processes:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        return len(processes)

    def list_leftovers(self) -> list[str]:
        """What runs have left behind: scratch folders, and processes that tools started."""
        scratch = self.product.data_dir / "scratch"
        folders = [entry.name for entry in scratch.iterdir()] if scratch.exists() else []
        processes = [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline", "status"])
            if MARKER in " ".join(process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE
        ]
        return folders + processes

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[Client]:
        """An agent's session, as soon as one can be had: a process may just be starting again."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    context = open_session(self.product.websocket_url, self.product.agent_api_key)
                    client = await context.__aenter__()
                    break
                except (OSError, ConnectionClosed, InvalidHandshake, AssertionError, TimeoutError):
                    await asyncio.sleep(0.1)
        try:
            yield client
        finally:
            await context.__aexit__(None, None, None)

    async def mark(self, client: Client, kind: str, key: str, *, seconds: float = 0.0, **metadata: Any) -> str:
        """Queue a run of ``fault_tools.mark_<kind>``; the id of its command."""
        arguments = {
            "tool": f"fault_tools.mark_{kind}",
            "input": {"folder": str(self.trace_dir), "key": key, "seconds": seconds},
            "mode": "queue",
        }
        return await client.send_command("tools.execute", arguments, **metadata)

    async def wait_until_over(self, client: Client, execution_id: str) -> dict[str, Any]:
        """The run, once it is in a terminal state."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await client.call("executions.get", {"execution": execution_id})
                if answer.result["state"] in TERMINAL_STATES:
                    result: dict[str, Any] = answer.result
                    return result
                await asyncio.sleep(0.1)

    async def count_states(self, client: Client, execution_ids: list[str]) -> Counter[str]:
        """The runs' terminal states, waited for."""
        return Counter([(await self.wait_until_over(client, item))["state"] for item in execution_ids])


def kill_tree(pid: int) -> None:
    """``kill -9`` a process and all below it at once."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
