"""Counting commands, runs and strangers against their limits: ``protocol.ports.Limiter``.

Every process holds a chunk of each count that it uses (``domain.chunks``) and takes from it without waiting or asking.
One thread for each source leases the next chunk before the last is used up; only who meets an empty one waits for it,
or is refused. With Redis gone each process goes on with its share of every limit, and settles up once it is back.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from typing import Final

from django.conf import settings

from protocol.errors import RateLimited
from protocol.ports import Allowance, Principal, StrangersCount
from security.domain.authorization import AccountPrincipal
from security.domain.chunks import Bucket
from security.domain.limits import UNLIMITED_COMMANDS, Counted, LimitRule, Period, Scope
from security.domain.lockout import make_address_key
from security.services.limit_leases import LOOK_SECONDS, Count, Leaser, add_grant, settle
from security.services.limit_sources import Grant, RedisBuckets, lease_quotas

WAIT_SECONDS: Final = 1.0
"""How long somebody waits for a lease; twice what Redis is given to fail."""
MAX_PLANS: Final = 256
"""Names that a principal's counts are remembered of."""
MAX_NAME_LENGTH: Final = 100
"""Of those names."""
_IN_EVERY_ACCOUNT: Final = uuid.UUID(int=1)
_NOBODY: Final[tuple[Count, ...]] = ()


class SharedLimiter:
    """``protocol.ports.Limiter``."""

    def __init__(self, *, redis_url: str | None = None) -> None:
        self._lock = threading.Lock()
        self._redis = RedisBuckets(url=redis_url or settings.REDIS_URL)
        self._rates = Leaser(name="limits", lock=self._lock, lease=self._redis.lease, fail=self._use_share)
        self._quotas = Leaser(name="quotas", lock=self._lock, lease=lease_quotas, fail=self._refuse_quotas)
        self.default_rule = LimitRule(
            id=_IN_EVERY_ACCOUNT,
            name="requests",
            scope=Scope.EACH_ACCOUNT,
            counted=Counted.COMMANDS,
            amount=settings.MCP.requests_per_minute,
            period=Period.MINUTE,
            burst=settings.MCP.requests_per_minute,
        )
        self._strangers = {
            StrangersCount.SIGN_INS: _make_address_rule(Counted.SIGN_INS, settings.MCP.sign_ins_per_minute),
            StrangersCount.CONNECTIONS: _make_address_rule(Counted.CONNECTIONS, settings.MCP.connections_per_minute),
        }

    # Commands

    def try_take(self, *, principal: Principal, command: str) -> bool:
        """See ``protocol.ports.Limiter``."""
        if type(principal) is not AccountPrincipal:
            return True
        plan = principal.limit_plans.get(command)
        if plan is None:
            plan = self._compile(principal, command)
        return self._take(plan)

    async def take(self, *, principal: Principal, command: str) -> None:
        """See ``protocol.ports.Limiter``."""
        if isinstance(principal, AccountPrincipal):
            await self._wait(self._compile(principal, command))

    def take_in_thread(self, *, principal: Principal, command: str) -> None:
        """See ``protocol.ports.Limiter``."""
        if isinstance(principal, AccountPrincipal):
            self._wait_in_thread(self._compile(principal, command))

    def get_allowance(self, *, principal: Principal, command: str) -> Allowance | None:
        """See ``protocol.ports.Limiter``."""
        if not isinstance(principal, AccountPrincipal):
            return None
        found = [_describe(count) for count in self._compile(principal, command)]
        return min(found, key=lambda allowance: allowance.remaining, default=None)

    # Runs of tools

    def take_run(self, *, principal: Principal, tool: str) -> None:
        """See ``protocol.ports.Limiter``."""
        if isinstance(principal, AccountPrincipal):
            self._wait_in_thread(self._find_counts(principal, Counted.RUNS, tool))

    def give_back_run(self, *, principal: Principal, tool: str) -> None:
        """See ``protocol.ports.Limiter``."""
        if isinstance(principal, AccountPrincipal):
            for count in self._find_counts(principal, Counted.RUNS, tool):
                with self._lock:
                    count.chunk.tokens += 1

    # Strangers

    async def take_address(self, *, counted: StrangersCount, address: str | None) -> Allowance:
        """See ``protocol.ports.Limiter``."""
        count = self._find_stranger(counted, address)
        await self._wait((count,))
        return _describe(count)

    def check_address(self, *, counted: StrangersCount, address: str | None) -> None:
        """See ``protocol.ports.Limiter``."""
        count = self._find_stranger(counted, address)
        with self._lock:
            _refuse_known([count], now=time.monotonic())

    def get_address_key(self, *, address: str | None) -> str:
        """See ``protocol.ports.Limiter``."""
        return make_address_key(address=address)

    def stop(self) -> None:
        """See ``protocol.ports.Limiter``."""
        self._rates.stop()
        self._quotas.stop()

    def is_degraded(self) -> bool:
        """See ``protocol.ports.Limiter``."""
        return self._rates.is_failing

    # How

    def _find_stranger(self, counted: StrangersCount, address: str | None) -> Count:
        return self._rates.find(rule=self._strangers[counted], subject=make_address_key(address=address))

    def _get_leaser(self, rule: LimitRule) -> Leaser:
        return self._quotas if rule.period.is_quota else self._rates

    def _compile(self, principal: AccountPrincipal, command: str) -> tuple[Count, ...]:
        plan = _NOBODY if command in UNLIMITED_COMMANDS else self._find_counts(principal, Counted.COMMANDS, command)
        # Names come from clients: neither many nor long ones may fill the memory.
        if len(principal.limit_plans) >= MAX_PLANS:
            principal.limit_plans.clear()
        if len(command) <= MAX_NAME_LENGTH:
            principal.limit_plans[command] = plan
        return plan

    def _find_counts(self, principal: AccountPrincipal, counted: Counted, name: str) -> tuple[Count, ...]:
        rules = (*principal.limits, self.default_rule)
        return tuple(
            self._get_leaser(rule).find(rule=rule, subject=rule.get_subject(account_id=principal.id))
            for rule in rules
            if rule.counted is counted and rule.matches(name)
        )

    def _take(self, plan: Sequence[Count]) -> bool:
        """Take one token of each, or of none; ``False``: somebody has to wait.

        Raises:
            RateLimited: one of the counts is known to be used up.
        """
        with self._lock:
            for count in plan:
                if count.chunk.tokens < 1:
                    _refuse_known(plan, now=time.monotonic())
                    return False
            for count in plan:
                chunk = count.chunk
                chunk.tokens -= 1
                if chunk.tokens <= chunk.low and not chunk.is_wanted and time.monotonic() >= chunk.refused_until:
                    count.is_needed = True
                    self._get_leaser(count.rule).want(count)
        return True

    def _wish(self, plan: Sequence[Count]) -> Future[None] | None:
        """What comes true once the first empty one was served; ``None``: none is empty any more."""
        with self._lock:
            for count in plan:
                if count.chunk.tokens < 1:
                    waiter: Future[None] = Future()
                    count.waiters.append(waiter)
                    count.is_needed = True
                    if not count.chunk.is_wanted:
                        self._get_leaser(count.rule).want(count)
                    return waiter
        return None

    async def _wait(self, plan: Sequence[Count]) -> None:
        give_up_at = time.monotonic() + WAIT_SECONDS
        while not self._take(plan):
            waiter = self._wish(plan)
            if waiter is not None:
                try:
                    async with asyncio.timeout(give_up_at - time.monotonic()):
                        await asyncio.wrap_future(waiter)
                except TimeoutError as error:
                    raise _make_refusal(plan[0], wait_seconds=WAIT_SECONDS) from error

    def _wait_in_thread(self, plan: Sequence[Count]) -> None:
        give_up_at = time.monotonic() + WAIT_SECONDS
        while not self._take(plan):
            waiter = self._wish(plan)
            if waiter is not None:
                try:
                    waiter.result(timeout=max(0.0, give_up_at - time.monotonic()))
                except WaitTimeout as error:
                    raise _make_refusal(plan[0], wait_seconds=WAIT_SECONDS) from error

    def _use_share(self, counts: list[Count]) -> None:
        """Lease from this process's own share: what Redis had left at the last, among all processes that shared it."""
        now = time.monotonic()
        processes = self._redis.process_count
        for count in counts:
            rule = count.rule
            if not count.is_needed:
                settle([count])
                continue
            if count.local is None:
                count.local = Bucket(
                    burst=max(1.0, rule.burst / processes),
                    rate=rule.amount / rule.period.seconds / processes,
                    level=max(0, count.remaining) / processes,
                    now=now,
                )
            granted = count.local.lease(wanted=count.chunk.size, now=now)
            count.owed += granted
            remaining = math.floor(count.local.level)
            add_grant(count, Grant(granted=granted, remaining=remaining, wait_seconds=count.local.get_wait_seconds()))

    def _refuse_quotas(self, counts: list[Count]) -> None:
        """Without the database no quota is known, and nothing else can be done either: refuse for a moment."""
        for count in counts:
            add_grant(count, Grant(granted=0, remaining=0, wait_seconds=LOOK_SECONDS))


