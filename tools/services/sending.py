"""The reconciler: runs that may never have been sent to the broker, or whose message seems lost, are sent again.

The acceptance sends without writing that it did, which would cost each run a commit. So what still waits after a
moment is sent once more, and again when that message must be lost too. A message is a hint: one too many costs a
worker a claim that fails.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F, Max, Q
from django.utils import timezone

from protocol.domain.messages import Priority
from tools.domain.states import ExecutionState
from tools.models import Execution
from tools.services.acceptance import send_execution

BATCH = 200
"""Runs sent in one call; the next call goes on."""
UNSENT_AFTER = timedelta(seconds=2)
LOST_AFTER = timedelta(seconds=15)
QUEUE_AGE_WINDOW = timedelta(minutes=1)


def send_waiting_executions() -> int:
    """Send what waits unsent, or was sent so long ago that its message must be lost; how many."""
    now = timezone.now()
    lost_before = now - max(LOST_AFTER, 2 * measure_queue_age())
    due = (
        Execution.objects.filter(state=ExecutionState.QUEUED.value)
        .filter(Q(not_before=None) | Q(not_before__lte=now))
        .filter(Q(sent_at=None, created_at__lt=now - UNSENT_AFTER) | Q(sent_at__lt=lost_before))
        .order_by("created_at")
        .values_list("id", "priority")[:BATCH]
    )
    sent = 0
    for execution_id, priority in due:
        # Marked before it is sent: a run sent twice is harmless, one sent by every round is not.
        Execution.objects.filter(id=execution_id, state=ExecutionState.QUEUED.value).update(sent_at=timezone.now())
        if not send_execution(execution_id=execution_id, priority=Priority(priority)):
            Execution.objects.filter(id=execution_id, state=ExecutionState.QUEUED.value).update(sent_at=None)
            break
        sent += 1
    return sent


def measure_queue_age() -> timedelta:
    """How long runs that were claimed lately had waited, at most."""
    recent = Execution.objects.filter(started_at__gte=timezone.now() - QUEUE_AGE_WINDOW, attempt=1)
    longest: timedelta | None = recent.aggregate(longest=Max(F("started_at") - F("created_at")))["longest"]
    return longest or timedelta()
