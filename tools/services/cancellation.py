"""Cancelling a run: at once where it waits, by its worker's parent where it runs."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils import timezone

from protocol import sessions
from protocol.failpoints import failpoint
from protocol.ports import Principal
from security.services import audit
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.domain.supervision import CancelMode
from tools.errors import ExecutionCancelled, ExecutionNotFound
from tools.models import Execution
from tools.selectors import CANCEL_EXECUTIONS, get_resource, may_act
from tools.services.pipeline import Outcome, finish_execution


def cancel_execution(*, principal: Principal, execution_id: uuid.UUID, mode: CancelMode, trace_id: str) -> bool:
    """End a waiting run now, or ask for a running one to be ended; ``False`` where it had ended before.

    A ``kill`` after a ``graceful`` is taken, the other way round it changes nothing. The run's caller gets
    ``tool.cancelled``.

    Raises:
        ExecutionNotFound: there is none, or the principal may not cancel it.
    """
    execution = Execution.objects.filter(id=execution_id).first()
    if execution is None or not may_act(principal=principal, action=CANCEL_EXECUTIONS, execution=execution):
        raise ExecutionNotFound(
            details={"execution_id": str(execution_id)}, denied_action="" if execution is None else CANCEL_EXECUTIONS
        )
    # Between the look and the update a worker may have claimed the run, so the other way is tried then.
    while ExecutionState(execution.state) not in TERMINAL_STATES:
        with transaction.atomic():
            is_waiting = execution.state != ExecutionState.RUNNING
            is_taken = _end_waiting(execution) if is_waiting else _ask_worker(execution, mode)
            if is_taken:
                audit.record_event(
                    action=CANCEL_EXECUTIONS,
                    principal=principal,
                    resource=get_resource(execution),
                    outcome=mode.value,
                    trace_id=trace_id,
                )
            failpoint("cancel.before_commit")
        failpoint("cancel.after_commit")
        if is_taken:
            return True
        execution = Execution.objects.get(id=execution_id)
    return False


def _end_waiting(execution: Execution) -> bool:
    return finish_execution(
        execution=execution,
        from_state=ExecutionState(execution.state),
        outcome=Outcome(state=ExecutionState.CANCELLED, error=ExecutionCancelled()),
        position=execution.event_count + 1,
        channel=sessions.get_channel(session_id=execution.session_id),
    )


def _ask_worker(execution: Execution, mode: CancelMode) -> bool:
    running = Execution.objects.filter(id=execution.id, state=ExecutionState.RUNNING.value, attempt=execution.attempt)
    weaker = ("",) if mode is CancelMode.GRACEFUL else ("", CancelMode.GRACEFUL.value)
    if running.filter(cancel_mode__in=weaker).update(cancel_mode=mode.value, cancel_requested_at=timezone.now()):
        return True
    # The same or more was asked for before: as good as done, and its grace runs from then.
    return running.exclude(cancel_mode="").exists()
