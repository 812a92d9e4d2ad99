"""Whether a lost attempt is tried again, and when: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MAX_ATTEMPTS = 5
"""Attempts of one run, the first included."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again, not before this long from now."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; why, in words for the caller."""

    reason: str


def decide_retry(*, attempt: int, is_idempotent: bool, jitter: float) -> RetryAfter | GiveUp:
    """What to do about an attempt whose worker was lost.

    ``attempt`` is the lost one's number, from 1; ``jitter`` is uniformly random in [0, 1). The delay is uniform between
    half and the whole of an exponentially growing, bounded time, so that runs lost together do not come back together.
    """
    if not is_idempotent:
        return GiveUp("The worker was lost while the tool ran, and the tool may not be run twice.")
    if attempt >= MAX_ATTEMPTS:
        return GiveUp(f"The worker was lost in each of {attempt} attempts.")
    whole = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (attempt - 1))
    return RetryAfter(timedelta(seconds=whole * (1 + jitter) / 2))
