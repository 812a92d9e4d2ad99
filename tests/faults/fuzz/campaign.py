"""Both doors fuzzed at once, beside a client that must not notice, and what the server is afterwards."""

from __future__ import annotations

import asyncio
import math
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx2
import psutil

from tests.client import open_session
from tests.faults.fuzz.judge import Tally, TooManyFindings, list_failures, read_logs
from tests.faults.fuzz.requests import RequestFuzzer
from tests.faults.fuzz.seeds import Seeds, read_seeds
from tests.faults.fuzz.sockets import SocketFuzzer
from tests.services import Product, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WARM_UP_SHARE = 0.2
"""Of the frames: what fills caches, pools and the allocator before the memory is first measured."""
MAX_GROWTH_BYTES = 24 * 1024 * 1024
"""How much more the web process may hold at the end than after the warm-up. Were 1 KB kept of
each frame, it would be four times as much in 80,000."""
MAX_DESCRIPTORS = 32
"""By which its open files may differ: each thread that serves a request has three of the database's, for a while."""
PING_SECONDS = 0.05
CONNECTIONS = 16
REQUESTERS = 6
REQUEST_SHARE = 0.1
"""Of what is sent: by HTTP."""

PRODUCT_VARIABLES = {
    "MCP_APPS": "tests.sample_tools",
    "MCP_REQUESTS_PER_MINUTE": "1000000",
    "MCP_SIGN_INS_PER_MINUTE": "1000000",
    "MCP_MAX_MESSAGE_SIZE_BYTES": "65536",
    "MCP_HANDSHAKE_TIMEOUT_SECONDS": "60",
    "MCP_AUTHENTICATION_TIMEOUT_SECONDS": "60",
}
"""Of a product that is fuzzed: what would only refuse is out of the way."""


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """What the web process holds."""

    memory_bytes: int
    """PSS."""
    descriptors: int


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    tally: Tally
    frames: int = 0
    requests: int = 0
    seconds: float = 0.0
    stop_seconds: float = math.inf
    pings_seconds: list[float] = field(default_factory=list)
    before: Vitals | None = None
    after: Vitals | None = None

    def get_ping_seconds(self, share: float) -> float:
        """Below which so large a share of the bystander's pings was answered."""
        ordered = sorted(self.pings_seconds)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf


