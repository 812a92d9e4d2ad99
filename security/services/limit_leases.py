"""What a process holds of each count, and the threads that lease more of it. Who takes from it is ``limiting``.

A lease costs a round trip; it is asked for before the last one is used up, and all that is asked for meanwhile goes
with the next. A source that fails is asked again each second; until then ``fail`` says what its counts are given.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from django.utils import timezone

from security.domain.chunks import Bucket, Chunk
from security.domain.limits import LimitRule, get_window_start
from security.services.limit_sources import Ask, Grant, SourceUnavailable

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often unused tokens are looked for, and a source is asked again that was gone."""
FORGET_LOOKS: Final = 60
"""A count that was not used for so many looks is forgotten here; its bucket is not."""
QUOTA_RECHECK_SECONDS: Final = 2.0
"""How often a quota that was used up is looked at again: another process may have given some back."""
STOP_SECONDS: Final = 1.0
MAX_COUNTS: Final = 50_000
"""Counts that a process keeps. Beyond it the oldest is forgotten, which gives back what it held."""


class Count:
    """What this process knows of one limit's count of one subject."""

    __slots__ = ("chunk", "is_needed", "local", "owed", "remaining", "retry_at", "rule", "subject", "waiters", "window")

    def __init__(self, *, rule: LimitRule, subject: str) -> None:
        self.rule = rule
        self.subject = subject
        self.chunk = Chunk(burst=rule.burst)
        self.is_needed = False
        """Whether the lease that is wanted is to bring anything; else it only settles what is owed."""
        self.owed = 0
        """To be told with the next lease: below 0 is what is given back, above it what was used without a lease."""
        self.remaining = rule.burst
        """For all processes, as of the last lease."""
        self.retry_at = 0.0
        """When there is something again, as far as is known; monotonic seconds."""
        self.local: Bucket | None = None
        """This process's share, while Redis is gone."""
        self.waiters: list[Future[None]] = []
        self.window = get_window_start(period=rule.period, now=timezone.now()) if rule.period.is_quota else None


class Leaser:
    """The thread that leases from one source, and the counts that it leases for."""

    def __init__(
        self,
        *,
        name: str,
        lock: threading.Lock,
        lease: Callable[[Sequence[Ask]], list[Grant]],
        fail: Callable[[list[Count]], None],
    ) -> None:
        self.lock = lock
        """Of all leasers of the process: a command takes from several counts at once."""
        self.counts: dict[tuple[LimitRule, str], Count] = {}
        self.is_failing = False
        self._name = name
        self._lease, self._fail = lease, fail
        self._wanted: list[Count] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ask_again_at = 0.0
        self._looked_at = 0.0

    def find(self, *, rule: LimitRule, subject: str) -> Count:
        """The count of this rule for this subject."""
        key = (rule, subject)
        with self.lock:
            count = self.counts.get(key)
            if count is None:
                while len(self.counts) >= MAX_COUNTS:
                    self._give_back(self.counts.pop(next(iter(self.counts))))
                count = self.counts[key] = Count(rule=rule, subject=subject)
            return count

    def want(self, count: Count) -> None:
        """Lease for it soon. The caller holds the lock."""
        count.chunk.is_wanted = True
        self._wanted.append(count)
        if self._thread is None or not self._thread.is_alive():
            # Made at first use: it would not survive a fork.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._wake.set()

    def _give_back(self, count: Count) -> None:
        count.owed -= count.chunk.drop()
        if count.owed and not count.chunk.is_wanted:
            self.want(count)

    def stop(self) -> None:
        """Give everything back and end the thread; a later wish starts anew."""
        with self.lock:
            thread, self._thread = self._thread, None
            counts = list(self.counts.values())
            self.counts.clear()
        if thread is None:
            return
        self._wake.set()
        thread.join(STOP_SECONDS)
        with self.lock:
            wanted, self._wanted = self._wanted, []
            for count in counts:
                count.owed -= count.chunk.drop()
            owing = [count for count in counts if count.owed or count.waiters]
        self._serve(list(dict.fromkeys([*wanted, *owing])))

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            with self.lock:
                if time.monotonic() - self._looked_at >= LOOK_SECONDS:
                    self._look()
                wanted, self._wanted = self._wanted, []
                is_due = bool(wanted) or (bool(self.counts) and time.monotonic() >= self._ask_again_at)
            if is_due:
                try:
                    self._serve(wanted)
                except Exception:
                    # The edge of a thread that must not end: nobody would be let through any more.
                    logger.exception("%s: the lease failed", self._name)
                    with self.lock:
                        settle(wanted)

    def _look(self) -> None:
        """Give back what nobody uses, forget who is gone, and let go of what was a window's that is over."""
        self._looked_at = time.monotonic()
        now = timezone.now()
        for key, count in list(self.counts.items()):
            if count.window is not None and count.window != (
                window := get_window_start(period=count.rule.period, now=now)
            ):
                count.chunk.drop()
                count.owed, count.window, count.chunk.refused_until, count.retry_at = 0, window, 0.0, 0.0
            elif dropped := count.chunk.look():
                count.owed -= dropped
            if count.owed and not count.chunk.is_wanted and not self.is_failing:
                self.want(count)
            elif count.chunk.idle_looks > FORGET_LOOKS and not count.owed:
                del self.counts[key]

    def _serve(self, wanted: list[Count]) -> None:
        if self.is_failing and time.monotonic() < self._ask_again_at:
            with self.lock:
                self._fail(wanted)
            return
        with self.lock:
            asks = [_make_ask(count) for count in wanted]
        # Asked with nothing to lease too, so that it is known whether it answers.
        self._ask_again_at = time.monotonic() + LOOK_SECONDS
        try:
            grants = self._lease(asks)
        except SourceUnavailable as failure:
            if not self.is_failing:
                logger.warning("%s: no answer (%s); trying again.", self._name, failure)
            self.is_failing, self._ask_again_at = True, time.monotonic() + LOOK_SECONDS
            with self.lock:
                self._fail(wanted)
            return
        with self.lock:
            if self.is_failing:
                self._recover()
            for count, ask, grant in zip(wanted, asks, grants, strict=True):
                count.owed += ask.returned
                add_grant(count, grant)

    def _recover(self) -> None:
        logger.warning("%s: answers again.", self._name)
        self.is_failing = False
        for count in self.counts.values():
            count.local = None
            if count.owed and not count.chunk.is_wanted:
                self.want(count)


def _make_ask(count: Count) -> Ask:
    wanted = count.chunk.size if count.is_needed else 0
    return Ask(rule=count.rule, subject=count.subject, wanted=wanted, returned=-count.owed)


def add_grant(count: Count, grant: Grant) -> None:
    """What the source gave is there to be taken."""
    now = time.monotonic()
    count.chunk.add(granted=grant.granted)
    count.remaining = grant.remaining
    count.retry_at = now + grant.wait_seconds
    wait = min(grant.wait_seconds, QUOTA_RECHECK_SECONDS) if count.rule.period.is_quota else grant.wait_seconds
    count.chunk.refused_until = now + wait if grant.granted == 0 else 0.0
    settle([count])


def settle(counts: list[Count]) -> None:
    for count in counts:
        count.chunk.is_wanted = count.is_needed = False
        waiters, count.waiters = count.waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)
