"""Celery's edge of the security app."""

from __future__ import annotations

from celery import shared_task

from security import services


@shared_task(name="security.purge_credentials")
def purge_credentials() -> None:
    """Forget tokens that ended long ago, counters of wrong passwords that count nothing, and old quotas' windows."""
    services.purge_tokens()
    services.purge_login_failures()
    services.purge_limit_usage()