@dataclass(kw_only=True)
class Campaign:
    """So many frames, from one seed."""

    product: Product
    frames: int
    seed: int
    report: Report = field(default_factory=lambda: Report(tally=Tally()))

    async def run(self) -> Report:
        """Send everything, then stop the product meanwhile; what is wrong is in the report's findings."""
        report, product = self.report, self.product
        since = read_logs(product)
        web = await asyncio.to_thread(find_web, product)
        seeds = await asyncio.to_thread(read_seeds, product, runs=await self._make_runs())
        sockets = SocketFuzzer(product=product, seeds=seeds, tally=report.tally, seed=self.seed)
        started = time.monotonic()
        async with (
            httpx2.AsyncClient(base_url=product.url.rstrip("/"), timeout=30) as client,
            self._open_bystander(seeds.bystander_key),
        ):
            requests = RequestFuzzer(product=product, seeds=seeds, tally=report.tally, seed=self.seed, client=client)
            await requests.discover()
            try:
                for share in (WARM_UP_SHARE, 1.0):
                    await self._send_until(sockets, requests, share)
                    await wait_for_no_connections(web, pinged=1)
                    report.before, report.after = report.after, read_vitals(web)
            except* TooManyFindings:
                # What there is, is told.
                pass
        report.seconds = time.monotonic() - started
        report.frames, report.requests = sockets.frames, requests.requests
        await self._check_end(seeds, web)
        await self._stop_under_fire(seeds)
        report.tally.findings += list_failures(product, since)
        return report

    async def _make_runs(self) -> tuple[str, ...]:
        async with open_session(self.product.websocket_url, self.product.agent_api_key) as client:
            answers = [await client.execute("text.count_words", {"text": "a b"}) for _ in range(3)]
            return tuple(answer.result["execution_id"] for answer in answers)

    async def _send_until(self, sockets: SocketFuzzer, requests: RequestFuzzer, share: float) -> None:
        """Go on until that share of everything was sent."""
        frames = int(self.frames * share * (1 - REQUEST_SHARE))
        asked = int(self.frames * share * REQUEST_SHARE)
        episode, number = iter(range(sockets.frames, 1 << 40)), iter(range(requests.requests, 1 << 40))

        async def repeat(act: Callable[[int], Awaitable[None]], numbers: object, is_done: Callable[[], bool]) -> None:
            while not is_done():
                await act(next(numbers))  # type: ignore[call-overload]  # an iterator of numbers

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(repeat(sockets.run_episode, episode, lambda: sockets.frames >= frames))
            for _ in range(REQUESTERS):
                tasks.create_task(repeat(requests.run_request, number, lambda: requests.requests >= asked))

    @asynccontextmanager
    async def _open_bystander(self, key: str) -> AsyncIterator[None]:
        """Ping all the while on a connection that does nothing wrong."""

        async def ping() -> None:
            async with open_session(self.product.websocket_url, key) as client:
                while True:
                    started = time.monotonic()
                    await client.check_usable()
                    self.report.pings_seconds.append(time.monotonic() - started)
                    await asyncio.sleep(PING_SECONDS)

        pinging = asyncio.create_task(ping())
        try:
            yield
        finally:
            if pinging.done():
                self.report.tally.findings.append(f"the bystander's connection ended: {pinging.exception()!r}")
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)

    async def _stop_under_fire(self, seeds: Seeds) -> None:
        """Stop the product while the frames go on: a draining connection is a state like the others."""
        tally = self.report.tally
        sockets = SocketFuzzer(
            product=self.product, seeds=seeds, tally=tally, seed=self.seed + 1, is_server_stopping=True
        )
        stopping = asyncio.create_task(asyncio.to_thread(self.product.stop))

        async def go_on(first: int) -> None:
            for number in range(first, 1 << 40, CONNECTIONS):
                if stopping.done():
                    return
                await sockets.run_episode(number)

        try:
            async with asyncio.TaskGroup() as tasks:
                for first in range(CONNECTIONS):
                    tasks.create_task(go_on(first))
        except* TooManyFindings:
            # What there is, is told.
            pass
        try:
            self.report.stop_seconds = await stopping
        except subprocess.TimeoutExpired:
            tally.findings.append("the product did not stop")

    async def _check_end(self, seeds: Seeds, web: psutil.Process) -> None:
        """The same process still serves everybody, the fuzzing account too."""
        findings = self.report.tally.findings
        if not web.is_running() or web.status() == psutil.STATUS_ZOMBIE:
            findings.append("the web process has ended")
            return
        for key in (seeds.key, seeds.bystander_key):
            async with open_session(self.product.websocket_url, key) as client:
                await client.check_usable()
        before, after = self.report.before, self.report.after
        if before is None or after is None:
            return
        grown = after.memory_bytes - before.memory_bytes
        if grown > MAX_GROWTH_BYTES:
            findings.append(f"the web process has grown by {grown / 1e6:.1f} MB")
        if abs(after.descriptors - before.descriptors) > MAX_DESCRIPTORS:
            findings.append(f"open files: {before.descriptors}, then {after.descriptors}")


def find_web(product: Product) -> psutil.Process:
    """The one web process."""
    (web,) = (process for process in product.list_processes() if "serve web" in " ".join(process.cmdline()))
    return web


async def wait_for_no_connections(web: psutil.Process, *, pinged: int) -> None:
    """Until the server has let go of what the fuzzers opened; ``pinged`` connections stay."""

    def count() -> int:
        return sum(entry.status == psutil.CONN_ESTABLISHED for entry in web.net_connections(kind="tcp"))

    # The HTTP clients keep theirs open.
    await asyncio.to_thread(
        wait_until, lambda: count() <= pinged + REQUESTERS + 1, seconds=60, what="the end of the fuzzers' connections"
    )


def read_vitals(web: psutil.Process) -> Vitals:
    return Vitals(memory_bytes=web.memory_full_info().pss, descriptors=web.num_fds())
