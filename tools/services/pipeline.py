"""A run's way through a worker: claim, allocate, run, check, record, clean up. Each step is a function below.

The row decides: every change of it names the state, attempt and worker that it comes from, so that of a finish, a
cancellation and a reaper exactly one wins. No transaction is open while the tool runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, transaction
from django.utils import timezone
from msgspec import Struct

from protocol import outbox, sessions, statements
from protocol.domain.messages import ErrorPayload, ResponsePayload
from protocol.errors import MCPError, PortUnavailable
from protocol.failpoints import failpoint
from security import services as security
from security.services import audit
from tools import selectors
from tools.adapters import Invocation, get_adapter
from tools.authoring import ToolContext
from tools.domain.schemas import find_violations, get_violation_details
from tools.domain.states import ExecutionState
from tools.domain.supervision import get_end
from tools.errors import ExecutionCancelled, ExecutionFailed, ExecutionTimeout, InvalidOutput
from tools.models import Execution, ExecutionEvent, ExecutionWaiter
from tools.services import answers, timeline
from tools.services.interruption import CancelRequested, TimeLimitReached, interruptible
from tools.services.processes import kill_descendants, list_children
from tools.services.progress import ProgressRecorder
from tools.services.scratch import make_scratch

logger = logging.getLogger(__name__)

PORT_GRACE = timedelta(minutes=1)
"""How much longer than its run a port is leased; it ends with the run, and this only where nobody ends that."""


class Claim(Struct, frozen=True, kw_only=True):
    """A run that this worker, and no other, may run now."""

    execution: Execution
    definition: selectors.Definition
    channel: str
    """Where the asking session's owner listens; empty where nobody does."""
    started_at: datetime
    ends_at: datetime


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    state: ExecutionState
    output_json: str | None = None
    error: MCPError | None = None
    is_retryable: bool = False


class Allocation(Struct, frozen=True, kw_only=True):
    """What a run is given for itself."""

    scratch: Path
    port: int | None = None
    refusal: PortUnavailable | None = None
    """Why it cannot begin."""


def run_execution(*, execution_id: uuid.UUID, worker: str) -> None:
    """Run one accepted execution to its end. Called again for the same row, it does nothing."""
    claim = claim_execution(execution_id=execution_id, worker=worker)
    if claim is None:
        logger.info("Run %s is not to be claimed: it was claimed or ended before", execution_id)
        return
    recorder = ProgressRecorder(
        execution=claim.execution, channel=claim.channel, first_position=claim.execution.event_count + 1
    )
    with allocate(claim) as allocation:
        outcome = run_tool(claim=claim, allocation=allocation, recorder=recorder)
    failpoint("run.after_tool")
    record_outcome(claim=claim, outcome=outcome, recorder=recorder)


def claim_execution(*, execution_id: uuid.UUID, worker: str) -> Claim | None:
    """Take a queued run for this worker; ``None`` where it is no longer queued."""
    now = timezone.now()
    with transaction.atomic():
        row = statements.update_returning(
            Execution,
            where={"id": execution_id, "state": ExecutionState.QUEUED.value},
            values={
                "state": ExecutionState.RUNNING.value,
                "attempt": statements.Plus(1),
                "event_count": statements.Plus(1),
                "worker": worker,
                "started_at": now,
            },
            names=statements.get_names(Execution),
        )
        if row is None:
            return None
        execution = Execution.from_db(DEFAULT_DB_ALIAS, statements.get_names(Execution), row)
        position = execution.event_count
        statements.insert(
            timeline.make_state_event(
                execution_id=execution.id,
                position=position,
                state=ExecutionState.RUNNING,
                attempt=execution.attempt,
                at=now,
            )
        )
        channel = sessions.get_channel(session_id=execution.session_id)
        if execution.session_id is not None:
            outbox.wake(
                session_id=execution.session_id,
                channel=channel,
                events=[timeline.ride_update(execution=execution, state=ExecutionState.RUNNING, position=position)],
                has_outbox=False,
            )
        failpoint("claim.before_commit")
    failpoint("claim.after_commit")
    ends_at = get_end(started_at=now, timeout_seconds=execution.timeout_seconds, deadline=execution.deadline)
    return Claim(
        execution=execution,
        definition=selectors.get_definition(execution.version_id),
        channel=channel,
        started_at=now,
        ends_at=ends_at,
    )


