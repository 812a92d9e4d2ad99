"""Accepting a run: everything that is decided before it is a row, the row, and handing it to the broker.

One transaction. What was accepted is in the database before anyone is told; the broker gets a hint on commit, and
where it cannot be reached the reconciler sends it later.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import rfc8785
from celery import current_app
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from kombu.exceptions import OperationalError as BrokerUnavailable
from msgspec import Struct

from protocol import outbox, ports, statements
from protocol.domain.messages import ErrorPayload, Priority, ResponsePayload
from protocol.errors import AccessDenied, DuplicateId, RateLimited
from protocol.failpoints import failpoint
from protocol.ports import Principal, Resource
from security.services import audit
from tools import selectors
from tools.domain.schemas import find_violations, get_violation_details
from tools.domain.states import ExecutionState
from tools.errors import InvalidInput, ToolQuarantined, ToolUnavailable
from tools.models import Execution, ExecutionWaiter, ToolVersion
from tools.selectors import Callee, Definition
from tools.services import answers, timeline

logger = logging.getLogger(__name__)

RUN_TASK = "tools.run_execution"


class ExecutionRequest(Struct, frozen=True, kw_only=True):
    """Who wants what run, and how they want to hear of it."""

    principal: Principal
    tool: str
    version: str | None
    input: Any
    """JSON as Python's builtins."""
    mode: Execution.Mode
    priority: Priority = Priority.NORMAL
    session_id: uuid.UUID | None = None
    message_id: str = ""
    idempotency_key: str | None = None
    retry_of: uuid.UUID | None = None
    """The run that this one repeats by an operator's wish."""
    deadline: datetime | None = None
    """When a waiting caller no longer does."""
    trace_id: str

    def __repr__(self) -> str:
        return f"ExecutionRequest(tool={self.tool!r}, version={self.version!r}, trace_id={self.trace_id!r})"


class Accepted(Struct, frozen=True, kw_only=True):
    """A run that this call brought about."""

    execution_id: uuid.UUID
    recorded: outbox.Appended | None
    """The answer of ``queue`` mode, as it lies in the session's outbox."""


class Joined(Struct, frozen=True, kw_only=True):
    """A run that an earlier call brought about (section 9): the same id, or the same key, and the same arguments."""

    execution_id: uuid.UUID
    answer: ResponsePayload | ErrorPayload | None
    """``None``: it is not over yet, and the caller waits for it too."""


def accept_execution(
    *, request: ExecutionRequest, announce: Callable[[dict[str, Any]], None] | None = None
) -> Accepted | Joined:
    """Record the run as queued and send it on its way; the same call again gives the run of the first.

    ``announce`` is called on commit, before any worker can know of the run, with the data of ``execution.updated``.

    Raises:
        ToolNotFound: there is no such tool or version, or the principal may not see it.
        AccessDenied: the principal may see it but not run it.
        SecurityLevelTooLow: the principal's connection has a lower level than is demanded.
        ToolUnavailable: it is disabled, or its code is not there.
        ToolQuarantined: its definition changed without a new version.
        InvalidInput: the input does not satisfy the version's schema; ``details.path``.
        DuplicateId: the message id or the key stands for another call.
        RateLimited: a limit on runs is reached.
    """
    callee = selectors.find_callee(principal=request.principal, name=request.tool, version=request.version)
    check_runnable(principal=request.principal, callee=callee)
    execution = make_execution(request=request, definition=callee.definition)
    limiter, tool = ports.get_limiter(), callee.definition.tool
    try:
        limiter.take_run(principal=request.principal, tool=tool)
    except RateLimited:
        # What was accepted before is answered again, whatever the limit.
        earlier = find_earlier(execution)
        if earlier is None:
            raise
        return join_execution(earlier=earlier, again=execution)
    try:
        return _record(execution=execution, version=callee.definition.version, request=request, announce=announce)
    except BaseException as error:
        limiter.give_back_run(principal=request.principal, tool=tool)
        # Asked afterwards, as it is rare; what the constraints said decides, not a look before.
        earlier = find_earlier(execution) if isinstance(error, IntegrityError) else None
        if earlier is None:
            raise
    return join_execution(earlier=earlier, again=execution)


