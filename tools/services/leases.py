"""Worker leases: how a worker says that it lives. Its parent process renews, so that a busy child cannot starve it."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from tools.models import WorkerLease

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
FORGOTTEN_AFTER = timedelta(hours=1)


def renew_lease(*, name: str, host: str, pid: int) -> None:
    """Say that the worker lives for another ``LEASE_SECONDS``."""
    now = timezone.now()
    WorkerLease.objects.update_or_create(
        name=name, defaults={"host": host, "pid": pid, "expires_at": now + timedelta(seconds=LEASE_SECONDS)}
    )
    WorkerLease.objects.filter(expires_at__lt=now - FORGOTTEN_AFTER).delete()


def end_lease(*, name: str) -> None:
    """Say that the worker stops."""
    WorkerLease.objects.filter(name=name).delete()
