"""What a run's points in time say: how long it waited and ran, and how a duration is written for people."""

from __future__ import annotations

from datetime import datetime
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def get_waited_seconds(
    *, created_at: datetime, started_at: datetime | None, finished_at: datetime | None, now: datetime
) -> float:
    """From acceptance until it started, or until it ended without ever starting, or until now."""
    return ((started_at or finished_at or now) - created_at).total_seconds()


def get_ran_seconds(*, started_at: datetime | None, finished_at: datetime | None, now: datetime) -> float | None:
    """From its last start until it ended, or until now; ``None`` where it never started."""
    return None if started_at is None else ((finished_at or now) - started_at).total_seconds()


def describe_duration(seconds: float) -> str:
    """Two units at most: ``0.4 ms``, ``12 ms``, ``3.25 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 0:
        return f"-{describe_duration(-seconds)}"
    # Below what would be rounded up to 1000 ms.
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.1f} ms" if 0 < milliseconds < 10 else f"{milliseconds:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for unit, name, smaller, smaller_name in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {smaller_name}"
    return f"{whole // _MINUTE} min {whole % _MINUTE} s"
