"""Durations of runs and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tools.domain.timing import describe_duration, get_ran_seconds, get_waited_seconds

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.999, "999 ms"),
        (0.9996, "1.00 s"),
        (1, "1.00 s"),
        (3.254, "3.25 s"),
        (59.4, "59.40 s"),
        (60, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86_400 * 3 + 4 * 3600, "3 d 4 h"),
        (-0.25, "-250 ms"),
    ],
)
def test_a_duration_is_written_in_two_units_at_most(seconds: float, written: str) -> None:
    assert describe_duration(seconds) == written


@pytest.mark.parametrize(
    ("started", "finished", "waited", "ran"),
    [(None, None, 30, None), (None, 20, 20, None), (5, None, 5, 25), (5, 20, 5, 15)],
    ids=["waits", "ended without a start", "runs", "ran"],
)
def test_waiting_and_running_are_told_apart(
    started: int | None, finished: int | None, waited: float, ran: float | None
) -> None:
    def after(seconds: int | None) -> datetime | None:
        return None if seconds is None else NOON + timedelta(seconds=seconds)

    now = NOON + timedelta(seconds=30)
    assert (
        get_waited_seconds(created_at=NOON, started_at=after(started), finished_at=after(finished), now=now) == waited
    )
    assert get_ran_seconds(started_at=after(started), finished_at=after(finished), now=now) == ran
