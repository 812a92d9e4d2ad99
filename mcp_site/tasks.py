"""Celery's edge of the console."""

from __future__ import annotations

from celery import shared_task

from mcp_site.console.sessions import purge_sessions


@shared_task(name="mcp_site.purge_console_sessions")
def purge_console_sessions() -> None:
    """Forget sessions of the console that ended by their age."""
    purge_sessions()