def make_execution(*, request: ExecutionRequest, definition: Definition) -> Execution:
    """The row, not saved yet."""
    input_hash = check_input(definition=definition, value=request.input)
    return Execution(
        tool_id=definition.tool_id,
        version_id=definition.version_id,
        definition_hash=definition.definition_hash,
        mode=request.mode,
        priority=request.priority.value,
        input_json=msgspec.json.encode(request.input).decode(),
        input_hash=input_hash,
        requested_by_id=request.principal.id,
        session_id=request.session_id,
        message_id=request.message_id,
        idempotency_key=request.idempotency_key or "",
        arguments_hash=hash_arguments(request=request, input_hash=input_hash),
        retry_of_id=request.retry_of,
        trace_id=request.trace_id,
        timeout_seconds=get_timeout_seconds(definition),
        deadline=request.deadline if request.mode == Execution.Mode.WAIT else None,
        event_count=1,
    )


def _record(
    *, execution: Execution, version: str, request: ExecutionRequest, announce: Callable[[dict[str, Any]], None] | None
) -> Accepted:
    update = timeline.describe_update(execution_id=execution.id, state=ExecutionState.QUEUED, attempt=0, position=1)
    with transaction.atomic():
        statements.insert(execution)
        statements.insert(
            timeline.make_state_event(
                execution_id=execution.id, position=1, state=ExecutionState.QUEUED, attempt=0, at=execution.created_at
            )
        )
        audit.record_event(
            action=selectors.EXECUTE_TOOLS,
            principal=request.principal,
            resource=Resource(kind="tool", name=request.tool),
            outcome="accepted",
            trace_id=request.trace_id,
            data={
                "execution_id": str(execution.id),
                "version": version,
                "definition_hash": execution.definition_hash,
                "input_hash": execution.input_hash,
            },
        )
        recorded = record_acceptance(execution)
        failpoint("accept.before_commit")
        transaction.on_commit(partial(failpoint, "accept.after_commit"))
        if announce is not None:
            transaction.on_commit(partial(announce, update))
        transaction.on_commit(partial(send_execution, execution_id=execution.id, priority=request.priority))
    failpoint("accept.after_send")
    return Accepted(execution_id=execution.id, recorded=recorded)


def hash_arguments(*, request: ExecutionRequest, input_hash: str) -> str:
    """What makes a call the same call: tool, version as it was asked for, input, mode, and what it repeats."""
    parts = [request.tool, request.version or "", input_hash, request.mode.value]
    if request.retry_of is not None:
        parts.append(str(request.retry_of))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_earlier(execution: Execution) -> Execution | None:
    """The run that has this one's message id in its session, or its caller's key."""
    same_message = Q(session_id=execution.session_id, message_id=execution.message_id, session_id__isnull=False)
    same_key = Q(requested_by_id=execution.requested_by_id, idempotency_key=execution.idempotency_key)
    if not execution.idempotency_key:
        same_key = Q(pk=None)
    return Execution.objects.filter(same_message | same_key).order_by("created_at").first()


def join_execution(*, earlier: Execution, again: Execution) -> Joined:
    """Give the caller of ``again`` the answer of ``earlier``, now or once there is one.

    Raises:
        DuplicateId: the arguments are others.
    """
    if earlier.arguments_hash != again.arguments_hash or earlier.requested_by_id != again.requested_by_id:
        raise DuplicateId
    if again.mode == Execution.Mode.QUEUE:
        return Joined(execution_id=earlier.id, answer=answers.make_acceptance(execution=earlier, is_duplicate=True))
    is_same_message = (earlier.session_id, earlier.message_id) == (again.session_id, again.message_id)
    with transaction.atomic():
        # The row is locked by an update, so that it cannot end between the look and the waiter's insertion.
        is_running = Execution.objects.filter(id=earlier.id, finished_at=None).update(retry_of_id=F("retry_of_id"))
        if is_running and not is_same_message and again.session_id is not None:
            ExecutionWaiter.objects.get_or_create(
                session_id=again.session_id, message_id=again.message_id, defaults={"execution": earlier}
            )
    if is_running:
        return Joined(execution_id=earlier.id, answer=None)
    earlier.refresh_from_db()
    return Joined(execution_id=earlier.id, answer=answers.repeat_answer(execution=earlier))


