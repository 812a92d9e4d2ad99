"""The scheduler process: Celery beat over the schedule in the database, housekeeping on the spot, and the sealer."""

from __future__ import annotations

import logging
import select
import signal
import socket
from typing import Any

from celery.apps.beat import Beat
from celery.beat import Service
from celery.signals import beat_init

from mcp_site.celery import app
from mcp_site.serving.parts import PartOptions
from mcp_site.serving.sealer import Sealer

logger = logging.getLogger(__name__)


class StoppableService(Service):
    """beat's loop, which a signal ends between two rounds.

    beat's own handler saves the schedule wherever the signal finds it, in the middle of a transaction too, and then
    neither saves nor stops.
    """

    _is_stopping = False

    def start(self, embedded_process: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002  # beat's signature
        """Run rounds until a signal."""
        beat_init.send(sender=self)
        wakeup, sender = socket.socketpair()
        for end in (wakeup, sender):
            end.setblocking(False)  # noqa: FBT003  # takes no keyword
        signal.set_wakeup_fd(sender.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        logger.info("scheduling")
        try:
            while not self._is_stopping:
                pause = self.scheduler.tick()
                # A signal that came since the question above has left its byte: then this does not wait.
                select.select([wakeup], [], [], max(pause or 0.0, 0.0))
                if self.scheduler.should_sync():
                    self.scheduler._do_sync()  # type: ignore[attr-defined]  # noqa: SLF001  # untyped; as in the loop that this replaces
        finally:
            self.sync()

    def _request_stop(self, *_: object) -> None:
        self._is_stopping = True


class StoppableBeat(Beat):
    """beat with that loop."""

    Service = StoppableService

    def install_sync_handler(self, service: Any) -> None:
        """Nothing: the service has its own handlers."""


def run(_: PartOptions) -> int:
    """Send what is due, and seal the audit record, until a signal. The exit code."""
    sealer = Sealer()
    sealer.start()
    try:
        StoppableBeat(app=app, quiet=True, pidfile=None).run()
    finally:
        sealer.stop()
    return 0
