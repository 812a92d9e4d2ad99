"""A run's timeline: its events as rows, and as what the caller's session is sent."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import msgspec

from protocol.wakeups import RiddenEvent
from tools.domain.states import ExecutionState
from tools.models import Execution, ExecutionEvent

UPDATED_EVENT = "execution.updated"
PROGRESS_EVENT = "execution.progress"
PROGRESS_FEATURE = "progress"


def make_state_event(
    *, execution_id: uuid.UUID, position: int, state: ExecutionState, attempt: int, at: datetime
) -> ExecutionEvent:
    """The row that says that the run came into this state."""
    return ExecutionEvent(
        execution_id=execution_id,
        position=position,
        kind=ExecutionEvent.Kind.STATE,
        data_json=msgspec.json.encode({"state": state, "attempt": attempt}).decode(),
        at=at,
    )


def describe_update(*, execution_id: uuid.UUID, state: ExecutionState, attempt: int, position: int) -> dict[str, Any]:
    """The data of ``execution.updated``."""
    return {"execution_id": str(execution_id), "state": state.value, "attempt": attempt, "position": position}


def ride_update(*, execution: Execution, state: ExecutionState, position: int) -> RiddenEvent:
    """``execution.updated`` for the session that asked; with its command's id only where that command still waits."""
    return RiddenEvent(
        event=UPDATED_EVENT,
        data=describe_update(execution_id=execution.id, state=state, attempt=execution.attempt, position=position),
        correlation_id=get_correlation_id(execution),
    )


def get_correlation_id(execution: Execution) -> str | None:
    """The command that this run's events answer; ``None`` for one that was answered when it was queued."""
    return execution.message_id if execution.mode == Execution.Mode.WAIT else None