def check_runnable(*, principal: Principal, callee: Callee) -> None:
    """Refuse what may not, or cannot, be run now. Raises as ``accept_execution`` does."""
    tool = callee.definition.tool
    ports.require_allowed(
        principal=principal,
        action=selectors.EXECUTE_TOOLS,
        resource=callee.resource,
        otherwise=AccessDenied(details={"action": selectors.EXECUTE_TOOLS, "tool": tool}),
    )
    details = {"tool": tool, "version": callee.definition.version}
    if callee.is_disabled:
        reason = f": {callee.disabled_reason}" if callee.disabled_reason else ""
        raise ToolUnavailable(f"The tool is disabled{reason}.", details=details)
    if callee.version_state == ToolVersion.State.QUARANTINED:
        raise ToolQuarantined(details=details)
    if callee.version_state != ToolVersion.State.AVAILABLE:
        raise ToolUnavailable("The tool's code is not on this server.", details=details)


def check_input(*, definition: Definition, value: Any) -> str:
    """Refuse an input that the version does not take; gives its hash.

    Raises:
        InvalidInput: ``details.path`` and all violations.
    """
    violations = find_violations(schema=definition.input_schema, instance=value)
    if violations:
        first = violations[0]
        raise InvalidInput(f"The input does not fit: {first.message}", details=get_violation_details(violations))
    try:
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(
            "The input is nested too deeply, or holds an integer beyond 2^53 (send it as a string), text that is not"
            " Unicode, or what JSON has no form for."
        ) from error


def get_timeout_seconds(definition: Definition) -> float:
    """How long one attempt may run, within the server's limit."""
    stated = definition.timeout_seconds or settings.MCP.default_tool_timeout_seconds
    return float(min(stated, settings.MCP.max_tool_timeout_seconds))


def record_acceptance(execution: Execution) -> outbox.Appended | None:
    """In ``queue`` mode the acceptance is the command's terminal answer: put it in the outbox."""
    if execution.mode != Execution.Mode.QUEUE or execution.session_id is None:
        return None
    return outbox.append(
        session_id=execution.session_id,
        correlation_id=execution.message_id,
        payload=answers.make_acceptance(execution=execution),
    )


def send_execution(*, execution_id: uuid.UUID, priority: Priority) -> bool:
    """Hand a queued run to the broker; ``False`` where it cannot be reached: the reconciler will, once it can.

    Every message has an id of its own that begins with the run's: a worker's parent tells by it which runs it has.
    """
    try:
        current_app.send_task(
            RUN_TASK,
            kwargs={"execution_id": str(execution_id)},
            queue=f"mcp.{priority.value}",
            task_id=make_task_id(execution_id),
            ignore_result=True,
            retry=False,
        )
    except (BrokerUnavailable, OSError) as error:
        logger.warning("Run %s waits: the broker cannot be reached (%s)", execution_id, type(error).__name__)
        return False
    return True


def make_task_id(execution_id: uuid.UUID) -> str:
    """A new message's id, as ``get_execution_id`` reads it."""
    return f"{execution_id}/{uuid.uuid4().hex[:12]}"


def get_execution_id(task_id: str) -> uuid.UUID | None:
    """The run that a message is about; ``None`` where it is about something else."""
    try:
        return uuid.UUID(task_id.partition("/")[0])
    except ValueError:
        return None
