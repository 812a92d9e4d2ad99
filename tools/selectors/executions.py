"""Runs as callers see them, and the workers: what a principal may not see is not there."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime

import msgspec
from django.utils import timezone
from msgspec import UNSET, Raw, Struct, UnsetType

from protocol import ports
from protocol.ports import Principal, Resource
from security.domain.actions import register_action
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.errors import ExecutionNotFound
from tools.models import Execution, ExecutionEvent, ExecutionWaiter, WorkerLease

VIEW_EXECUTIONS = register_action("executions.view", summary="See runs, with their inputs and outputs.")
STATE_KIND = ExecutionEvent.Kind.STATE.value
MAX_EVENTS = 500
"""Events of one run given out at once; the rest is asked for with ``after``."""


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


def get_execution(*, principal: Principal, execution_id: uuid.UUID, after: int = 0) -> ExecutionView:
    """A run with the events of its timeline past ``after``, ``MAX_EVENTS`` at most.

    Raises:
        ExecutionNotFound: there is none, or the principal may not see it.
    """
    execution = Execution.objects.select_related("tool", "version", "requested_by").filter(id=execution_id).first()
    if execution is None or not may_act(principal=principal, action=VIEW_EXECUTIONS, execution=execution):
        raise ExecutionNotFound(
            details={"execution_id": str(execution_id)}, denied_action="" if execution is None else VIEW_EXECUTIONS
        )
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
        events=_list_events(execution_id, after),
    )


class Sighting(Struct, frozen=True, kw_only=True):
    """What of a run changes while it lives."""

    state: str
    attempt: int
    position: int
    """Of the last event of its timeline."""

    @property
    def is_over(self) -> bool:
        return ExecutionState(self.state) in TERMINAL_STATES


def find_sightings(*, execution_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Sighting]:
    """What these runs are now, in one query; those that there are."""
    rows = Execution.objects.filter(id__in=execution_ids).values_list("id", "state", "attempt", "event_count")
    return {row[0]: Sighting(state=row[1], attempt=row[2], position=row[3]) for row in rows}


class EventPage(Struct, frozen=True, kw_only=True):
    """Events of a run past a position."""

    events: list[EventView]
    position: int
    """Of the last of them, or the one that they were asked after."""
    is_over: bool
    """Whether the run had ended before they were read: then none follow these."""


def read_events(*, principal: Principal, execution_id: uuid.UUID, after: int) -> EventPage:
    """The run's events past ``after``, ``MAX_EVENTS`` at most.

    Raises:
        ExecutionNotFound: there is none, or the principal may not see it.
    """
    execution = Execution.objects.only("state", "requested_by_id", "event_count").filter(id=execution_id).first()
    if execution is None or not may_act(principal=principal, action=VIEW_EXECUTIONS, execution=execution):
        raise ExecutionNotFound(
            details={"execution_id": str(execution_id)}, denied_action="" if execution is None else VIEW_EXECUTIONS
        )
    is_over = ExecutionState(execution.state) in TERMINAL_STATES
    if is_over and after >= execution.event_count:
        return EventPage(events=[], position=after, is_over=True)
    events = _list_events(execution_id, after)
    return EventPage(events=events, position=events[-1].position if events else after, is_over=is_over)


def _list_events(execution_id: uuid.UUID, after: int) -> list[EventView]:
    rows = ExecutionEvent.objects.filter(execution_id=execution_id, position__gt=after).order_by("position")
    return [
        EventView(position=row.position, kind=row.kind, at=row.at, data=as_raw(row.data_json))
        for row in rows[:MAX_EVENTS]
    ]


def get_resource(execution: Execution) -> Resource:
    """The run as policy and the audit record name it."""
    return Resource(kind="execution", name=str(execution.id), owner_id=execution.requested_by_id)


def may_act(*, principal: Principal, action: str, execution: Execution) -> bool:
    """Whether the principal may do this with the run."""
    return ports.get_authorizer().is_allowed(principal=principal, action=action, resource=get_resource(execution))


def find_execution_id(*, session_id: uuid.UUID, message_id: str) -> uuid.UUID | None:
    """The run that a command of the session asked for, or waits for by its key; ``None`` where there is none."""
    asked = Execution.objects.filter(session_id=session_id, message_id=message_id).values_list("id", flat=True).first()
    if asked is not None:
        return asked
    waiting = ExecutionWaiter.objects.filter(session_id=session_id, message_id=message_id)
    return waiting.values_list("execution_id", flat=True).first()


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
