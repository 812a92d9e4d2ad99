"""What a running tool reports: sent to its caller at once, written to its timeline in few transactions, bounded."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import msgspec
from django.db import transaction
from django.utils import timezone

from protocol import statements, wakeups
from tools.authoring import Progress
from tools.domain.states import ExecutionState
from tools.models import Execution, ExecutionEvent
from tools.services import timeline
from tools.services.interruption import held_back

MAX_EVENTS_PER_RUN = 1_000
"""Progress kept in a run's timeline; later reports are still sent, and the last one always stands in the row."""
WRITE_INTERVAL_SECONDS = 1.0
MAX_UNWRITTEN = 200
MAX_SENT_PER_SECOND = 50


class ProgressRecorder:
    """One attempt's progress. Used by the worker's main thread only."""

    def __init__(self, *, execution: Execution, channel: str, first_position: int) -> None:
        self.next_position = first_position
        """The position that the next event of the run's timeline gets."""
        self._execution = execution
        self._channel = channel
        self._pending: list[ExecutionEvent] = []
        self._kept = 0
        # So that the first report is written at once: a tool may say one thing and then work for long.
        self._last_write = -math.inf
        self._second = 0
        self._sent_this_second = 0

    def report(self, progress: Progress) -> None:
        """Take one report of the tool's."""
        # An interruption within would leave unknown what was written and sent.
        with held_back():
            self._take(progress)

    def _take(self, progress: Progress) -> None:
        data = {
            key: value
            for key, value in (
                ("fraction", progress.fraction),
                ("message", progress.message),
                ("output_chunk", progress.output_chunk),
            )
            if value is not None
        }
        # Counted also where it is not kept: positions ascend, and who asks for what came after one misses nothing.
        position = self.next_position
        self.next_position += 1
        if self._kept < MAX_EVENTS_PER_RUN:
            self._kept += 1
            self._pending.append(
                ExecutionEvent(
                    execution_id=self._execution.id,
                    position=position,
                    kind=ExecutionEvent.Kind.PROGRESS,
                    data_json=msgspec.json.encode(data).decode(),
                    at=timezone.now(),
                )
            )
        if progress.fraction is not None:
            self._execution.progress_fraction = progress.fraction
        if progress.message is not None:
            self._execution.progress_message = progress.message
        self._send(data, position)
        if len(self._pending) >= MAX_UNWRITTEN or time.monotonic() - self._last_write >= WRITE_INTERVAL_SECONDS:
            self._write()

    def take_pending(self) -> list[ExecutionEvent]:
        """What is not written yet; it is the caller's from now on, to be written with the outcome."""
        pending, self._pending = self._pending, []
        return pending

    def _send(self, data: Mapping[str, object], position: int) -> None:
        session_id = self._execution.session_id
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._sent_this_second = second, 0
        self._sent_this_second += 1
        if session_id is None or self._sent_this_second > MAX_SENT_PER_SECOND:
            return
        event = wakeups.RiddenEvent(
            event=timeline.PROGRESS_EVENT,
            data={"execution_id": str(self._execution.id), **data, "position": position},
            correlation_id=timeline.get_correlation_id(self._execution),
            feature=timeline.PROGRESS_FEATURE,
        )
        wakeups.publish(channel=self._channel, wakeup=wakeups.Wakeup(session_id=session_id, events=(event,)))

    def _write(self) -> None:
        execution = self._execution
        with transaction.atomic():
            is_ours = Execution.objects.filter(
                id=execution.id,
                state=ExecutionState.RUNNING.value,
                attempt=execution.attempt,
                worker=execution.worker,
            ).update(
                progress_fraction=execution.progress_fraction,
                progress_message=execution.progress_message,
                event_count=self.next_position - 1,
            )
            if is_ours and self._pending:
                statements.insert(*self._pending)
        self._pending = []
        self._last_write = time.monotonic()
