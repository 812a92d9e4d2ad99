"""The worker process: Celery's prefork pool over all queues."""

from __future__ import annotations

import socket

from mcp_site.celery import QUEUES, app
from mcp_site.serving.parts import PartOptions


def run(options: PartOptions) -> int:
    """Run tasks until a signal. The exit code."""
    worker = app.Worker(
        hostname=f"worker@{socket.gethostname()}",
        pool="prefork",
        concurrency=options.task_workers,
        queues=list(QUEUES),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=None,
    )
    worker.start()
    return int(worker.exitcode or 0)
