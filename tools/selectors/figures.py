"""Figures of runs for the console's first page, which asks for them every few seconds.

Each reads a bounded number of rows, found by an index, however many runs there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from tools.domain.states import ExecutionState
from tools.domain.timing import get_ran_seconds, get_waited_seconds
from tools.models import Execution

MAX_COUNTED = 10_000
"""Runs looked at to say how many are in which state, or wait."""
MAX_MEASURED = 1_000
"""Runs whose times are looked at; the last that ended."""


class StateCounts(Struct, frozen=True, kw_only=True):
    by_state: Mapping[str, int]
    total: int
    is_complete: bool
    """``False`` where only the ``MAX_COUNTED`` newest were counted."""


class QueueDepth(Struct, frozen=True, kw_only=True):
    by_priority: Mapping[str, int]
    total: int
    oldest_at: datetime | None
    """When the run that has waited longest was accepted."""
    is_complete: bool
    """``False`` where only the ``MAX_COUNTED`` oldest were counted."""


class Percentiles(Struct, frozen=True, kw_only=True):
    p50_seconds: float
    p95_seconds: float


class RunTimes(Struct, frozen=True, kw_only=True):
    """Of the last ``MAX_MEASURED`` runs that ended; ``None`` where there is none to measure."""

    waited: Percentiles | None
    ran: Percentiles | None
    count: int


def count_executions_by_state(*, since: datetime) -> StateCounts:
    """How many of the runs accepted since then are in which state."""
    newest = Execution.objects.filter(created_at__gte=since).order_by("-created_at").values_list("state", flat=True)
    states = list(newest[: MAX_COUNTED + 1])
    counted = Counter(states[:MAX_COUNTED])
    return StateCounts(by_state=counted, total=counted.total(), is_complete=len(states) <= MAX_COUNTED)


def count_running_executions() -> int:
    """How many runs are running, ``MAX_COUNTED`` at most."""
    return Execution.objects.filter(state=ExecutionState.RUNNING.value, finished_at=None)[:MAX_COUNTED].count()


def measure_queue() -> QueueDepth:
    """The runs that wait for a worker."""
    waiting = Execution.objects.filter(state=ExecutionState.QUEUED.value, finished_at=None).order_by("created_at")
    rows = list(waiting.values_list("priority", "created_at")[: MAX_COUNTED + 1])
    counted = Counter(priority for priority, _ in rows[:MAX_COUNTED])
    return QueueDepth(
        by_priority=counted,
        total=counted.total(),
        oldest_at=rows[0][1] if rows else None,
        is_complete=len(rows) <= MAX_COUNTED,
    )


def measure_run_times(*, since: datetime) -> RunTimes:
    """How long the runs that ended since then waited and ran."""
    ended = Execution.objects.filter(finished_at__gte=since).order_by("-finished_at")
    rows = list(ended.values_list("created_at", "started_at", "finished_at")[:MAX_MEASURED])
    waited = [
        get_waited_seconds(created_at=created, started_at=started, finished_at=finished, now=since)
        for created, started, finished in rows
    ]
    ran = [get_ran_seconds(started_at=started, finished_at=finished, now=since) for _, started, finished in rows]
    return RunTimes(
        waited=_find_percentiles(waited),
        ran=_find_percentiles([seconds for seconds in ran if seconds is not None]),
        count=len(rows),
    )


def _find_percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """By the nearest rank: each is a time that there was."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    p50, p95 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
    return Percentiles(p50_seconds=p50, p95_seconds=p95)
