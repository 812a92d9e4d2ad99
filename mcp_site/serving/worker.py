"""The worker process: Celery's prefork pool over all queues."""

from __future__ import annotations

import logging
import os
import socket
import warnings

from celery.exceptions import SecurityWarning

from mcp_site.celery import QUEUES, app
from mcp_site.serving.parts import PartOptions

logger = logging.getLogger(__name__)


def run(options: PartOptions) -> int:
    """Run tasks until a signal. The exit code."""
    if os.geteuid() == 0:
        # In one line what Celery says in six.
        warnings.simplefilter("ignore", SecurityWarning)
        logger.warning("running as root: tools have all of its rights")
    worker = app.Worker(
        # Its lease's name: two workers of one machine must not share it.
        hostname=f"worker-{os.getpid()}@{socket.gethostname()}",
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
