"""What a worker's parent does for the runs of its children: see what is due, recover what they lost. Its edge kills.

A lease says that the parent lives. It is renewed by a conditional update on the database's clock: a parent that was
stopped for so long that its lease lapsed learns of it, and must kill its children before it takes a new one.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta

from django.conf import settings
from django.db.models import ExpressionWrapper
from django.db.models.expressions import Combinable
from django.db.models.fields import DateTimeField
from django.db.models.functions import Now
from django.utils import timezone

from tools.domain.states import ExecutionState
from tools.domain.supervision import CancelMode, Measure, RunningAttempt, choose_measure, get_end
from tools.models import Execution, WorkerLease
from tools.services.recovery import Loss, recover_execution

RENEWALS_PER_LEASE = 3
FORGOTTEN_AFTER = timedelta(hours=1)


def get_lease_seconds() -> float:
    """How long a lease holds after it was last renewed."""
    return float(settings.MCP.worker_lease_seconds)


def take_lease(*, name: str, host: str, pid: int) -> None:
    """Say that the worker lives, for the first time or after its lease was lost."""
    WorkerLease.objects.update_or_create(name=name, defaults={"host": host, "pid": pid, "expires_at": _get_expiry()})
    WorkerLease.objects.filter(expires_at__lt=timezone.now() - FORGOTTEN_AFTER).delete()


def renew_lease(*, name: str) -> bool:
    """Say that the worker still lives; ``False``: the lease has lapsed, and its runs may be others' by now."""
    return WorkerLease.objects.filter(name=name, expires_at__gt=Now()).update(expires_at=_get_expiry()) == 1


def end_lease(*, name: str) -> None:
    """Say that the worker stops."""
    WorkerLease.objects.filter(name=name).delete()


def choose_measures(*, worker: str) -> Mapping[uuid.UUID, Measure]:
    """Every run that is this worker's by the database, and what is due about it."""
    now = timezone.now()
    rows = Execution.objects.filter(worker=worker, state=ExecutionState.RUNNING.value).only(
        "started_at", "timeout_seconds", "deadline", "cancel_mode", "cancel_requested_at", "created_at"
    )
    return {row.id: choose_measure(attempt=_describe(row), now=now) for row in rows}


def recover_unheld_executions(*, worker: str, held: Collection[uuid.UUID]) -> int:
    """Recover the runs that are this worker's by the database but that none of its children has; how many."""
    rows = Execution.objects.filter(worker=worker, state=ExecutionState.RUNNING.value)
    return sum(recover_execution(execution=row, loss=Loss.CHILD_ENDED) for row in rows if row.id not in held)


def _describe(row: Execution) -> RunningAttempt:
    return RunningAttempt(
        ends_at=get_end(
            started_at=row.started_at or row.created_at, timeout_seconds=row.timeout_seconds, deadline=row.deadline
        ),
        cancel_mode=CancelMode(row.cancel_mode) if row.cancel_mode else None,
        cancel_requested_at=row.cancel_requested_at,
    )


def _get_expiry() -> Combinable:
    return ExpressionWrapper(Now() + timedelta(seconds=get_lease_seconds()), output_field=DateTimeField())