def _make_address_rule(counted: Counted, amount: int) -> LimitRule:
    return LimitRule(
        id=_IN_EVERY_ACCOUNT,
        name=counted.value,
        scope=Scope.ADDRESS,
        counted=counted,
        amount=amount,
        period=Period.MINUTE,
        burst=amount,
    )


def _refuse_known(plan: Sequence[Count], *, now: float) -> None:
    """
    Raises:
        RateLimited: of those that are known to be used up, the one that is for the longest.
    """
    empty = [count for count in plan if count.chunk.tokens < 1 and now < count.chunk.refused_until]
    if empty:
        worst = max(empty, key=lambda count: count.retry_at)
        raise _make_refusal(worst, wait_seconds=worst.retry_at - now)


def _make_refusal(count: Count, *, wait_seconds: float) -> RateLimited:
    rule = count.rule
    return RateLimited(
        retry_after_ms=max(1, math.ceil(wait_seconds * 1000)),
        details={"limit": rule.name, "counted": rule.counted.value, "amount": rule.amount, "period": rule.period.value},
    )


def _describe(count: Count) -> Allowance:
    rule = count.rule
    remaining = max(0, count.remaining) + count.chunk.tokens
    wait = max(0.0, count.retry_at - time.monotonic())
    reset = wait if rule.period.is_quota else (rule.burst - remaining) * rule.period.seconds / rule.amount
    return Allowance(name=rule.name, limit=rule.amount, remaining=remaining, reset_seconds=max(0.0, reset))
