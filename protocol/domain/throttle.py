"""How many requests somebody may make: a bucket that fills at a steady rate and is emptied by requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a request was told."""

    is_allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    """Until the bucket is full again."""
    retry_after_seconds: float
    """Until one more request is allowed; 0 where it is now."""


@dataclass(slots=True, kw_only=True)
class Bucket:
    """``capacity`` requests at once, and as many a ``period_seconds`` in the long run."""

    capacity: int
    period_seconds: float
    level: float
    """How many requests it holds."""
    filled_at: float
    """When ``level`` was right; monotonic seconds."""

    def take(self, *, now: float) -> Allowance:
        """Take one request out, if there is one."""
        found = self.look(now=now)
        if found.is_allowed:
            self.level -= 1
            return self._describe(is_allowed=True)
        return found

    def look(self, *, now: float) -> Allowance:
        """What ``take`` would say, taking nothing."""
        # A clock that went back fills nothing.
        self.level = min(self.capacity, self.level + max(0.0, now - self.filled_at) * self._rate)
        self.filled_at = max(now, self.filled_at)
        return self._describe(is_allowed=self.level >= 1)

    @property
    def _rate(self) -> float:
        return self.capacity / self.period_seconds

    def _describe(self, *, is_allowed: bool) -> Allowance:
        rate = self._rate
        return Allowance(
            is_allowed=is_allowed,
            limit=self.capacity,
            remaining=int(self.level),
            reset_seconds=(self.capacity - self.level) / rate,
            retry_after_seconds=0.0 if self.level >= 1 else (1 - self.level) / rate,
        )


def make_bucket(*, capacity: int, period_seconds: float, now: float) -> Bucket:
    """A full one."""
    return Bucket(capacity=capacity, period_seconds=period_seconds, level=capacity, filled_at=now)
