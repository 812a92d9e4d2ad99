"""The scheduler process: Celery beat over the schedule in the database, housekeeping done on the spot."""

from __future__ import annotations

from mcp_site.celery import app
from mcp_site.serving.parts import PartOptions


def run(_: PartOptions) -> int:
    """Send what is due until a signal. The exit code."""
    app.Beat(quiet=True, pidfile=None).run()
    return 0