@contextlib.contextmanager
def allocate(claim: Claim) -> Iterator[Allocation]:
    """A private scratch folder for the run, and a port if its tool needs one.

    After it the folder is removed, and whatever processes the tool left. The port is given back with the run's end
    (``finish_execution``), and found free then, as nothing of the run is left.
    """
    scratch = make_scratch(execution=claim.execution)
    there_before = frozenset(list_children(os.getpid()))
    try:
        yield lease_port(claim=claim, scratch=scratch)
    finally:
        kill_descendants(spare=there_before)
        shutil.rmtree(scratch, ignore_errors=True)


def lease_port(*, claim: Claim, scratch: Path) -> Allocation:
    """What the run gets: the folder, and a port where its tool needs one, leased for as long as the run may take."""
    if not claim.definition.needs_port:
        return Allocation(scratch=scratch)
    remaining = claim.ends_at - timezone.now()
    try:
        leased = security.lease_port_for_execution(
            account_id=claim.execution.requested_by_id,
            execution_id=claim.execution.id,
            purpose=f"{claim.definition.tool}@{claim.definition.version}",
            ttl=max(remaining, timedelta(0)) + PORT_GRACE,
            trace_id=claim.execution.trace_id,
        )
    except PortUnavailable as error:
        return Allocation(scratch=scratch, refusal=error)
    failpoint("run.after_lease")
    return Allocation(scratch=scratch, port=leased.port)


def run_tool(*, claim: Claim, allocation: Allocation, recorder: ProgressRecorder) -> Outcome:
    """Call the adapter under the time limit and check what comes out. Whatever the tool does, there is an outcome."""
    execution, definition = claim.execution, claim.definition
    if allocation.refusal is not None:
        # Nothing was started.
        return Outcome(state=ExecutionState.FAILED, error=allocation.refusal, is_retryable=True)
    context = ToolContext(
        execution_id=execution.id,
        attempt=execution.attempt,
        deadline=claim.ends_at,
        scratch=allocation.scratch,
        port=allocation.port,
        workspace=settings.MCP.workspace,
        report=recorder.report,
        allowed_networks=settings.MCP.http_networks,
        max_output_size_bytes=settings.MCP.max_output_size_bytes,
    )
    invocation = Invocation(
        entry_point=definition.entry_point,
        tool=definition.tool,
        version=definition.version,
        definition_hash=execution.definition_hash,
        input=msgspec.json.decode(execution.input_json),
    )
    remaining = (claim.ends_at - timezone.now()).total_seconds()
    if remaining <= 0:
        return Outcome(
            state=ExecutionState.TIMED_OUT,
            error=ExecutionTimeout("No worker took the run before its deadline."),
            is_retryable=True,
        )
    try:
        with interruptible(seconds=remaining):
            output = get_adapter(definition.adapter).run(invocation=invocation, context=context)
        return Outcome(state=ExecutionState.SUCCEEDED, output_json=check_output(definition=definition, output=output))
    except TimeLimitReached:
        allowed_ms = int((claim.ends_at - claim.started_at).total_seconds() * 1000)
        return Outcome(
            state=ExecutionState.TIMED_OUT,
            error=ExecutionTimeout(f"The tool did not finish within {allowed_ms} ms."),
            is_retryable=definition.is_idempotent,
        )
    except CancelRequested:
        return Outcome(state=ExecutionState.CANCELLED, error=ExecutionCancelled())
    except MCPError as error:
        return Outcome(state=ExecutionState.FAILED, error=error, is_retryable=error.retryable)
    except BaseException as error:
        # SystemExit, KeyboardInterrupt and a coroutine's CancelledError too: the tool's, and not this process's.
        logger.exception(
            "Run %s of %s@%s failed, trace %s", execution.id, definition.tool, definition.version, execution.trace_id
        )
        return Outcome(
            state=ExecutionState.FAILED,
            error=ExecutionFailed(f"The tool failed with {type(error).__name__}; quote the trace id to the operator."),
        )


def check_output(*, definition: selectors.Definition, output: object) -> str:
    """The output as JSON text.

    Raises:
        InvalidOutput: it does not satisfy the version's schema, or is too large.
    """
    violations = find_violations(schema=definition.output_schema, instance=output)
    if violations:
        raise InvalidOutput(
            f"The tool's output does not fit its schema: {violations[0].message}",
            details=get_violation_details(violations),
        )
    encoded = msgspec.json.encode(output)
    try:
        msgspec.msgpack.encode(output)
    except OverflowError as error:
        raise InvalidOutput("The tool's output holds an integer beyond 64 bits; give it as a string.") from error
    limit = settings.MCP.max_output_size_bytes
    if len(encoded) > limit:
        raise InvalidOutput(
            f"The tool's output has {len(encoded)} bytes; {limit} are allowed.",
            details={"size_bytes": len(encoded), "limit_bytes": limit},
        )
    return encoded.decode()


