"""Readiness: whether this process could serve a command now: it asks the database, the broker and the workers' leases.

Each check has its own thread and two seconds. A check that hangs keeps its thread and nothing else: who asks meanwhile
waits for the same answer, so that no number of callers adds to the load.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import msgspec
from celery import current_app
from django.db import DatabaseError
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from protocol import ports, storage
from protocol.database_threads import run_with_connections
from protocol.errors import StorageUnavailable
from tools.selectors import count_live_workers

logger = logging.getLogger(__name__)

CHECK_SECONDS: Final = 2.0
REUSE_SECONDS: Final = 0.25
"""An answer this old is given again."""
WRITE_SECONDS: Final = 5.0
"""How long it is taken for granted that the database can be written after it was: a write is a flushed commit."""


class CheckFailed(Exception):
    """The check ran and found fault; the text is a word or two for ``error``."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one check found."""

    status: str
    latency_ms: float
    error: str = ""
    since: str = ""
    """When this process first saw it fail, without a success in between."""
    live: int | None = None


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``/readyz``."""

    status: str
    checks: dict[str, Check]
    degraded: list[str] = []
    """What this process has to do without, and goes on: ``limits``, where it counts by itself."""

    @property
    def is_ready(self) -> bool:
        return self.status == "ok"


class DatabaseCheck:
    """Reads each time; writes too where it is some seconds since that went well. One thread at a time calls it."""

    def __init__(self) -> None:
        self._written_at = -math.inf

    def __call__(self) -> None:
        """
        Raises:
            CheckFailed: it can be read and not written: it is full, say.
            DatabaseError: it does not answer.
        """
        storage.check_readable()
        if time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        try:
            storage.check_writable()
        except DatabaseError as error:
            raise CheckFailed("not writable") from error
        self._written_at = time.monotonic()


def check_broker() -> None:
    """Connect as a sender does."""
    with current_app.connection_for_write() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        with broker.channel():
            pass


def check_workers() -> int:
    """How many workers' leases hold.

    Raises:
        CheckFailed: none does.
    """
    live = count_live_workers()
    if live == 0:
        raise CheckFailed("none")
    return live


CHECKS: Final[dict[str, Callable[[], int | None]]] = {
    "database": DatabaseCheck(),
    "broker": check_broker,
    "workers": check_workers,
}


class Prober:
    """Runs the checks for all who ask, on one event loop at a time."""

    def __init__(self, *, checks: Mapping[str, Callable[[], int | None]], reuse_seconds: float = REUSE_SECONDS) -> None:
        self._checks = checks
        self._reuse_seconds = reuse_seconds
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"check-{name}") for name in checks}
        self._failed_since: dict[str, datetime] = {}
        self._seen_ok: set[str] = set()
        self._running: asyncio.Task[Readiness] | None = None
        self._finished_at = 0.0
        self.is_draining = False

    async def get_readiness(self) -> Readiness:
        """What the checks find now, or found just before."""
        if self._running is None or (
            self._running.done() and time.monotonic() - self._finished_at > self._reuse_seconds
        ):
            self._running = asyncio.get_running_loop().create_task(self._check_all())
        # Shielded: one caller that goes away must not take the answer from the others.
        return await asyncio.shield(self._running)

    async def _check_all(self) -> Readiness:
        found = await asyncio.gather(*(self._check(name) for name in self._checks))
        self._finished_at = time.monotonic()
        checks = dict(zip(self._checks, found, strict=True))
        degraded = ["limits"] if ports.get_limiter().is_degraded() else []
        if self.is_draining:
            return Readiness(status="draining", checks=checks, degraded=degraded)
        is_ok = all(check.status == "ok" for check in found)
        return Readiness(status="ok" if is_ok else "unavailable", checks=checks, degraded=degraded)

    async def _check(self, name: str) -> Check:
        started = time.perf_counter()
        error, result = "", None
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                result = await asyncio.get_running_loop().run_in_executor(
                    self._threads[name], run_with_connections, self._checks[name]
                )
        except TimeoutError:
            error = "timeout"
        except CheckFailed as failure:
            error = str(failure)
        except (StorageUnavailable, DatabaseError, BrokerError, RedisError, OSError):
            error = "unreachable"
        latency_ms = round((time.perf_counter() - started) * 1000, 1)
        self._note(name, error=error)
        if not error:
            return Check(status="ok", latency_ms=latency_ms, live=result)
        since = self._failed_since[name]
        return Check(status="failed", latency_ms=latency_ms, error=error, since=_show_time(since))

    def _note(self, name: str, *, error: str) -> None:
        """Keep since when it fails, and log its changes; before a first success it is only starting."""
        if error and name not in self._failed_since:
            self._failed_since[name] = datetime.now(UTC)
            if name in self._seen_ok:
                logger.warning("not ready: %s: %s", name, error)
        elif not error:
            if self._failed_since.pop(name, None) is not None and name in self._seen_ok:
                logger.warning("ready again: %s", name)
            self._seen_ok.add(name)


def _show_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_prober: Prober | None = None
"""One a process, made when first asked: the threads would not survive a fork."""


def get_prober() -> Prober:
    """This process's prober."""
    global _prober
    if _prober is None:
        _prober = Prober(checks=CHECKS)
    return _prober


def announce_drain() -> None:
    """From now on this process says that it is not ready, so that a balancer sends others."""
    get_prober().is_draining = True


def encode(readiness: Readiness) -> bytes:
    """As JSON."""
    return msgspec.json.encode(readiness)
