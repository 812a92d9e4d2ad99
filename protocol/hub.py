"""What one web process does for all of its links: wake-ups in, outbox reads, deadlines, revocations, signs of life.

One hub an event loop, started with the first connection. Outbox reads are shared: whatever asked while one read was
on its way is served by the next, in one hop to a database thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter
from datetime import timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer
from django.conf import settings
from django.utils import timezone

from protocol import outbox, ports, revocations, sessions
from protocol.database_threads import get_database_threads
from protocol.domain.expiry import DEFAULT_EXPIRY_TIMES, ExpiryStage, ExpiryTimes, get_expiry_stage
from protocol.domain.sealed import DEFAULT_REKEY_LIMITS, RekeyLimits
from protocol.domain.states import Close, State
from protocol.errors import MCPError
from protocol.link import Link
from protocol.registry import Deferred
from protocol.wakeups import decode_wakeup

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
POLL_SECONDS = 1.0
"""How often the outbox is read without a wake-up."""
WATCH_SECONDS = 0.5
"""How often it is asked whether anything was revoked."""
SLOW_READER_SECONDS = 10.0
HEARTBEATS_MISSED = 2
RECONNECT_SECONDS = 1.0
ECHO: Final = {"echo": True}
ECHO_MISSED_SECONDS = 3.0
DRAIN_CHECK_SECONDS = 0.02
SETTLE_SECONDS = 2.0
CANCEL_AGAIN_SECONDS = 0.1
CHANNEL_SECONDS = 1.0
"""How long a new session waits for the broker, without which its answers come by the timer."""
EXPIRE_GRACE_SECONDS = 1.0
"""How long after its deadline a command is left to whoever runs it, before the web process ends it."""


class Hub:
    """See the module. Belongs to one event loop."""

    def __init__(
        self, *, expiry_times: ExpiryTimes = DEFAULT_EXPIRY_TIMES, rekey_limits: RekeyLimits = DEFAULT_REKEY_LIMITS
    ) -> None:
        self.channel = ""
        self.rekey_limits = rekey_limits
        self.expiry_times = expiry_times
        self._has_channel = asyncio.Event()
        self.links: set[Link] = set()
        self._by_address: Counter[str] = Counter()
        self.is_draining = False
        self._by_session: dict[uuid.UUID, Link] = {}
        self._wanting: set[Link] = set()
        self._delivery_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_poll = self._last_seen = self._last_echo = time.monotonic()
        self._echo: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the hub's own tasks; again, it does nothing."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(run()) for run in (self._receive, self._deliver, self._keep_time, self._watch)
            ]

    async def stop(self) -> None:
        """Cancel the hub's own tasks."""
        tasks = {*self._tasks, *([self._echo] if self._echo is not None else [])}
        while tasks:
            for task in tasks:
                task.cancel()
            # Again and again: the broker's client loses a cancellation that meets it while it connects.
            _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_SECONDS)
        self._tasks = []
        self.channel = ""
        self._has_channel.clear()

    def add(self, link: Link) -> None:
        self.links.add(link)
        self._by_address[ports.get_limiter().get_address_key(address=link.remote_address)] += 1

    def remove(self, link: Link) -> None:
        if link in self.links:
            self.links.discard(link)
            key = ports.get_limiter().get_address_key(address=link.remote_address)
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]
        self._wanting.discard(link)
        if self._by_session.get(link.session_id) is link:
            del self._by_session[link.session_id]

    def count_from(self, address: str | None) -> int:
        """How many connections this process has from the address, authenticated or not."""
        return self._by_address[ports.get_limiter().get_address_key(address=address)]

    def add_session(self, link: Link) -> None:
        """The link has its session: wake-ups for it are for this link."""
        self._by_session[link.session_id] = link

    def keep_expiry(self, link: Link) -> None:
        """Say once that the link's credential ends soon; close when it ended long enough ago."""
        if link.principal is None or not link.is_authenticated:
            return
        expires_at = link.principal.expires_at
        match get_expiry_stage(expires_at=expires_at, now=timezone.now(), times=self.expiry_times):
            case ExpiryStage.EXPIRING if link.warned_of != expires_at:
                link.warned_of = expires_at
                link.emit("session.token_expiring", {"expires_at": expires_at}, correlation_id=None)
            case ExpiryStage.OVER:
                link.close(Close.TOKEN_EXPIRED)

    async def wait_for_channel(self) -> None:
        """Wait for a moment until wake-ups can arrive: a session opened before would never get any."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHANNEL_SECONDS):
                await self._has_channel.wait()

    def get_degraded(self) -> list[str]:
        """What this process has to do without.

        ``broker``, where its own wake-ups do not come back; ``limits``, where it counts by itself.
        """
        found = ["broker"] if time.monotonic() - self._last_echo > ECHO_MISSED_SECONDS else []
        return [*found, "limits"] if ports.get_limiter().is_degraded() else found

    def request_delivery(self, link: Link) -> None:
        """Read the session's outbox soon."""
        self._wanting.add(link)
        self._delivery_wanted.set()

    # Wake-ups

    async def _receive(self) -> None:
        layer = get_channel_layer()
        assert layer is not None  # noqa: S101  # the settings always configure one
        while True:
            try:
                if not self.channel:
                    await self._take_channel(await layer.new_channel())
                while True:
                    self._take_wakeup(await layer.receive(self.channel))
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever the broker's client raises, the outbox is polled
                logger.warning("Wake-ups cannot be received (%s); trying again.", type(error).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _take_channel(self, channel: str) -> None:
        """From now on wake-ups arrive there. The name stays: sessions that are opened with it are woken by it."""
        self.channel = channel
        self._has_channel.set()
        if self._by_session:
            # Opened while the broker was away.
            await get_database_threads().run(sessions.set_channel, session_ids=list(self._by_session), channel=channel)

    def _take_wakeup(self, message: dict[str, object]) -> None:
        if message == ECHO:
            self._last_echo = time.monotonic()
            return
        try:
            wakeup = decode_wakeup(message)
        except (KeyError, TypeError, ValueError):
            logger.warning("A wake-up of unknown form was passed over.")
            return
        link = self._by_session.get(wakeup.session_id)
        if link is None:
            return
        for event in wakeup.events:
            link.emit_ridden(event)
        if wakeup.has_outbox:
            self.request_delivery(link)

    def _send_echo(self) -> None:
        """Wake ourselves: whether it arrives tells whether others' wake-ups do."""
        layer = get_channel_layer()
        if layer is not None and self.channel and (self._echo is None or self._echo.done()):
            self._echo = asyncio.get_running_loop().create_task(self._try_echo(layer))

    async def _try_echo(self, layer: Any) -> None:
        # Whatever the broker's client raises, the echo that does not come back says it.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(layer.send(self.channel, ECHO), timeout=ECHO_MISSED_SECONDS)

    # The outbox

    async def _deliver(self) -> None:
        while True:
            await self._delivery_wanted.wait()
            self._delivery_wanted.clear()
            wanting, self._wanting = self._wanting, set()
            try:
                await self._deliver_to(wanting)
            except MCPError as error:
                logger.warning("The outbox cannot be read (%s); trying again.", error.code)
            except Exception:
                # The edge of a task that must not end: nobody else would deliver.
                logger.exception("The outbox cannot be read; trying again.")
            else:
                continue
            await asyncio.sleep(POLL_SECONDS)
            for link in wanting & self.links:
                self.request_delivery(link)

    async def _deliver_to(self, wanting: set[Link]) -> None:
        positions = {link.session_id: link.answers.delivery.position for link in wanting}
        found = await get_database_threads().run(outbox.read_after, positions)
        for link in wanting:
            entries = found.get(link.session_id)
            if entries and link in self.links:
                self._deliver_one(link, entries)
        if sum(map(len, found.values())) >= outbox.READ_LIMIT:
            for link in wanting & self.links:
                self.request_delivery(link)

    def _deliver_one(self, link: Link, entries: list[outbox.OutboxEntry]) -> None:
        try:
            link.answers.deliver(entries)
        except Exception:
            # One session's message that cannot be sent is not the others' harm.
            logger.exception("Session %s cannot be delivered to", link.session_id)
            link.close(Close.FAILED)
        link.flush_soon()

    # Time

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._tick()
            except MCPError as error:
                logger.warning("The hub's tick failed (%s); trying again.", error.code)
            except Exception:
                # The edge of a task that must not end: no deadline would be kept any more.
                logger.exception("The hub's tick failed; trying again.")

    async def _tick(self) -> None:
        now = time.monotonic()
        for link in list(self.links):
            self.keep_expiry(link)
            link.manners.note_time()
            if link.connection.ask_for_rekey(self.rekey_limits):
                link.flush_soon()
            if link.writer.blocked_since is not None and now - link.writer.blocked_since > SLOW_READER_SECONDS:
                link.cut_off()
                continue
            reason = get_overdue(link, now=now)
            if reason is not None:
                link.close(reason)
        await self._expire_deferred()
        if now - self._last_poll >= POLL_SECONDS:
            self._last_poll = now
            self._send_echo()
            for link in self.links:
                if link.answers.deferred:
                    self.request_delivery(link)
            await self._acknowledge()
        if now - self._last_seen >= sessions.SEEN_INTERVAL_SECONDS:
            self._last_seen = now
            if self._by_session:
                await self._say_connected()

    async def _say_connected(self) -> None:
        """Keep the sessions' rows alive, and close what has none any more: nobody would write to its outbox."""
        ended = await get_database_threads().run(sessions.touch_sessions, session_ids=list(self._by_session))
        if not ended:
            return
        revoked = await get_database_threads().run(sessions.list_revoked, session_ids=ended)
        for session_id in ended:
            link = self._by_session.get(session_id)
            if link is not None:
                link.close(Close.REVOKED if session_id in revoked else Close.FAILED)

    async def _watch(self) -> None:
        is_failing = False
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await revocations.look_again(list(self.links))
            except MCPError as error:
                if not is_failing:
                    logger.warning("Revocations cannot be read (%s); trying again.", error.code)
                is_failing = True
            except Exception:
                # The edge of a task that must not end: nothing would be revoked any more.
                logger.exception("Revocations cannot be read; trying again.")
            else:
                is_failing = False

    async def _acknowledge(self) -> None:
        news = {
            link: link.answers.delivery.acknowledged
            for link in self.links
            if link.answers.delivery.acknowledged > link.answers.forgotten
        }
        if news:
            await get_database_threads().run(
                outbox.acknowledge, {link.session_id: sequence for link, sequence in news.items()}
            )
            for link, sequence in news.items():
                link.answers.forgotten = sequence

    async def _expire_deferred(self) -> None:
        deadline = timezone.now() - timedelta(seconds=EXPIRE_GRACE_SECONDS)
        for link in list(self.links):
            for message_id, deferred in link.answers.get_expired(deadline).items():
                await self._expire_one(link, message_id, deferred)

    async def _expire_one(self, link: Link, message_id: str, deferred: Deferred) -> None:
        try:
            await get_database_threads().run(deferred.expire)
        except MCPError as error:
            logger.warning("Command %s cannot be ended (%s); trying again.", message_id, error.code)
        except Exception:
            # One command's failure is not the others' harm.
            logger.exception("Command %s cannot be ended; trying again.", message_id)
        else:
            link.answers.settle_expired(message_id)
            self.request_delivery(link)


def get_overdue(link: Link, *, now: float) -> Close | None:
    """Why the link must be closed at this moment of the monotonic clock, if it must."""
    limits = settings.MCP
    state = link.connection.state
    open_for = now - link.opened_tick
    if state is State.HANDSHAKING and open_for > limits.handshake_timeout_seconds:
        return Close.DEADLINE_MISSED
    if state is State.AUTHENTICATING:
        allowed = limits.handshake_timeout_seconds + limits.authentication_timeout_seconds
        return Close.DEADLINE_MISSED if open_for > allowed else None
    if state is State.READY and now - link.seen_tick > HEARTBEATS_MISSED * limits.heartbeat_interval_seconds:
        return Close.DEADLINE_MISSED
    return None


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def get_hub() -> Hub:
    """The running loop's hub."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub()
    return hub


async def drain(*, timeout_seconds: float) -> None:
    """Shut the loop's connections down: no new command, answers to what runs within the time, then 1012 to everyone.

    What is still running then goes on in its worker; nothing accepted depends on this process.
    """
    hub = get_hub()
    hub.is_draining = True
    ends_at = time.monotonic() + timeout_seconds
    for link in list(hub.links):
        link.connection.begin_drain()
        link.emit("session.draining", {"timeout_ms": int(timeout_seconds * 1000)}, correlation_id=None)
    # The last half second is for the closing frames.
    # What is waited for has many places that end it.
    while time.monotonic() < ends_at - 0.5 and any(link.connection.activity.pending for link in hub.links):  # noqa: ASYNC110
        await asyncio.sleep(DRAIN_CHECK_SECONDS)
    for link in list(hub.links):
        link.close(Close.RESTARTING)
    while time.monotonic() < ends_at and hub.links:  # noqa: ASYNC110  # as above
        await asyncio.sleep(DRAIN_CHECK_SECONDS)
    with contextlib.suppress(asyncio.CancelledError):
        await hub.stop()
    # Or the other processes would miss, for a while, what this one held.
    await asyncio.to_thread(ports.get_limiter().stop)
    # And what is counted and was told already would not be on record.
    await asyncio.to_thread(ports.get_recorder().settle, timeout_seconds=SETTLE_SECONDS)