def record_outcome(*, claim: Claim, outcome: Outcome, recorder: ProgressRecorder) -> bool:
    """Bring the run to its terminal state, with its timeline and its caller's answer, in one transaction.

    ``False`` where somebody else ended it before: then nothing of it is changed, and the audit record has that the
    attempt came late.
    """
    execution = claim.execution
    with transaction.atomic():
        progress = recorder.take_pending()
        is_recorded = finish_execution(
            execution=execution,
            from_state=ExecutionState.RUNNING,
            outcome=outcome,
            position=recorder.next_position,
            progress=progress,
            channel=claim.channel,
        )
        if not is_recorded:
            record_event(claim.execution, action="execution.came_late", outcome=outcome.state, error=outcome.error)
        failpoint("finish.before_commit")
    failpoint("finish.after_commit")
    if not is_recorded:
        logger.warning(
            "Run %s: attempt %d came late with %s; it had ended before",
            execution.id,
            execution.attempt,
            outcome.state.value,
        )
    return is_recorded


def finish_execution(
    *,
    execution: Execution,
    from_state: ExecutionState,
    outcome: Outcome,
    position: int,
    channel: str,
    progress: list[ExecutionEvent] | None = None,
) -> bool:
    """The one update that ends a run, inside the caller's transaction; ``False`` where the row had moved on."""
    now = timezone.now()
    error = None
    if outcome.error is not None:
        error = answers.make_failure(execution=execution, error=outcome.error, is_retryable=outcome.is_retryable)
    is_recorded = statements.update(
        Execution,
        where={
            "id": execution.id,
            "state": from_state.value,
            "attempt": execution.attempt,
            "worker": execution.worker,
        },
        values={
            "state": outcome.state.value,
            "output_json": outcome.output_json,
            "error_json": "" if error is None else msgspec.json.encode(error).decode(),
            "event_count": position,
            "progress_fraction": execution.progress_fraction,
            "progress_message": execution.progress_message,
            "finished_at": now,
        },
    )
    if not is_recorded:
        return False
    free_ports(execution)
    event = timeline.make_state_event(
        execution_id=execution.id, position=position, state=outcome.state, attempt=execution.attempt, at=now
    )
    statements.insert(*(progress or []), event)
    answer_callers(execution=execution, outcome=outcome, error=error, position=position, channel=channel)
    record_event(execution, action="execution.ended", outcome=outcome.state, error=outcome.error)
    return True


def free_ports(execution: Execution) -> None:
    """Give back what the run, or an attempt of it, holds, in the transaction that ends it."""
    if selectors.get_definition(execution.version_id).needs_port:
        security.end_execution_leases(execution_id=execution.id, trace_id=execution.trace_id)


def record_event(execution: Execution, *, action: str, outcome: ExecutionState, error: MCPError | None) -> None:
    """Put what became of an attempt into the audit record, inside the caller's transaction."""
    audit.record_event(
        action=action,
        resource=selectors.get_resource(execution),
        outcome=outcome.value,
        trace_id=execution.trace_id,
        data={"attempt": execution.attempt, "worker": execution.worker, "code": None if error is None else error.code},
    )


def answer_callers(
    *, execution: Execution, outcome: Outcome, error: ErrorPayload | None, position: int, channel: str
) -> None:
    """Put the terminal answer in the outboxes of all who wait for the run, and wake their sessions on commit."""
    update = timeline.ride_update(execution=execution, state=outcome.state, position=position)
    waiting = statements.select(
        ExecutionWaiter, where={"execution_id": execution.id}, names=("session_id", "message_id")
    )
    if execution.session_id is not None and execution.mode == Execution.Mode.WAIT:
        waiting.append((execution.session_id, execution.message_id))
    elif execution.session_id is not None:
        outbox.wake(session_id=execution.session_id, channel=channel, events=[update], has_outbox=False)
    # Sessions' rows are locked last, and in ascending order.
    for session_id, message_id in sorted(waiting):
        is_first = (session_id, message_id) == (execution.session_id, execution.message_id)
        payload: ResponsePayload | ErrorPayload = error or answers.make_success(
            execution_id=execution.id, output_json=outcome.output_json or "null", is_duplicate=not is_first
        )
        appended = outbox.append(session_id=session_id, correlation_id=message_id, payload=payload)
        if appended is not None:
            outbox.wake(session_id=session_id, channel=appended.channel, events=[update] if is_first else [])
