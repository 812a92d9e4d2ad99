"""The protocol's commands about tools and runs (protocol.md section 6)."""

from __future__ import annotations

import uuid
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from protocol.domain.messages import MessageId
from protocol.errors import FeatureNotAgreed
from protocol.registry import CommandContext, Deferred, Recorded, Stored, command
from tools import selectors, services, watching
from tools.domain.specification import MAX_NAME_LENGTH, MAX_VERSION_LENGTH
from tools.domain.states import ExecutionState
from tools.domain.supervision import CancelMode
from tools.models import Execution
from tools.selectors import (
    CANCEL_EXECUTIONS,
    RETRY_EXECUTIONS,
    ExecutionPage,
    ExecutionView,
    ToolDescription,
    ToolPage,
)
from tools.services.timeline import UPDATED_EVENT

ToolName = Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
Version = Annotated[str, Meta(max_length=MAX_VERSION_LENGTH)]


class ListArguments(Struct, frozen=True, forbid_unknown_fields=True):
    capability: Annotated[ToolName | None, Meta(description="Only tools that have it.")] = None
    query: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="Only tools with this in name or description.")
    ] = None
    state: Literal["enabled", "disabled", "unavailable", "quarantined"] | None = None
    cursor: Annotated[ToolName | None, Meta(description="The `next_cursor` of the page before.")] = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Of a page.")] = 50


class DescribeArguments(Struct, frozen=True, forbid_unknown_fields=True):
    tool: ToolName
    version: Version | None = None


class ExecuteArguments(Struct, frozen=True, forbid_unknown_fields=True):
    tool: ToolName
    input: dict[str, Any]
    version: Version | None = None
    mode: Literal["wait", "queue"] = "wait"
    context: Any | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"ExecuteArguments(tool={self.tool!r}, version={self.version!r}, mode={self.mode!r})"


class Queued(Struct, frozen=True):
    """A run that was accepted and goes its way."""

    execution_id: str
    state: str


class CancelExecutionArguments(Struct, frozen=True, forbid_unknown_fields=True):
    execution: uuid.UUID
    mode: CancelMode = CancelMode.GRACEFUL


class RetryArguments(Struct, frozen=True, forbid_unknown_fields=True):
    execution: uuid.UUID


class CancelCommandArguments(Struct, frozen=True, forbid_unknown_fields=True):
    id: MessageId
    mode: CancelMode = CancelMode.GRACEFUL


class Cancelled(Struct, frozen=True):
    cancelled: bool
    """Whether the run is or will be ended by it; false: it had ended before, or is not one that can be."""


class ListExecutionsArguments(Struct, frozen=True, forbid_unknown_fields=True):
    tool: Annotated[ToolName | None, Meta(description="Runs of this tool, whatever its version.")] = None
    state: Annotated[
        tuple[ExecutionState, ...],
        Meta(max_length=len(ExecutionState), description="Runs in one of these states; none: in any."),
    ] = ()
    requested_by: Annotated[
        Annotated[str, Meta(max_length=150)] | None, Meta(description="Runs that the account of this name asked for.")
    ] = None
    created_from: Annotated[
        Annotated[datetime, Meta(tz=True)] | None, Meta(description="Runs accepted then or later.")
    ] = None
    created_before: Annotated[
        Annotated[datetime, Meta(tz=True)] | None, Meta(description="Runs accepted before then.")
    ] = None
    order: Annotated[selectors.ExecutionOrder, Meta(description="By the time of acceptance.")] = (
        selectors.ExecutionOrder.NEWEST_FIRST
    )
    cursor: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="The `next_cursor` of the page before.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Of a page.")] = 50


class GetExecutionArguments(Struct, frozen=True, forbid_unknown_fields=True):
    execution: uuid.UUID
    after: Annotated[int, Meta(ge=0, description="Only events past this position.")] = 0


@command("tools.list", action="tools.view")
def list_tools(context: CommandContext, arguments: ListArguments) -> ToolPage:
    """The tools that the caller may see, by name, in pages."""
    return selectors.list_tools(
        principal=context.principal,
        capability=arguments.capability,
        query=arguments.query,
        state=arguments.state,
        cursor=arguments.cursor,
        limit=arguments.limit,
    )


@command("tools.describe", action="tools.view")
def describe_tool(context: CommandContext, arguments: DescribeArguments) -> ToolDescription:
    """A tool with its schemas, capabilities, versions and state."""
    return selectors.describe_tool(principal=context.principal, name=arguments.tool, version=arguments.version)


