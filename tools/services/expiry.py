"""Ending runs whose time is over although nobody did: no worker came, or the one that came did not end them.

The web process asks for it when a waiting caller's deadline passes, the scheduler for all others. A run that was
never sent to the broker is sent here.
"""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from protocol.domain.messages import Priority
from protocol.models import Session
from tools.domain.states import ExecutionState
from tools.errors import ExecutionTimeout
from tools.models import Execution
from tools.services.acceptance import KILL_GRACE_SECONDS, send_execution
from tools.services.pipeline import Outcome, finish_execution

BATCH = 200
"""Runs looked after in one call; the next call goes on."""
UNSENT_AFTER = timedelta(seconds=2)
OVERDUE_GRACE = timedelta(seconds=2 * KILL_GRACE_SECONDS)
"""How long after its kill a run is left to whoever records it."""


def expire_execution(*, execution_id: uuid.UUID) -> bool:
    """End a run that is not over yet as ``timed_out``, and answer its caller; ``False`` where it was over."""
    with transaction.atomic():
        execution = Execution.objects.select_related("version").filter(id=execution_id, finished_at=None).first()
        if execution is None:
            return False
        state = ExecutionState(execution.state)
        never_started = state is ExecutionState.QUEUED
        message = "No worker took the run before its deadline." if never_started else "The tool did not finish in time."
        channel = ""
        if execution.session_id is not None:
            session = Session.objects.filter(id=execution.session_id, ended_at=None).only("channel").first()
            channel = "" if session is None else session.channel
        return finish_execution(
            execution=execution,
            from_state=state,
            outcome=Outcome(
                state=ExecutionState.TIMED_OUT,
                error=ExecutionTimeout(message),
                is_retryable=never_started or execution.version.is_idempotent,
            ),
            position=execution.event_count + 1,
            channel=channel,
        )


def expire_overdue_executions() -> int:
    """End what is past its caller's deadline or its own time limit; how many."""
    now = timezone.now()
    candidates = Execution.objects.filter(finished_at=None).filter(
        Q(deadline__lt=now - OVERDUE_GRACE) | Q(state=ExecutionState.RUNNING.value, started_at__lt=now - OVERDUE_GRACE)
    )
    overdue = [
        execution.id
        for execution in candidates.only("id", "deadline", "started_at", "timeout_seconds", "state")[:BATCH]
        if is_overdue(execution)
    ]
    return sum(expire_execution(execution_id=execution_id) for execution_id in overdue)


def is_overdue(execution: Execution) -> bool:
    """Whether nobody can be expected to end the run any more."""
    now = timezone.now()
    if execution.deadline is not None and execution.deadline + OVERDUE_GRACE < now:
        return True
    if execution.started_at is None or execution.state != ExecutionState.RUNNING:
        return False
    return execution.started_at + timedelta(seconds=execution.timeout_seconds) + OVERDUE_GRACE < now


def send_unsent_executions() -> int:
    """Hand to the broker what was accepted while it could not be reached; how many were sent."""
    sent = 0
    unsent = Execution.objects.filter(
        state=ExecutionState.QUEUED.value, sent_at=None, created_at__lt=timezone.now() - UNSENT_AFTER
    ).order_by("created_at")
    for execution in unsent[:BATCH]:
        # Marked before it is sent: sent twice is harmless, as the second claim fails.
        Execution.objects.filter(id=execution.id).update(sent_at=timezone.now())
        if not send_execution(
            execution_id=execution.id,
            priority=Priority(execution.priority),
            timeout_seconds=execution.timeout_seconds,
        ):
            break
        sent += 1
    return sent
