"""Running again what has ended, by somebody's wish: a new run of the same version with the same input."""

from __future__ import annotations

import uuid

import msgspec

from protocol.errors import AccessDenied
from protocol.ports import Principal
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.errors import ExecutionNotFound, ToolUnavailable
from tools.models import Execution
from tools.selectors import RETRY_EXECUTIONS, VIEW_EXECUTIONS, may_act
from tools.services.acceptance import Accepted, ExecutionRequest, Joined, accept_execution


def retry_execution(
    *,
    principal: Principal,
    execution_id: uuid.UUID,
    trace_id: str,
    session_id: uuid.UUID | None = None,
    message_id: str = "",
    idempotency_key: str | None = None,
) -> Accepted | Joined:
    """Queue a new run like this one, on the principal's behalf; the same wish again gives the run of the first.

    Raises:
        ExecutionNotFound: there is none, or the principal may not see it.
        AccessDenied: the principal may not run it again.
        ToolUnavailable: it has not ended yet; or as ``accept_execution`` raises.
        DuplicateId: the message id or the key stands for another call.
    """
    execution = Execution.objects.select_related("tool", "version").filter(id=execution_id).first()
    if execution is None or not may_act(principal=principal, action=VIEW_EXECUTIONS, execution=execution):
        raise ExecutionNotFound(
            details={"execution_id": str(execution_id)}, denied_action="" if execution is None else VIEW_EXECUTIONS
        )
    if not may_act(principal=principal, action=RETRY_EXECUTIONS, execution=execution):
        raise AccessDenied(details={"action": RETRY_EXECUTIONS})
    if ExecutionState(execution.state) not in TERMINAL_STATES:
        raise ToolUnavailable("The run has not ended yet.", details={"execution_id": str(execution_id)})
    return accept_execution(
        request=ExecutionRequest(
            principal=principal,
            tool=execution.tool.name,
            version=execution.version.version,
            input=msgspec.json.decode(execution.input_json),
            mode=Execution.Mode.QUEUE,
            retry_of=execution.id,
            session_id=session_id,
            message_id=message_id,
            idempotency_key=idempotency_key,
            trace_id=trace_id,
        )
    )
