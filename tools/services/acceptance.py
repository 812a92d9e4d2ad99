"""Accepting a run: everything that is decided before it is a row, the row, and handing it to the broker.

One transaction. What was accepted is in the database before anyone is told; the broker gets a hint on commit, and
where it cannot be reached the reconciler sends it later.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import rfc8785
from celery import current_app
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerUnavailable
from msgspec import Struct

from protocol import outbox, ports
from protocol.domain.messages import Priority, ResponsePayload
from protocol.errors import AccessDenied, DuplicateId
from protocol.failpoints import failpoint
from protocol.ports import Principal, Resource
from tools import selectors
from tools.domain.schemas import find_violations, get_violation_details
from tools.domain.states import ExecutionState
from tools.errors import InvalidInput, ToolQuarantined, ToolUnavailable
from tools.models import Execution, Tool, ToolVersion
from tools.services import timeline

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
    deadline: datetime | None = None
    """When a waiting caller no longer does."""
    trace_id: str


class Accepted(Struct, frozen=True, kw_only=True):
    execution_id: uuid.UUID
    update: dict[str, Any]
    """The data of the first ``execution.updated``."""
    recorded: outbox.Appended | None
    """The answer of ``queue`` mode, as it lies in the session's outbox."""


def accept_execution(
    *, request: ExecutionRequest, announce: Callable[[dict[str, Any]], None] | None = None
) -> Accepted:
    """Record the run as queued and send it on its way.

    ``announce`` is called on commit, before any worker can know of the run, with the data of ``execution.updated``.

    Raises:
        ToolNotFound: there is no such tool or version, or the principal may not see it.
        AccessDenied: the principal may see it but not run it.
        ToolUnavailable: it is disabled, or its code is not there.
        ToolQuarantined: its definition changed without a new version.
        InvalidInput: the input does not satisfy the version's schema; ``details.path``.
        DuplicateId: the session has used the message id for another run.
    """
    version = selectors.get_tool_version(principal=request.principal, name=request.tool, version=request.version)
    check_runnable(principal=request.principal, version=version)
    input_hash = check_input(version=version, value=request.input)
    now = timezone.now()
    execution = Execution(
        tool=version.tool,
        version=version,
        definition_hash=version.definition_hash,
        mode=request.mode,
        priority=request.priority.value,
        input_json=msgspec.json.encode(request.input).decode(),
        input_hash=input_hash,
        requested_by_id=request.principal.id,
        session_id=request.session_id,
        message_id=request.message_id,
        trace_id=request.trace_id,
        timeout_seconds=get_timeout_seconds(version),
        deadline=request.deadline if request.mode == Execution.Mode.WAIT else None,
        sent_at=now,
        event_count=1,
    )
    update = timeline.describe_update(execution_id=execution.id, state=ExecutionState.QUEUED, attempt=0, position=1)
    with refuse_duplicate(execution), transaction.atomic():
        execution.save(force_insert=True)
        timeline.make_state_event(
            execution_id=execution.id, position=1, state=ExecutionState.QUEUED, attempt=0, at=now
        ).save(force_insert=True)
        recorded = record_acceptance(execution)
        transaction.on_commit(partial(failpoint, "accept.after_commit"))
        if announce is not None:
            transaction.on_commit(partial(announce, update))
        transaction.on_commit(
            partial(
                send_execution,
                execution_id=execution.id,
                priority=request.priority,
            )
        )
        failpoint("accept.before_commit")
    failpoint("accept.after_send")
    return Accepted(execution_id=execution.id, update=update, recorded=recorded)


@contextlib.contextmanager
def refuse_duplicate(execution: Execution) -> Iterator[None]:
    """Refuse a message id that its session has used for another run: its answer could not be told from the other's."""
    try:
        yield
    except IntegrityError as error:
        if (
            execution.session_id is not None
            and Execution.objects.filter(session_id=execution.session_id, message_id=execution.message_id).exists()
        ):
            raise DuplicateId("This session has used the message id for another run.") from error
        raise


def check_runnable(*, principal: Principal, version: ToolVersion) -> None:
    """Refuse what may not, or cannot, be run now. Raises as ``accept_execution`` does."""
    tool = version.tool
    if not ports.get_authorizer().is_allowed(
        principal=principal, action=selectors.EXECUTE_TOOLS, resource=Resource(kind="tool", name=tool.name)
    ):
        raise AccessDenied(details={"action": selectors.EXECUTE_TOOLS, "tool": tool.name})
    details = {"tool": tool.name, "version": version.version}
    if tool.state == Tool.State.DISABLED:
        reason = f": {tool.disabled_reason}" if tool.disabled_reason else ""
        raise ToolUnavailable(f"The tool is disabled{reason}.", details=details)
    if version.state == ToolVersion.State.QUARANTINED:
        raise ToolQuarantined(details=details)
    if version.state != ToolVersion.State.AVAILABLE:
        raise ToolUnavailable("The tool's code is not on this server.", details=details)


def check_input(*, version: ToolVersion, value: Any) -> str:
    """Refuse an input that the version does not take; gives its hash.

    Raises:
        InvalidInput: ``details.path`` and all violations.
    """
    violations = find_violations(schema=version.input_schema, instance=value)
    if violations:
        first = violations[0]
        raise InvalidInput(f"The input does not fit: {first.message}", details=get_violation_details(violations))
    try:
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InvalidInput(
            "The input holds an integer beyond 2^53 or text that is not Unicode; send such numbers as strings."
        ) from error


def get_timeout_seconds(version: ToolVersion) -> float:
    """How long one attempt of the version may run, within the server's limit."""
    stated = version.timeout_seconds or settings.MCP.default_tool_timeout_seconds
    return float(min(stated, settings.MCP.max_tool_timeout_seconds))


def record_acceptance(execution: Execution) -> outbox.Appended | None:
    """In ``queue`` mode the acceptance is the command's terminal answer: put it in the outbox."""
    if execution.mode != Execution.Mode.QUEUE or execution.session_id is None:
        return None
    result = {"execution_id": str(execution.id), "state": ExecutionState.QUEUED.value}
    return outbox.append(
        session_id=execution.session_id,
        correlation_id=execution.message_id,
        payload=ResponsePayload("tools.execute", result),
    )


def send_execution(*, execution_id: uuid.UUID, priority: Priority) -> bool:
    """Hand a queued run to the broker; ``False`` where it cannot be reached, and the row says so.

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
        Execution.objects.filter(id=execution_id, state=ExecutionState.QUEUED.value).update(sent_at=None)
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
