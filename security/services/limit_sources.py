"""Where all processes count together: buckets in Redis, quotas in the database. Each leases tokens in bulk.

Called in threads of ``limiting`` alone. Redis may lose everything: a bucket that is gone is a full one. Of a quota
nothing is forgotten: what was leased is written before it is used, and what a process held when it was killed counts
as used.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import redis
from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from protocol.database_threads import run_with_connections
from protocol.errors import StorageUnavailable
from security.domain.limits import LimitRule, get_window_end, get_window_start
from security.models import LimitUsage

TIMEOUT_SECONDS: Final = 0.25
"""How long Redis may take, to connect and to answer."""
PROCESS_KEY: Final = "mcp:limits:processes"
PROCESS_SECONDS: Final = 10.0
"""A process that says nothing for so long is none."""

_LEASE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local burst, amount, period = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local wanted, returned = tonumber(ARGV[4]), tonumber(ARGV[5])
local state = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = tonumber(state[1]) or burst, tonumber(state[2]) or now
if now > at then
  level = level + (now - at) * amount / period
  at = now
end
level = math.max(-burst, math.min(burst, math.min(burst, level) + returned))
local granted = math.max(0, math.min(wanted, math.floor(level)))
level = level - granted
redis.call('HSET', KEYS[1], 'level', string.format('%.6f', level), 'at', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - level) * period / amount / 1000) + 1000)
return {granted, math.floor(level), math.ceil(math.max(0, 1 - level) * period / amount / 1000)}
"""
"""A bucket as ``domain.chunks`` has it, by Redis's clock. ``returned`` below 0 is what was used without being leased.

Sent whole each time: a server that was restarted or flushed knows no script by its hash.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A lease that a process asks for."""

    rule: LimitRule
    subject: str
    wanted: int
    returned: int = 0
    """What it gives back; below 0: what it used on its own account while Redis was away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What it was given."""

    granted: int
    remaining: int
    """In the bucket, for all processes."""
    wait_seconds: float
    """Until there is another one."""


class SourceUnavailable(Exception):
    """What counts for all did not answer."""


class RedisBuckets:
    """Rates, in one round trip for all that is asked at a time."""

    def __init__(self, *, url: str) -> None:
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
        self._name = uuid.uuid4().hex
        self.process_count = settings.MCP.web_workers
        """How many processes share the limits, as of the last answer; before it, those that this node starts."""

    def lease(self, asks: Sequence[Ask]) -> list[Grant]:
        """
        Raises:
            SourceUnavailable: Redis did not answer, or with an error.
        """
        now = time.time()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zadd(PROCESS_KEY, {self._name: now})
        pipeline.zremrangebyscore(PROCESS_KEY, 0, now - PROCESS_SECONDS)
        pipeline.zcard(PROCESS_KEY)
        for ask in asks:
            rule = ask.rule
            key = f"mcp:limit:{rule.id.hex}:{rule.counted}:{ask.subject}"
            period_us = int(rule.period.seconds * 1_000_000)
            pipeline.eval(_LEASE, 1, key, rule.burst, rule.amount, period_us, ask.wanted, ask.returned)
        try:
            answers = pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise SourceUnavailable(type(error).__name__) from error
        # Processes that nobody has asked yet are not in Redis.
        self.process_count = max(settings.MCP.web_workers, int(answers[2]))
        return [
            Grant(granted=int(granted), remaining=max(0, int(remaining)), wait_seconds=int(wait_ms) / 1000)
            for granted, remaining, wait_ms in answers[3:]
        ]

    def look(self, *, rule: LimitRule, subject: str) -> int:
        """How many tokens are left for all processes, leasing none.

        Raises:
            SourceUnavailable: as ``lease``.
        """
        return self.lease([Ask(rule=rule, subject=subject, wanted=0)])[0].remaining


def lease_quota(ask: Ask, *, now: datetime) -> Grant:
    """Take from a quota's window; a conditional update, so that no two processes ever get the same."""
    window_start = get_window_start(period=ask.rule.period, now=now)
    where = {"limit_id": ask.rule.id, "subject": ask.subject, "window_start": window_start}
    row = LimitUsage.objects.filter(**where)
    amount = ask.rule.amount
    with transaction.atomic():
        if ask.returned:
            row.filter(used__gte=ask.returned).update(used=F("used") - ask.returned)
        wanted = ask.wanted
        granted = wanted if wanted and row.filter(used__lte=amount - wanted).update(used=F("used") + wanted) else 0
        if wanted and not granted:
            LimitUsage.objects.bulk_create([LimitUsage(**where)], ignore_conflicts=True)
            # As much as is left; another process may be quicker, then it is nothing.
            used = row.values_list("used", flat=True).first() or 0
            left = min(wanted, amount - used)
            if left > 0 and row.filter(used__lte=amount - left).update(used=F("used") + left):
                granted = left
        used = row.values_list("used", flat=True).first() or 0
    remaining = max(0, amount - used)
    wait = (get_window_end(period=ask.rule.period, now=now) - now).total_seconds()
    return Grant(granted=granted, remaining=remaining, wait_seconds=0.0 if remaining else math.ceil(wait))


def lease_quotas(asks: Sequence[Ask]) -> list[Grant]:
    """Each by ``lease_quota``; of a limit that is gone, as much as is asked for.

    Raises:
        SourceUnavailable: the database did not take it.
    """
    if not asks:
        return []
    try:
        return run_with_connections(_lease_quotas, asks)
    except (DatabaseError, StorageUnavailable) as error:
        raise SourceUnavailable(type(error).__name__) from error


def _lease_quotas(asks: Sequence[Ask]) -> list[Grant]:
    now = timezone.now()
    grants = []
    for ask in asks:
        try:
            grants.append(lease_quota(ask, now=now))
        except IntegrityError:
            grants.append(Grant(granted=ask.wanted, remaining=0, wait_seconds=0.0))
    return grants
