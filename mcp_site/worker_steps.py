"""What a worker's parent process does besides running its pool: load the tools, hold the worker's lease.

The lease is renewed here, not by the children, which a tool may keep busy or stuck. The renewal runs in the parent's
event loop, the thread that also forks children, and closes its database connection each time: a child must never
inherit an open SQLite file.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from celery import bootsteps
from django.db import DatabaseError, connections

from tools import services

logger = logging.getLogger(__name__)


class ToolsStep(bootsteps.Step):
    """Loads all tools before the pool forks, so that its children share them."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        services.load_tools()


class LeaseStep(bootsteps.StartStopStep):
    """Takes the lease when the worker starts, renews it, ends it when the worker stops."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        """Take the lease and renew it on the worker's timer."""
        renew(parent.hostname)
        self._entry = parent.timer.call_repeatedly(services.RENEW_SECONDS, renew, (parent.hostname,))

    def stop(self, parent: Any) -> None:
        """End the lease."""
        if self._entry is not None:
            self._entry.cancel()
        _in_own_connection(services.end_lease, name=parent.hostname)

    def terminate(self, parent: Any) -> None:
        """As ``stop``."""
        self.stop(parent)


def renew(name: str) -> None:
    """Say that the worker lives."""
    _in_own_connection(services.renew_lease, name=name, host=socket.gethostname(), pid=os.getpid())


def _in_own_connection(function: Any, **arguments: Any) -> None:
    try:
        function(**arguments)
    except DatabaseError as error:
        logger.warning("The worker's lease cannot be written: %s", type(error).__name__)
    finally:
        connections.close_all()
