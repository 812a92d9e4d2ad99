"""The Celery app. Its settings are Django's ``CELERY_*``; tasks lie in each app's ``tasks.py``."""

from __future__ import annotations

import gc
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, task_prerun, worker_before_create_process, worker_init, worker_process_init
from django.db import close_old_connections, connections
from kombu import Queue

from mcp_site import broker
from mcp_site.serving.parent import end_with_parent

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mcp_site.settings")

QUEUES = ("mcp.urgent", "mcp.high", "mcp.normal", "mcp.low")

broker.install()
app = Celery("mcp", set_as_current=True)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue(name) for name in QUEUES]
app.autodiscover_tasks()
# By name, as they need the apps loaded.
app.steps["worker"].update({"mcp_site.worker_steps:ToolsStep", "mcp_site.worker_steps:SupervisionStep"})


@setup_logging.connect(weak=False)
def keep_logging(**_: Any) -> None:
    """Logging is as the settings have it: a receiver of this signal keeps Celery from changing it."""


@worker_init.connect(weak=False)
def keep_connections(**_: Any) -> None:
    """A worker's process runs one task at a time: it keeps one connection, as Celery would close a pool after each."""
    for alias in connections:
        database = connections.settings[alias]
        database["CONN_MAX_AGE"] = None
        database["OPTIONS"].pop("pool", None)


@task_prerun.connect(weak=False)
def drop_broken_connections(**_: Any) -> None:
    """What a kept connection needs, as Celery looks at none: one that the database closed is not used again."""
    close_old_connections()


_worker_pid: int | None = None
"""Of the process that forks the pool's children; they inherit the value."""


@worker_before_create_process.connect(weak=False)
def prepare_fork(**_: Any) -> None:
    """What is there before the fork stays out of garbage collection, which would copy its pages into each child."""
    global _worker_pid
    _worker_pid = os.getpid()
    gc.collect()
    gc.freeze()


@worker_process_init.connect(weak=False)
def prepare_child(**_: Any) -> None:
    """A worker that is killed leaves no child, also where it was killed before the child came to this line.

    And a child's run leaves no process of its own.
    """
    if _worker_pid is not None:
        end_with_parent(parent_pid=_worker_pid)
    # Not at the top: they need the apps loaded, and the app is imported before.
    from tools.services import interruption, processes  # noqa: PLC0415  # as above

    processes.adopt_orphans()
    interruption.ignore_cancellations()
