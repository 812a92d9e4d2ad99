"""Celery's edge of the security app."""

from __future__ import annotations

from celery import shared_task

from security import services


@shared_task(name="security.purge_credentials")
def purge_credentials() -> None:
    """Forget tokens that ended long ago, and counters of wrong passwords that count nothing any more."""
    services.purge_tokens()
    services.purge_login_failures()
