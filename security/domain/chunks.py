"""The arithmetic of limits: a bucket of tokens, and what a process holds of one. Pure.

Tokens leave the bucket when a process leases them, so that whatever processes do with theirs, no more than
``burst + amount a period`` leave it. What a process may take at a moment is at most what it leased and has not used: at
most ``MAX_HELD_SHARE`` of the burst, or one token. That is the whole overshoot, for each process.
"""

from __future__ import annotations

import math
from typing import Final

LEASE_SHARE: Final = 32
"""The largest lease is this part of the burst."""
FIRST_LEASE: Final = 8
"""Where the lease's growth begins."""
MAX_HELD_SHARE: Final = 1.5 / LEASE_SHARE
"""Of the burst: half a lease is left when the next one is fetched."""
IDLE_LOOKS: Final = 2
"""Looks without use after which tokens are given back."""


class Bucket:
    """``burst`` at once, and ``rate`` a second in the long run. As ``services.limit_sources`` has it in Redis."""

    __slots__ = ("_at", "burst", "level", "rate")

    def __init__(self, *, burst: float, rate: float, now: float, level: float | None = None) -> None:
        self.burst = burst
        self.rate = rate
        self.level = burst if level is None else min(level, burst)
        self._at = now

    def lease(self, *, wanted: int, now: float, returned: int = 0) -> int:
        """Take up to ``wanted`` tokens out, after ``returned`` were put back; how many there were."""
        # A clock that went back fills nothing.
        self.level = min(self.burst, self.level + max(0.0, now - self._at) * self.rate)
        self._at = max(now, self._at)
        self.level = min(self.burst, self.level + returned)
        granted = max(0, min(wanted, math.floor(self.level)))
        self.level -= granted
        return granted

    def get_wait_seconds(self) -> float:
        """Until there is one token."""
        return max(0.0, (1 - self.level) / self.rate)


class Chunk:
    """What one process holds of one bucket. Whoever calls it holds a lock around the calls."""

    __slots__ = ("_looks", "_seen", "is_wanted", "low", "max_size", "refused_until", "size", "tokens")

    def __init__(self, *, burst: int) -> None:
        self.max_size = max(1, burst // LEASE_SHARE)
        self.tokens = 0
        self.size = 0
        self.low = 0
        self._resize(min(self.max_size, FIRST_LEASE))
        self.is_wanted = False
        """Whether a lease is on its way."""
        self.refused_until = 0.0
        """Until when the bucket is known to be empty; seconds of the caller's clock."""
        self._looks = 0
        self._seen = 0

    def add(self, *, granted: int) -> None:
        """A lease arrived. Each is twice the one before, until one was not needed."""
        self.tokens += granted
        if granted:
            self._looks = 0
        if granted == self.size:
            self._resize(min(self.max_size, self.size * 2))

    def look(self) -> int:
        """Looked at now and then: how many tokens are given back, as nobody used any for ``IDLE_LOOKS`` looks."""
        self._looks = self._looks + 1 if self.tokens == self._seen and not self.is_wanted else 0
        self._seen = self.tokens
        if self._looks < IDLE_LOOKS:
            return 0
        return self.drop()

    @property
    def idle_looks(self) -> int:
        return self._looks

    def drop(self) -> int:
        """Give up what is held; how much it was."""
        dropped, self.tokens, self._seen = self.tokens, 0, 0
        if dropped:
            self._resize(max(1, self.size // 2))
        return dropped

    def _resize(self, size: int) -> None:
        self.size = size
        self.low = size // 2
