"""What a worker's parent does about a run of one of its children: nothing, interrupt it, or kill the child. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

KILL_GRACE = timedelta(seconds=1)
"""How long a run that was interrupted, or is past its end, has to end by itself before its process is killed."""


class CancelMode(enum.StrEnum):
    GRACEFUL = "graceful"
    KILL = "kill"


class Measure(enum.Enum):
    LEAVE = enum.auto()
    INTERRUPT = enum.auto()
    KILL = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAttempt:
    """What the database says of a run that a child of this worker has."""

    ends_at: datetime
    """When its own timer ends it."""
    cancel_mode: CancelMode | None
    cancel_requested_at: datetime | None


def get_end(*, started_at: datetime, timeout_seconds: float, deadline: datetime | None) -> datetime:
    """When an attempt is ended: after its time, or when its waiting caller no longer waits."""
    ends_at = started_at + timedelta(seconds=timeout_seconds)
    return ends_at if deadline is None else min(ends_at, deadline)


def choose_measure(*, attempt: RunningAttempt, now: datetime) -> Measure:
    """What is due now. The child ends itself at ``ends_at``; one that cannot, stuck in C, is killed after the grace."""
    if now >= attempt.ends_at + KILL_GRACE:
        return Measure.KILL
    if attempt.cancel_mode is None or attempt.cancel_requested_at is None:
        return Measure.LEAVE
    if attempt.cancel_mode is CancelMode.KILL or now >= attempt.cancel_requested_at + KILL_GRACE:
        return Measure.KILL
    return Measure.INTERRUPT
