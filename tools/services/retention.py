"""Forgetting runs that ended long ago."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from tools.models import Execution

BATCH = 500
"""Runs deleted in one transaction, so that nobody waits long for the write lock."""
MAX_BATCHES = 20


KEYS_KEPT_FOR = timedelta(hours=24)
"""How long an idempotency key stands for its call (protocol.md section 9)."""


def forget_idempotency_keys() -> int:
    """Empty the keys whose time is over; how many."""
    old = Execution.objects.exclude(idempotency_key="").filter(created_at__lt=timezone.now() - KEYS_KEPT_FOR)
    return old.update(idempotency_key="")


def purge_executions() -> int:
    """Delete what ended before the retention time, in bounded steps; how many runs were deleted."""
    cutoff = timezone.now() - timedelta(days=settings.MCP.execution_retention_days)
    purged = 0
    for _ in range(MAX_BATCHES):
        batch = list(Execution.objects.filter(finished_at__lt=cutoff).values_list("id", flat=True)[:BATCH])
        if not batch:
            break
        Execution.objects.filter(id__in=batch).delete()
        purged += len(batch)
    return purged