@command("tools.execute", action="tools.execute", changes=True)
def execute_tool(context: CommandContext, arguments: ExecuteArguments) -> Deferred | Recorded | Stored | Queued:
    """Run a tool: ``wait`` answers with its outcome, ``queue`` as soon as the run is accepted."""
    refuse_unbuilt(arguments)
    request = services.ExecutionRequest(
        principal=context.principal,
        tool=arguments.tool,
        version=arguments.version,
        input=arguments.input,
        mode=Execution.Mode(arguments.mode),
        priority=context.priority,
        session_id=context.peer.session_id,
        message_id=context.message_id,
        idempotency_key=context.idempotency_key,
        deadline=context.deadline,
        trace_id=context.trace_id,
    )
    is_waiting = request.mode == Execution.Mode.WAIT
    accepted = services.accept_execution(
        request=request, announce=partial(context.emit, UPDATED_EVENT) if is_waiting else None
    )
    if isinstance(accepted, services.Joined):
        if accepted.answer is not None:
            return Stored(payload=accepted.answer)
        return wait_for_joined(context, accepted.execution_id)
    if accepted.recorded is not None:
        return Recorded(sequence=accepted.recorded.entry.sequence, payload=accepted.recorded.entry.payload)
    if not is_waiting:
        return Queued(execution_id=str(accepted.execution_id), state=ExecutionState.QUEUED.value)
    return Deferred(
        deadline=context.deadline,
        expire=partial(services.expire_execution, execution_id=accepted.execution_id),
        follow=partial(watching.wait_for_answer, execution_id=accepted.execution_id),
    )


def wait_for_joined(context: CommandContext, execution_id: uuid.UUID) -> Deferred:
    """The answer, to come, of a run that another call brought about: the deadline ends the waiting, not the run."""
    stop = partial(
        services.stop_waiting,
        execution_id=execution_id,
        session_id=context.peer.session_id,
        message_id=context.message_id,
    )
    follow = partial(watching.wait_for_answer, execution_id=execution_id, is_duplicate=True)
    return Deferred(deadline=context.deadline, expire=stop, follow=follow)


def refuse_unbuilt(arguments: ExecuteArguments) -> None:
    """Refuse what the protocol has and this server does not yet."""
    for name in ("context", "dry_run"):
        if getattr(arguments, name) is not UNSET:
            raise FeatureNotAgreed("This server does not have it yet.", details={"path": f"arguments.{name}"})


@command("executions.list", action="executions.view")
def list_executions(context: CommandContext, arguments: ListExecutionsArguments) -> ExecutionPage:
    """The runs that the caller may see, the newest first, in pages; a page may be short and have a next one."""
    return selectors.list_executions(
        principal=context.principal,
        filters=selectors.ExecutionFilters(
            tool=arguments.tool,
            states=arguments.state,
            requested_by=arguments.requested_by,
            created_from=arguments.created_from,
            created_before=arguments.created_before,
        ),
        order=arguments.order,
        cursor=arguments.cursor,
        limit=arguments.limit,
    )


@command("executions.get", action="executions.view")
def get_execution(context: CommandContext, arguments: GetExecutionArguments) -> ExecutionView:
    """A run: state, input, outcome, progress and the events of its timeline past ``after``."""
    return selectors.get_execution(principal=context.principal, execution_id=arguments.execution, after=arguments.after)


@command("executions.cancel", action=CANCEL_EXECUTIONS, changes=True)
def cancel_execution(context: CommandContext, arguments: CancelExecutionArguments) -> Cancelled:
    """End a run: ``graceful`` lets the tool's own clean-up run, ``kill`` does not."""
    return Cancelled(
        services.cancel_execution(
            principal=context.principal,
            execution_id=arguments.execution,
            mode=arguments.mode,
            trace_id=context.trace_id,
        )
    )


@command("command.cancel", action=CANCEL_EXECUTIONS, needs_session=True)
def cancel_command(context: CommandContext, arguments: CancelCommandArguments) -> Cancelled:
    """End what a command of this session asked for; only a run can be ended."""
    assert context.peer.session_id is not None  # noqa: S101  # the command needs one
    execution_id = selectors.find_execution_id(session_id=context.peer.session_id, message_id=arguments.id)
    if execution_id is None:
        return Cancelled(cancelled=False)
    return cancel_execution(context, CancelExecutionArguments(execution=execution_id, mode=arguments.mode))


@command("executions.retry", action=RETRY_EXECUTIONS, changes=True)
def retry_execution(context: CommandContext, arguments: RetryArguments) -> Queued | Recorded | Stored:
    """Run again what has ended: a new run of the same version with the same input."""
    accepted = services.retry_execution(
        principal=context.principal,
        execution_id=arguments.execution,
        trace_id=context.trace_id,
        session_id=context.peer.session_id,
        message_id=context.message_id,
        idempotency_key=context.idempotency_key,
    )
    if isinstance(accepted, services.Joined):
        # A queued call that is repeated always has its answer.
        assert accepted.answer is not None  # noqa: S101  # as above
        return Stored(payload=accepted.answer)
    if accepted.recorded is not None:
        return Recorded(sequence=accepted.recorded.entry.sequence, payload=accepted.recorded.entry.payload)
    return Queued(execution_id=str(accepted.execution_id), state=ExecutionState.QUEUED.value)
