"""Recording denials: one thread of the process writes what the ledger says is due, and then lets the answers go.

A thread, as denials come from event loops and from request threads alike, and as what is due together is one
transaction. The rules of what is counted together are ``domain.denials``'.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Final

from django.db import connection, transaction

from protocol.database_threads import run_with_connections
from protocol.domain.redaction import redact
from protocol.errors import MCPError, Overloaded, StorageUnavailable
from protocol.ports import Denial, Resource
from security.domain.denials import DenialLedger, Group, LedgerFull
from security.services import audit

logger = logging.getLogger(__name__)

DENY_ACCESS: Final = "access.deny"
MAX_NAME: Final = 200
IDLE_SECONDS: Final = 60.0
"""How long the thread waits for the next denial before it ends, and its database connection with it."""


class DenialRecorder:
    """See the module. For all threads."""

    def __init__(self) -> None:
        self._ledger = DenialLedger()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_writing = self._is_ending = False

    def settle(self, *, timeout_seconds: float) -> bool:
        """Wait until everything that was counted is on record, and have the thread end; ``False``: it took longer."""
        with self._condition:
            is_written = self._condition.wait_for(
                lambda: self._ledger.get_next_due() is None and not self._is_writing, timeout_seconds
            )
            thread = self._thread
            self._is_ending = thread is not None
            self._condition.notify_all()
        if is_written and thread is not None:
            thread.join(timeout_seconds)
        return is_written

    def submit(self, denial: Denial) -> Future[None]:
        """Have it recorded; done once its event is durable, or at once where nobody awaits that.

        The future fails with ``StorageUnavailable`` where the database does not take it, and with ``Overloaded`` where
        too many wait: then the denial is not to be told.
        """
        waiter: Future[None] = Future()
        if not denial.is_awaited:
            waiter.set_result(None)
        with self._condition:
            try:
                self._ledger.add(denial, waiter if denial.is_awaited else None, now=time.monotonic())
            except LedgerFull:
                if not denial.is_awaited:
                    logger.warning("A refusal (%s) is not counted: too many wait to be recorded.", denial.code)
                    return waiter
                waiter.set_exception(Overloaded("Too many refusals wait to be recorded.", retry_after_ms=1000))
                return waiter
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True, name="denials")
                self._thread.start()
            self._condition.notify_all()
        return waiter

    def _run(self) -> None:
        while True:
            with self._condition:
                groups = self._wait()
                if groups is None:
                    self._thread = None
                    return
                self._is_writing = True
            failure: MCPError | None = None
            try:
                run_with_connections(record_groups, groups)
            except MCPError as error:
                failure = error
            except Exception:  # the thread's edge: who waits must hear of it
                logger.exception("Denials cannot be recorded")
                failure = StorageUnavailable(retry_after_ms=1000)
            release(groups, failure)
            with self._condition:
                self._is_writing = False
                self._condition.notify_all()

    def _wait(self) -> list[Group] | None:
        """What is due, waited for; ``None`` after a while without anything."""
        while True:
            now = time.monotonic()
            due_at = self._ledger.get_next_due()
            if due_at is not None and due_at <= now:
                groups = self._ledger.take(now=now)
                if groups:
                    return groups
                continue
            if due_at is None and self._is_ending:
                self._is_ending = False
                connection.close()
                return None
            if self._condition.wait(IDLE_SECONDS if due_at is None else due_at - now) or due_at is not None:
                continue
            # Somebody may have come between the end of the wait and the lock: then nobody else would write it.
            if self._ledger.get_next_due() is None:
                connection.close()
                return None


def release(groups: list[Group], failure: MCPError | None) -> None:
    """Tell all who wait; some may wait no longer."""
    if failure is not None:
        # Those for which nobody waited were told: of them this line is the record.
        told = sum(group.count - len(group.waiting) for group in groups)
        if told:
            logger.error("%d refusals that were told could not be recorded (%s)", told, failure.code)
    for group in groups:
        for waiter in group.waiting:
            if not waiter.set_running_or_notify_cancel():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)


def record_groups(groups: list[Group]) -> None:
    """One event for each, all in one transaction."""
    with transaction.atomic():
        for group in groups:
            record_group(group)


def record_group(group: Group) -> None:
    """One event for however many denials, inside the caller's transaction."""
    first = group.first
    data: dict[str, object] = {"door": first.door.value, "address": first.remote_address, "count": group.count}
    if len(group.codes) > 1:
        data["codes"] = dict(group.codes)
    if len(group.subjects) > 1:
        data["subjects"] = [clean(name) for name in group.subjects]
    if len(group.addresses) > 1:
        data["addresses"] = list(group.addresses)
    if group.source_count > 1:
        data["sources"] = group.source_count
    if first.action:
        data["action"] = first.action
    audit.record_event(
        action=DENY_ACCESS,
        principal=group.principal,
        resource=Resource(kind=first.kind, name=clean(first.subject)),
        outcome=group.codes.most_common(1)[0][0],
        trace_id=first.trace_id,
        data=data,
    )


def clean(name: str) -> str:
    """What a stranger sent, as a name that every database takes, and that is no key in the wrong place."""
    return (
        "".join(character if character.isprintable() else "?" for character in redact(name)[:MAX_NAME])
        .encode("utf-8", errors="replace")
        .decode()
    )


_recorder = DenialRecorder()


def submit_denial(denial: Denial) -> Future[None]:
    """As ``DenialRecorder.submit``, by the process's own.

    Inside a transaction the event is written in it: who holds the database must not wait for another to write.
    """
    if connection.in_atomic_block:
        waiter: Future[None] = Future()
        ledger = DenialLedger()
        ledger.add(denial, waiter, now=0.0)
        groups = ledger.take(now=0.0)
        record_groups(groups)
        release(groups, None)
        return waiter
    return _recorder.submit(denial)


def settle_denials(*, timeout_seconds: float) -> bool:
    """As ``DenialRecorder.settle``, by the process's own."""
    return _recorder.settle(timeout_seconds=timeout_seconds)
