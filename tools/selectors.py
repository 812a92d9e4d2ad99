"""Reads: tools, runs and workers, as their edges show them. What a principal may not see is not there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
from django.db.models import Q, QuerySet
from django.utils import timezone
from msgspec import UNSET, Raw, Struct, UnsetType

from protocol import ports
from protocol.ports import Principal, Resource
from tools.errors import ExecutionNotFound, ToolNotFound
from tools.models import Execution, ExecutionEvent, Tool, ToolVersion, WorkerLease

VIEW_TOOLS = "tools.view"
VIEW_EXECUTIONS = "executions.view"
EXECUTE_TOOLS = "tools.execute"
MAX_EVENTS = 500
"""Events of one run given out at once; the rest is asked for with ``after``."""
_LIST_CHUNK = 200


class ToolSummary(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    description: str
    capabilities: list[str]
    idempotent: bool
    state: str
    """``enabled`` ``disabled`` ``unavailable`` ``quarantined``"""


class ToolPage(Struct, frozen=True, kw_only=True):
    tools: list[ToolSummary]
    next_cursor: str | None


class VersionSummary(Struct, frozen=True, kw_only=True):
    version: str
    state: str
    definition_hash: str
    created_at: datetime


class ToolDescription(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    capabilities: list[str]
    idempotent: bool
    timeout_ms: int | None
    state: str
    state_reason: str
    definition_hash: str
    versions: list[VersionSummary]


class EventView(Struct, frozen=True, kw_only=True):
    position: int
    kind: str
    at: datetime
    data: Raw


class ProgressView(Struct, frozen=True, kw_only=True):
    fraction: float | None
    message: str


class ExecutionView(Struct, frozen=True, kw_only=True):
    execution_id: str
    tool: str
    version: str
    definition_hash: str
    state: str
    attempt: int
    input: Raw
    output: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    progress: ProgressView | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    events: list[EventView]


def get_tool_version(*, principal: Principal, name: str, version: str | None) -> ToolVersion:
    """The version that a call of the tool means, with its tool; without ``version`` the current one.

    Raises:
        ToolNotFound: there is none, or the principal may not see it.
    """
    found: ToolVersion | None
    if not _may_view(principal, name):
        found = None
    elif version is None:
        tool = Tool.objects.select_related("current_version").filter(name=name).first()
        found = None if tool is None else tool.current_version
        if tool is not None and found is not None:
            found.tool = tool
    else:
        found = ToolVersion.objects.select_related("tool").filter(tool__name=name, version=version).first()
    if found is None:
        raise ToolNotFound(details={"tool": name[:100]})
    return found


def describe_tool(*, principal: Principal, name: str, version: str | None) -> ToolDescription:
    """A tool's version with its schemas, and which versions there are.

    Raises:
        ToolNotFound: there is none, or the principal may not see it.
    """
    found = get_tool_version(principal=principal, name=name, version=version)
    timeout = found.timeout_seconds
    return ToolDescription(
        name=found.tool.name,
        version=found.version,
        description=found.description,
        input_schema=found.input_schema,
        output_schema=found.output_schema,
        capabilities=found.capabilities,
        idempotent=found.is_idempotent,
        timeout_ms=None if timeout is None else int(timeout * 1000),
        state=get_wire_state(found),
        state_reason=found.tool.disabled_reason or found.state_reason,
        definition_hash=found.definition_hash,
        versions=[
            VersionSummary(
                version=row.version, state=row.state, definition_hash=row.definition_hash, created_at=row.created_at
            )
            for row in found.tool.versions.order_by("-created_at")[:_LIST_CHUNK]
        ],
    )


def list_tools(
    *,
    principal: Principal,
    capability: str | None,
    query: str | None,
    state: str | None,
    cursor: str | None,
    limit: int,
) -> ToolPage:
    """The tools that the principal may see, by name; the cursor is the last name of the page before."""
    page: list[ToolSummary] = []
    for version in _iterate_current(query=query, after=cursor or ""):
        name = version.tool.name
        wire_state = get_wire_state(version)
        if not _may_view(principal, name) or (state is not None and state != wire_state):
            continue
        if capability is not None and capability not in version.capabilities:
            continue
        if len(page) == limit:
            return ToolPage(tools=page, next_cursor=page[-1].name)
        page.append(
            ToolSummary(
                name=name,
                version=version.version,
                description=version.description,
                capabilities=version.capabilities,
                idempotent=version.is_idempotent,
                state=wire_state,
            )
        )
    return ToolPage(tools=page, next_cursor=None)


def get_wire_state(version: ToolVersion) -> str:
    """The version's state as callers see it: its tool's switch first."""
    if version.tool.state == Tool.State.DISABLED:
        return "disabled"
    return "enabled" if version.state == ToolVersion.State.AVAILABLE else version.state


def get_execution(*, principal: Principal, execution_id: uuid.UUID, after: int = 0) -> ExecutionView:
    """A run with the events of its timeline past ``after``, ``MAX_EVENTS`` at most.

    Raises:
        ExecutionNotFound: there is none, or the principal may not see it.
    """
    execution = Execution.objects.select_related("tool", "version", "requested_by").filter(id=execution_id).first()
    if execution is None or not ports.get_authorizer().is_allowed(
        principal=principal,
        action=VIEW_EXECUTIONS,
        resource=Resource(kind="execution", name=str(execution_id), owner_id=execution.requested_by_id),
    ):
        raise ExecutionNotFound(details={"execution_id": str(execution_id)})
    events = ExecutionEvent.objects.filter(execution=execution, position__gt=after).order_by("position")[:MAX_EVENTS]
    return ExecutionView(
        execution_id=str(execution.id),
        tool=execution.tool.name,
        version=execution.version.version,
        definition_hash=execution.definition_hash,
        state=execution.state,
        attempt=execution.attempt,
        input=as_raw(execution.input_json),
        output=UNSET if execution.output_json is None else as_raw(execution.output_json),
        error=as_raw(execution.error_json) if execution.error_json else UNSET,
        progress=get_progress(execution),
        requested_by=execution.requested_by.get_username(),
        created_at=execution.created_at,
        started_at=execution.started_at,
        finished_at=execution.finished_at,
        events=[
            EventView(position=event.position, kind=event.kind, at=event.at, data=as_raw(event.data_json))
            for event in events
        ],
    )


def find_execution_id(*, session_id: uuid.UUID, message_id: str) -> uuid.UUID | None:
    """The run that a command of the session asked for; ``None`` where it asked for none."""
    return Execution.objects.filter(session_id=session_id, message_id=message_id).values_list("id", flat=True).first()


def get_progress(execution: Execution) -> ProgressView | None:
    """How far the run said that it is; ``None`` where it said nothing."""
    if execution.progress_fraction is None and not execution.progress_message:
        return None
    return ProgressView(fraction=execution.progress_fraction, message=execution.progress_message)


def count_live_workers() -> int:
    """How many workers have a lease that has not lapsed."""
    return WorkerLease.objects.filter(expires_at__gt=timezone.now()).count()


def as_raw(text: str) -> Raw:
    """Stored JSON for a wire structure."""
    return msgspec.Raw(text.encode())


def _may_view(principal: Principal, name: str) -> bool:
    return ports.get_authorizer().is_allowed(
        principal=principal, action=VIEW_TOOLS, resource=Resource(kind="tool", name=name)
    )


def _iterate_current(*, query: str | None, after: str) -> Iterator[ToolVersion]:
    rows: QuerySet[Tool] = Tool.objects.select_related("current_version").exclude(current_version=None)
    if query:
        rows = rows.filter(Q(name__icontains=query) | Q(current_version__description__icontains=query))
    while chunk := list(rows.filter(name__gt=after).order_by("name")[:_LIST_CHUNK]):
        for tool in chunk:
            version = tool.current_version
            if version is not None:
                version.tool = tool
                yield version
        after = chunk[-1].name
