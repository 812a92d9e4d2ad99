"""The sealer: a thread of the scheduler's process that seals audit events and signs how far the chain has come.

A thread, so that no round of the schedule, however long, holds up sealing. It may run in any number of processes.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from django.db import connections

from protocol.database_threads import run_with_connections
from protocol.errors import MCPError
from security.services import BATCH, seal_events, sign_chain

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.5
"""Between two looks for events that have no seal; half of the second within which they get one."""


class Sealer:
    """See the module."""

    def __init__(self) -> None:
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)
        self._is_failing = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Seal what is there, then end."""
        self._is_stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_stopping.wait(PAUSE_SECONDS):
                self._pass()
            self._pass()
        finally:
            connections.close_all()

    def _pass(self) -> None:
        try:
            while run_with_connections(seal_events) == BATCH:
                pass
            run_with_connections(sign_chain)
        except MCPError as error:
            if not self._is_failing:
                logger.warning("Audit events cannot be sealed (%s); trying again.", error.code)
            self._is_failing = True
        except Exception:
            # The thread's edge: it must not end, as nothing would be sealed any more.
            if not self._is_failing:
                logger.exception("Audit events cannot be sealed; trying again.")
            self._is_failing = True
        else:
            self._is_failing = False
