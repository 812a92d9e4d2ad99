"""What the console shows of tools and runs. Whoever looks has Django's permissions, which the console checks itself.

Each of these stays fast with a million runs: what it reads is bounded, or answered from an index.
"""

from __future__ import annotations

import heapq
import re
import uuid
from collections.abc import Collection
from datetime import datetime

import msgspec
from django.contrib.auth import get_user_model
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from msgspec import Struct

from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.models import Execution, ExecutionEvent, Tool, ToolVersion
from tools.selectors.catalog import get_wire_state

MAX_TIMELINE_EVENTS = 500
MAX_FOUND = 500
"""Runs that a search finds; the newest."""
_MAX_NAMES = 10
_MAX_VERSIONS = 200
_MAX_RETRIES = 20
_ID_START = re.compile(r"[0-9a-f]{8,32}")


class TimelineEntry(Struct, frozen=True, kw_only=True):
    """One event of a run as the console shows it: a state that it came into, or progress."""

    position: int
    at: datetime
    offset_seconds: float
    """Since the run was accepted."""
    state: str
    attempt: int
    fraction: float | None
    message: str
    output_chunk: str


class Timeline(Struct, frozen=True, kw_only=True):
    entries: list[TimelineEntry]
    left_out: int
    """Earlier events than these."""

    @property
    def output(self) -> str:
        """What the run streamed, as far as it is in these events."""
        return "".join(entry.output_chunk for entry in self.entries)


class _EventData(Struct, frozen=True):
    state: str = ""
    attempt: int = 0
    fraction: float | None = None
    message: str = ""
    output_chunk: str = ""


def get_timeline(*, execution: Execution) -> Timeline:
    """The run's last ``MAX_TIMELINE_EVENTS`` events, in order."""
    of_run = ExecutionEvent.objects.filter(execution=execution)
    events = list(of_run.order_by("-position")[:MAX_TIMELINE_EVENTS])[::-1]
    left_out = of_run.filter(position__lt=events[0].position).count() if len(events) == MAX_TIMELINE_EVENTS else 0
    return Timeline(entries=[_read_event(event, since=execution.created_at) for event in events], left_out=left_out)


def list_retries(*, execution: Execution) -> list[uuid.UUID]:
    """The runs that repeat this one, the newest first."""
    return list(execution.retries.order_by("-created_at").values_list("id", flat=True)[:_MAX_RETRIES])


def list_latest_executions(*, limit: int) -> list[Execution]:
    """The newest runs, without their input and output."""
    return list(select_execution_rows(Execution.objects.all()).order_by("-created_at")[:limit])


def select_execution_rows(executions: QuerySet[Execution]) -> QuerySet[Execution]:
    """These with what a row of a list shows, in one query: inputs, outputs and schemas stay in the database."""
    return executions.select_related("tool", "version", "requested_by").only(
        "state",
        "priority",
        "mode",
        "attempt",
        "progress_fraction",
        "progress_message",
        "created_at",
        "started_at",
        "finished_at",
        "tool__name",
        "version__version",
        "requested_by__username",
    )


def filter_executions_by_state(
    executions: QuerySet[Execution], *, states: Collection[ExecutionState]
) -> QuerySet[Execution]:
    """Those of the runs that are in one of the states."""
    found = executions.filter(state__in=[state.value for state in states])
    # Said twice where none of them is an end: what is not over has an index of its own, and is little.
    return found if TERMINAL_STATES.intersection(states) else found.filter(finished_at=None)


def search_executions(*, executions: QuerySet[Execution], term: str) -> QuerySet[Execution]:
    """Those of the runs that the term names: by a run's id or its beginning, a session's, trace's or message's id.

    Where it is none of these, those whose tool or account has it in its name. The newest ``MAX_FOUND`` at most. Each
    condition is asked for alone, as then an index answers it; of all of them together a database may choose to read
    every row.
    """
    found = [row for condition in _match_identifier(term) for row in _list_newest(executions.filter(condition))]
    if not found:
        found = [row for condition in _match_names(term) for row in _list_newest(executions.filter(condition))]
    return executions.filter(id__in=[identifier for _, identifier in heapq.nlargest(MAX_FOUND, set(found))])


def annotate_tools(tools: QuerySet[Tool]) -> QuerySet[Tool]:
    """With ``version_count``, ``quarantined_count`` and ``last_run_at``: one look into an index for each tool."""
    newest = Execution.objects.filter(tool=OuterRef("pk")).order_by("-created_at").values("created_at")[:1]
    return tools.annotate(
        version_count=Count("versions"),
        quarantined_count=Count("versions", filter=Q(versions__state=ToolVersion.State.QUARANTINED)),
        last_run_at=Subquery(newest),
    )


def list_version_names(*, tool_id: uuid.UUID) -> list[tuple[uuid.UUID, str]]:
    """The ids and names of a tool's versions, the newest first."""
    versions = ToolVersion.objects.filter(tool_id=tool_id).order_by("-created_at")
    return list(versions.values_list("id", "version")[:_MAX_VERSIONS])


def get_tool_wire_state(tool: Tool) -> str:
    """The state of the tool's current version as callers see it."""
    if tool.current_version is None:
        return "disabled" if tool.state == Tool.State.DISABLED else "unavailable"
    # Else looking at its tool would be a query for each.
    tool.current_version.tool = tool
    return get_wire_state(tool.current_version)


def filter_tools_by_state(tools: QuerySet[Tool], *, state: str) -> QuerySet[Tool]:
    """Those of the tools whose current version has this state for callers, as ``get_wire_state`` has it."""
    if state == "disabled":
        return tools.filter(state=Tool.State.DISABLED)
    current = Q(current_version__state=ToolVersion.State.AVAILABLE if state == "enabled" else state)
    if state == "unavailable":
        current |= Q(current_version=None)
    return tools.filter(current, state=Tool.State.ENABLED)


def _read_event(event: ExecutionEvent, *, since: datetime) -> TimelineEntry:
    data = msgspec.json.decode(event.data_json, type=_EventData)
    return TimelineEntry(
        position=event.position,
        at=event.at,
        # The first event is made just before its run's row.
        offset_seconds=max(0.0, (event.at - since).total_seconds()),
        state=data.state,
        attempt=data.attempt,
        fraction=data.fraction,
        message=data.message,
        output_chunk=data.output_chunk,
    )


def _list_newest(executions: QuerySet[Execution]) -> list[tuple[datetime, uuid.UUID]]:
    return list(executions.order_by("-created_at", "-id").values_list("created_at", "id")[:MAX_FOUND])


def _match_identifier(term: str) -> list[Q]:
    conditions = [Q(message_id=term), Q(trace_id=term.lower())]
    digits = term.replace("-", "").lower()
    if _ID_START.fullmatch(digits):
        first, last = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
        ids = Execution.objects.filter(id__range=(first, last)).order_by("-id").values_list("id", flat=True)[:MAX_FOUND]
        conditions.append(Q(id__in=list(ids)))
        if first == last:
            conditions.append(Q(session_id=first))
    return conditions


def _match_names(term: str) -> list[Q]:
    tools = Tool.objects.filter(name__icontains=term).values_list("id", flat=True)[:_MAX_NAMES]
    accounts = get_user_model().objects.filter(username__icontains=term).values_list("id", flat=True)[:_MAX_NAMES]
    return [*(Q(tool=tool) for tool in tools), *(Q(requested_by=account) for account in accounts)]
