"""Limits on requests, by account, or by address where nobody has authenticated.

Counted in this process: with several web processes the limit is a multiple of the setting, and nothing is asked of
Redis. The table is bounded; who has been quiet longest is forgotten first, which fills its bucket.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from functools import lru_cache

from django.conf import settings
from django.http.response import HttpResponseBase

from protocol.domain.throttle import Allowance, Bucket, make_bucket
from protocol.errors import RateLimited

PERIOD_SECONDS = 60.0
MAX_KEYS = 20_000


class Limiter:
    """Buckets of one size, by key. Belongs to the event loop's thread."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def count(self, key: str) -> Allowance:
        """Count one request of ``key``.

        Raises:
            RateLimited: it is one too many.
        """
        return _judge(self._get_bucket(key).take(now=time.monotonic()))

    def check(self, key: str) -> Allowance:
        """As ``count``, counting nothing: for what is counted once it has failed."""
        bucket = self._buckets.get(key)
        return _judge((bucket or self._make_bucket()).look(now=time.monotonic()))

    def _get_bucket(self, key: str) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = self._make_bucket()
            if len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket

    def _make_bucket(self) -> Bucket:
        return make_bucket(capacity=self._capacity, period_seconds=PERIOD_SECONDS, now=time.monotonic())


def _judge(allowance: Allowance) -> Allowance:
    if not allowance.is_allowed:
        raise RateLimited(
            retry_after_ms=math.ceil(allowance.retry_after_seconds * 1000), details={"limit": allowance.limit}
        )
    return allowance


@lru_cache(maxsize=1)
def get_account_limiter() -> Limiter:
    """Of requests by those who have authenticated, by account."""
    return Limiter(capacity=settings.MCP.requests_per_minute)


@lru_cache(maxsize=1)
def get_stranger_limiter() -> Limiter:
    """Of requests for tokens and of refused credentials, by address."""
    return Limiter(capacity=settings.MCP.sign_ins_per_minute)


def add_headers(response: HttpResponseBase, allowance: Allowance) -> None:
    """Say what is left (the IETF's draft on RateLimit header fields, in the form that clients know)."""
    response["RateLimit-Limit"] = str(allowance.limit)
    response["RateLimit-Remaining"] = str(allowance.remaining)
    response["RateLimit-Reset"] = str(math.ceil(allowance.reset_seconds))
