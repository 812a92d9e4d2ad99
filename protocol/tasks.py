"""Celery's edge of the kernel."""

from __future__ import annotations

from celery import shared_task

from protocol import sessions


@shared_task(name="protocol.expire_sessions")
def expire_sessions() -> None:
    """End the sessions that lost their process, forget those that ended long ago."""
    sessions.expire_sessions()
