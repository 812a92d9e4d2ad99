"""Ending runs whose waiting caller's deadline has passed although no worker came, or the one that came is stuck.

The web process asks for it when a deadline passes, the scheduler for what no web process asked for.
"""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from protocol import outbox, sessions
from tools.domain.states import ExecutionState
from tools.errors import ExecutionTimeout
from tools.models import Execution, ExecutionWaiter
from tools.selectors import get_definition
from tools.services import answers
from tools.services.pipeline import Outcome, finish_execution

BATCH = 200
"""Runs looked after in one call; the next call goes on."""
GOES_ON = "The run did not end before this call's deadline; it goes on."
OVERDUE_GRACE = timedelta(seconds=5)
"""How long after the deadline a run is left to the web process."""


def expire_execution(*, execution_id: uuid.UUID) -> bool:
    """End a run that is not over yet as ``timed_out``, and answer its caller; ``False`` where it was over."""
    with transaction.atomic():
        execution = Execution.objects.filter(id=execution_id, finished_at=None).first()
        if execution is None:
            return False
        state = ExecutionState(execution.state)
        never_started = state is ExecutionState.QUEUED
        message = "No worker took the run before its deadline." if never_started else "The tool did not finish in time."
        return finish_execution(
            execution=execution,
            from_state=state,
            outcome=Outcome(
                state=ExecutionState.TIMED_OUT,
                error=ExecutionTimeout(message),
                is_retryable=never_started or get_definition(execution.version_id).is_idempotent,
            ),
            position=execution.event_count + 1,
            channel=sessions.get_channel(session_id=execution.session_id),
        )


def stop_waiting(*, execution_id: uuid.UUID, session_id: uuid.UUID | None, message_id: str) -> bool:
    """Answer a caller that joined a run and no longer waits; the run goes on. ``False``: it was answered before.

    Raises:
        ExecutionTimeout: the answer itself, to a caller that has no session.
    """
    if session_id is None:
        raise ExecutionTimeout(GOES_ON, details={"execution_id": str(execution_id)})
    with transaction.atomic():
        execution = Execution.objects.get(id=execution_id)
        deleted, _ = ExecutionWaiter.objects.filter(session_id=session_id, message_id=message_id).delete()
        if not deleted:
            return False
        error = ExecutionTimeout(GOES_ON)
        payload = answers.make_failure(execution=execution, error=error, is_retryable=True)
        appended = outbox.append(session_id=session_id, correlation_id=message_id, payload=payload)
        if appended is not None:
            outbox.wake(session_id=session_id, channel=appended.channel)
    return True


def expire_overdue_executions() -> int:
    """End what still waits although its caller's deadline has passed; how many."""
    now = timezone.now()
    overdue = Execution.objects.filter(state=ExecutionState.QUEUED.value, deadline__lt=now - OVERDUE_GRACE)
    ids = list(overdue.values_list("id", flat=True)[:BATCH])
    return sum(expire_execution(execution_id=execution_id) for execution_id in ids)
