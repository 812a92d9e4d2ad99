"""What becomes of a run whose attempt was lost: tried again, or ended as what it is. Also finding such runs.

A lost attempt is one whose worker's lease has lapsed, or whose child its worker's parent no longer has. Every step is
one conditional update on (state, attempt, worker): of a late finish, a cancellation and a recovery exactly one wins.
"""

from __future__ import annotations

import enum
import logging
import random

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now
from django.utils import timezone

from protocol import outbox, sessions, statements
from protocol.failpoints import failpoint
from tools.domain.retry import GiveUp, RetryAfter, decide_retry
from tools.domain.states import ExecutionState
from tools.domain.supervision import get_end
from tools.errors import ExecutionCancelled, ExecutionInterrupted, ExecutionTimeout
from tools.models import Execution, WorkerLease
from tools.selectors import get_definition
from tools.services import timeline
from tools.services.pipeline import Outcome, finish_execution, free_ports, record_event
from tools.services.scratch import iterate_scratch, remove_folder, remove_scratch

logger = logging.getLogger(__name__)

BATCH = 200
"""Runs recovered in one call; the next call goes on."""


class Loss(enum.Enum):
    """How an attempt was lost."""

    CHILD_ENDED = enum.auto()
    """Its worker's parent lives and no longer has it: the child died, or was killed for its time or a cancellation."""
    LEASE_LAPSED = enum.auto()
    """Nobody has heard of its worker."""


def recover_lost_executions() -> int:
    """Recover what runs under no live lease; how many."""
    live = WorkerLease.objects.filter(name=OuterRef("worker"), expires_at__gt=Now())
    lost = (
        Execution.objects.filter(state=ExecutionState.RUNNING.value)
        .filter(~Exists(live))
        .order_by("started_at")[:BATCH]
    )
    return sum(recover_execution(execution=execution, loss=Loss.LEASE_LAPSED) for execution in lost)


def recover_execution(*, execution: Execution, loss: Loss) -> bool:
    """End a lost attempt, or queue the run for the next one; ``False`` where somebody else was faster.

    ``execution`` is the row as it was read: the update names its attempt and worker.
    """
    now = timezone.now()
    with transaction.atomic():
        outcome = decide_outcome(execution=execution, loss=loss)
        if isinstance(outcome, RetryAfter):
            is_recovered = _queue_again(execution=execution, retry=outcome)
        else:
            is_recovered = finish_execution(
                execution=execution,
                from_state=ExecutionState.RUNNING,
                outcome=outcome,
                position=execution.event_count + 1,
                channel=sessions.get_channel(session_id=execution.session_id),
            )
        failpoint("recover.before_commit")
    failpoint("recover.after_commit")
    if is_recovered:
        remove_scratch(execution=execution)
        what = f"again in {outcome.delay}" if isinstance(outcome, RetryAfter) else outcome.state.value
        logger.warning(
            "Run %s: attempt %d was lost with %s after %s: %s",
            execution.id,
            execution.attempt,
            execution.worker,
            now - (execution.started_at or now),
            what,
        )
    return is_recovered


def decide_outcome(*, execution: Execution, loss: Loss) -> RetryAfter | Outcome:
    """What a lost attempt comes to: cancelled or timed out if that was due, else retried or interrupted.

    One whose worker vanished may be found long after its time, and is no timeout for that; one whose parent lives was
    killed for it.
    """
    if execution.cancel_mode:
        return Outcome(state=ExecutionState.CANCELLED, error=ExecutionCancelled())
    started_at = execution.started_at or execution.created_at
    ends_at = get_end(started_at=started_at, timeout_seconds=execution.timeout_seconds, deadline=execution.deadline)
    is_idempotent = get_definition(execution.version_id).is_idempotent
    is_final = loss is Loss.CHILD_ENDED or not is_idempotent or ends_at == execution.deadline
    if timezone.now() >= ends_at and is_final:
        return Outcome(
            state=ExecutionState.TIMED_OUT,
            error=ExecutionTimeout("The tool did not finish in time."),
            is_retryable=is_idempotent,
        )
    decision = decide_retry(
        attempt=execution.attempt,
        is_idempotent=is_idempotent,
        jitter=random.random(),  # noqa: S311  # spreads retries, guards nothing
    )
    if isinstance(decision, GiveUp):
        return Outcome(
            state=ExecutionState.INTERRUPTED,
            error=ExecutionInterrupted(decision.reason),
            is_retryable=is_idempotent,
        )
    return decision


def _queue_again(*, execution: Execution, retry: RetryAfter) -> bool:
    now = timezone.now()
    position = execution.event_count + 1
    is_queued = Execution.objects.filter(
        id=execution.id,
        state=ExecutionState.RUNNING.value,
        attempt=execution.attempt,
        worker=execution.worker,
        cancel_mode="",
    ).update(
        state=ExecutionState.QUEUED.value,
        worker="",
        started_at=None,
        sent_at=None,
        not_before=now + retry.delay,
        event_count=position,
    )
    if not is_queued:
        return False
    free_ports(execution)
    statements.insert(
        timeline.make_state_event(
            execution_id=execution.id,
            position=position,
            state=ExecutionState.QUEUED,
            attempt=execution.attempt,
            at=now,
        )
    )
    record_event(
        execution,
        action="execution.lost",
        outcome=ExecutionState.QUEUED,
        error=ExecutionInterrupted("The attempt's worker was lost."),
    )
    if execution.session_id is not None:
        outbox.wake(
            session_id=execution.session_id,
            channel=sessions.get_channel(session_id=execution.session_id),
            events=[timeline.ride_update(execution=execution, state=ExecutionState.QUEUED, position=position)],
            has_outbox=False,
        )
    return True


def remove_orphaned_scratch() -> int:
    """Remove this machine's scratch folders whose run is not running any more; how many."""
    folders = list(iterate_scratch())
    running = set(
        Execution.objects.filter(
            id__in={execution_id for execution_id, _ in folders}, state=ExecutionState.RUNNING.value
        ).values_list("id", flat=True)
    )
    orphaned = [folder for execution_id, folder in folders if execution_id not in running]
    for folder in orphaned:
        remove_folder(folder)
    return len(orphaned)
