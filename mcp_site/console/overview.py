"""The console's first page: what is going on, as far as who looks may see it, and what there is to do.

Read on each request, and every few seconds while the page is open, so each figure is bounded or comes from an index.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from msgspec import Struct

from protocol.domain.messages import Priority
from protocol.selectors import count_connected_sessions
from protocol.sessions import LOST_AFTER
from security.selectors import list_aged_keys
from tools import selectors
from tools.admin.labels import EXECUTION_COLOURS, make_label
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.domain.timing import describe_duration, get_ran_seconds

FIRST_RUN_FOLDER: Final = "first-run"
SPAN: Final = timedelta(hours=24)
LATEST: Final = 12
MAX_FILES: Final = 10
FAILURES: Final = (ExecutionState.FAILED, ExecutionState.TIMED_OUT, ExecutionState.INTERRUPTED)
ENDED: Final = tuple(state for state in ExecutionState if state in TERMINAL_STATES)


class Figure(Struct, frozen=True, kw_only=True):
    """One number of the page."""

    title: str
    value: int | str
    note: str = ""
    url: str = ""
    is_bad: bool = False


class StateShare(Struct, frozen=True, kw_only=True):
    """How many runs are in a state, and where of 100 its part of the bar starts and how long it is."""

    label: dict[str, str]
    count: int
    start: float
    share: float
    url: str


def add_overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The page's context with all that it shows; called by the admin site."""
    figures: list[Figure] = []
    if request.user.has_perm("protocol.view_session"):
        figures.append(make_session_figure())
    if request.user.has_perm("tools.view_execution"):
        now = timezone.now()
        counts = selectors.count_executions_by_state(since=now - SPAN)
        figures += [
            *make_run_figures(counts),
            *make_load_figures(now=now),
            *make_time_figures(selectors.measure_run_times(since=now - SPAN)),
        ]
        context |= {
            "shares": make_shares(counts),
            "counts": counts,
            "latest": [
                {
                    "run": run,
                    "state": make_label(run.state, colours=EXECUTION_COLOURS),
                    "ran_seconds": get_ran_seconds(
                        started_at=run.started_at, finished_at=run.finished_at, now=timezone.now()
                    ),
                }
                for run in selectors.list_latest_executions(limit=LATEST)
            ],
            "shows_runs": True,
        }
    if request.user.has_perm("tools.view_workerlease"):
        figures.append(make_worker_figure())
    return context | {
        "figures": figures,
        "first_run_files": list_first_run_files(settings.MCP.data_dir),
        "aged_keys": list_aged_keys(now=timezone.now()) if request.user.is_superuser else [],
    }


def make_session_figure() -> Figure:
    return Figure(
        title="Connected sessions",
        value=count_connected_sessions(seen_since=timezone.now() - LOST_AFTER),
        url=f"{reverse('admin:protocol_session_changelist')}?connected=yes",
    )


def make_worker_figure() -> Figure:
    live = selectors.count_live_workers()
    return Figure(
        title="Live workers",
        value=live,
        note="" if live else "Runs wait until one lives.",
        url=reverse("admin:tools_workerlease_changelist"),
        is_bad=live == 0,
    )


def make_run_figures(counts: selectors.StateCounts) -> list[Figure]:
    """Runs of the last day: all, and the share of those that ended that failed."""
    failed, ended = (sum(counts.by_state.get(state.value, 0) for state in states) for states in (FAILURES, ENDED))
    return [
        Figure(
            title="Runs in 24 h",
            value=counts.total,
            note="" if counts.is_complete else "and more: only the newest are counted",
            url=link_runs(),
        ),
        Figure(
            title="Error rate in 24 h",
            value=describe_share(failed, of=ended),
            note=f"{failed:,} of {ended:,} that ended"
            + ("" if counts.is_complete else f", of the newest {selectors.MAX_COUNTED:,}"),
            url=link_runs(*FAILURES),
            is_bad=failed > 0,
        ),
    ]


def make_load_figures(*, now: datetime) -> list[Figure]:
    """What runs, and what waits for a worker."""
    queue = selectors.measure_queue()
    by_priority = [
        f"{priority.value} {queue.by_priority[priority.value]:,}"
        for priority in Priority
        if queue.by_priority.get(priority.value)
    ]
    oldest = [f"the oldest for {describe_duration((now - queue.oldest_at).total_seconds())}"] if queue.oldest_at else []
    return [
        Figure(
            title="Running now",
            value=selectors.count_running_executions(),
            url=link_runs(ExecutionState.RUNNING),
        ),
        Figure(
            title="Queued now",
            value=queue.total if queue.is_complete else f"over {queue.total:,}",
            note=", ".join(by_priority + oldest),
            url=link_runs(ExecutionState.QUEUED),
        ),
    ]


def make_time_figures(times: selectors.RunTimes) -> list[Figure]:
    """How long runs ran and waited: the median, and what 95 of 100 stay below."""
    return [
        Figure(
            title=title,
            value=describe_duration(found.p50_seconds) if found else "none",
            note=f"p95 {describe_duration(found.p95_seconds)}, of the last {times.count:,}" if found else "",
            url=link_runs(*ENDED),
        )
        for title, found in (("Run time, p50", times.ran), ("Time in queue, p50", times.waited))
    ]


def describe_share(part: int, *, of: int) -> str:
    """A percentage; what is less than a tenth of one is not told as nothing."""
    percents = 100 * part / of if of else 0.0
    return f"{percents:.0f} %" if percents in (0.0, 100.0) else f"{max(percents, 0.1):.1f} %"


def make_shares(counts: selectors.StateCounts) -> list[StateShare]:
    """The states that runs of the last day are in, in the order of a run's life."""
    shares: list[StateShare] = []
    before = 0
    for state in ExecutionState:
        count = counts.by_state.get(state.value, 0)
        if count:
            shares.append(
                StateShare(
                    label=make_label(state.value, colours=EXECUTION_COLOURS),
                    count=count,
                    start=round(100 * before / counts.total, 2),
                    share=round(100 * count / counts.total, 2),
                    url=link_runs(state),
                )
            )
        before += count
    return shares


def link_runs(*states: ExecutionState) -> str:
    """The list of runs, narrowed to these states."""
    address = reverse("admin:tools_execution_changelist")
    return f"{address}?{urlencode({'state': [state.value for state in states]}, doseq=True)}" if states else address


def list_first_run_files(data_dir: Path) -> list[str]:
    """The paths of the secrets that the first start left; they are never opened here."""
    try:
        return sorted(str(path) for path in (data_dir / FIRST_RUN_FOLDER).iterdir())[:MAX_FILES]
    except OSError:
        # No such folder: nothing was left, or another machine keeps it.
        return []
