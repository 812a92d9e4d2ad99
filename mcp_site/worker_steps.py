"""What a worker's parent process does besides running its pool: load the tools, hold the lease, supervise the runs.

All of it runs in the parent's event loop, the thread that also forks children, and closes its database connection each
time: a child must never inherit an open SQLite file. What is due is ``tools.services.supervision``'s to say; here it is
done to processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutdown, worker_shutting_down
from celery.worker import state
from django.conf import settings
from django.db import DatabaseError, connections

from tools import services
from tools.domain.supervision import Measure
from tools.services.interruption import CANCEL_SIGNAL
from tools.services.processes import adopt_orphans, kill_tree, list_children

logger = logging.getLogger(__name__)


SUPERVISE_SECONDS = 0.5
SUPERSEDED_SECONDS = 2.0
"""How long a child may go on with a run that is no longer its own: it may just be handing in its result."""
STOP_SECONDS = 2.0
"""Of the time to stop, what is kept for handing back what did not end."""


class ToolsStep(bootsteps.Step):
    """Loads all tools before the pool forks, so that its children share them."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        services.load_tools()


class SupervisionStep(bootsteps.StartStopStep):
    """Takes the lease when the worker starts, and looks after its runs as long as it lives."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._worker = parent
        self._name: str = parent.hostname
        self._renewed_at = 0.0
        self._seen_messages = -1
        self._superseded_since: dict[uuid.UUID, float] = {}

    def start(self, parent: Any) -> None:
        """Take the lease; from now on renew it and look after the runs on the worker's timer."""
        adopt_orphans()
        self._take_lease()
        worker_shutting_down.connect(begin_drain, weak=False)
        worker_shutdown.connect(hand_back, weak=False)
        parent.timer.call_repeatedly(get_renewal_seconds(), self._renew)
        parent.timer.call_repeatedly(SUPERVISE_SECONDS, self._supervise)

    def _take_lease(self) -> None:
        with _storage("take the lease"):
            services.take_lease(name=self._name, host=socket.gethostname(), pid=os.getpid())
            self._renewed_at = time.monotonic()

    def _renew(self) -> None:
        is_lost = time.monotonic() - self._renewed_at > services.get_lease_seconds()
        with _storage("renew the lease"):
            is_lost = not services.renew_lease(name=self._name)
            self._renewed_at = time.monotonic()
        if is_lost:
            # Others may have taken our runs for lost: what still runs of them must not go on.
            logger.error("the lease was lost; the runs of this worker are ended")
            for pid in self._get_children():
                kill_tree(pid=pid)
            self._take_lease()

    def _supervise(self) -> None:
        self._end_orphans()
        held = get_held_runs()
        messages = state.all_total_count[0]
        if not held and messages == self._seen_messages:
            return
        # One look more after the last run: only then is it known that a child lost it.
        self._seen_messages = messages if not held else -1
        with _storage("look after the runs"):
            measures = services.choose_measures(worker=self._name)
            for execution_id, measure in measures.items():
                self._take_measure(held.get(execution_id), measure)
            if not measures.keys() <= held.keys():
                services.recover_unheld_executions(worker=self._name, held=held.keys())
            self._end_superseded({run: pid for run, pid in held.items() if pid and run not in measures})

    def _take_measure(self, pid: int | None, measure: Measure) -> None:
        if pid is None or measure is Measure.LEAVE:
            return
        if measure is Measure.INTERRUPT:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, CANCEL_SIGNAL)
        else:
            kill_tree(pid=pid)

    def _end_superseded(self, superseded: dict[uuid.UUID, int]) -> None:
        now = time.monotonic()
        self._superseded_since = {run: self._superseded_since.get(run, now) for run in superseded}
        for run, since in self._superseded_since.items():
            if now - since > SUPERSEDED_SECONDS:
                logger.warning("run %s ended elsewhere; the process that goes on with it is killed", run)
                kill_tree(pid=superseded[run])

    def _end_orphans(self) -> None:
        own = set(self._get_children())
        for pid in list_children(os.getpid()):
            if pid not in own:
                kill_tree(pid=pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _get_children(self) -> list[int]:
        pool = getattr(self._worker.pool, "_pool", None)
        return [] if pool is None else [process.pid for process in pool._pool if process.pid]  # noqa: SLF001  # billiard has no other way


def get_renewal_seconds() -> float:
    """How often the lease is renewed: a renewal or two may fail without losing it."""
    return services.get_lease_seconds() / services.RENEWALS_PER_LEASE


def get_held_runs() -> dict[uuid.UUID, int | None]:
    """The runs whose messages this worker has, with the process of each that has begun."""
    held: dict[uuid.UUID, int | None] = {}
    for task_id, request in list(state.requests.items()):
        execution_id = services.get_execution_id(task_id)
        if execution_id is not None:
            held[execution_id] = request.worker_pid or held.get(execution_id)
    return held


def begin_drain(sender: str, **_: Any) -> None:
    """The worker was asked to stop: keep its lease meanwhile, and end what does not end within the grace time.

    In a thread, as the pool blocks the parent's event loop until its children have ended. It forks no more by then.
    """
    threading.Thread(target=_drain, kwargs={"worker": sender}, name="drain", daemon=True).start()


def hand_back(sender: Any, **_: Any) -> None:
    """The worker's children are gone: recover what they did not end, and say that the worker stops."""
    with _storage("hand back the runs"):
        services.recover_unheld_executions(worker=sender.hostname, held=())
        services.end_lease(name=sender.hostname)


def _drain(*, worker: str) -> None:
    ends_at = time.monotonic() + max(0.0, settings.MCP.drain_seconds - STOP_SECONDS)
    while (remaining := ends_at - time.monotonic()) > 0:
        with _storage("renew the lease"):
            services.renew_lease(name=worker)
        time.sleep(min(get_renewal_seconds(), remaining))
    for pid in {pid for pid in get_held_runs().values() if pid}:
        logger.warning("process %d does not end in time; its run is handed back", pid)
        kill_tree(pid=pid)


@contextlib.contextmanager
def _storage(what: str) -> Iterator[None]:
    """A body that uses the database: without it it is passed over, and afterwards no connection is open."""
    try:
        yield
    except DatabaseError as error:
        logger.warning("could not %s: %s", what, type(error).__name__)
    finally:
        connections.close_all()
