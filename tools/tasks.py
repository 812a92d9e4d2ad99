"""Celery's edge of this app. A task's message is a hint; the row that it names is the truth."""

from __future__ import annotations

import uuid
from typing import Any

from celery import shared_task

from tools import services


@shared_task(name="tools.run_execution", bind=True)
def run_execution(self: Any, *, execution_id: str) -> None:
    """Run one accepted execution; again for the same one, it does nothing."""
    services.run_execution(execution_id=uuid.UUID(execution_id), worker=self.request.hostname or "")


@shared_task(name="tools.send_waiting_executions")
def send_waiting_executions() -> None:
    """The reconciler: send what was never sent, and what seems lost."""
    services.send_waiting_executions()


@shared_task(name="tools.reap_executions")
def reap_executions() -> None:
    """The reaper: recover what lost its worker, end what is overdue, remove what they left."""
    services.recover_lost_executions()
    services.expire_overdue_executions()
    services.remove_orphaned_scratch()


@shared_task(name="tools.purge_executions")
def purge_executions() -> None:
    """Forget what ended before the retention time, and the idempotency keys of yesterday."""
    services.purge_executions()
    services.forget_idempotency_keys()
