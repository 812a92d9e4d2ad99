"""The terminal answer of a run as its callers get it: made from its outcome, or again from its row."""

from __future__ import annotations

import uuid

import msgspec

from protocol.domain.messages import ErrorPayload, ResponsePayload, describe_error
from protocol.errors import MCPError
from tools.domain.states import ExecutionState
from tools.models import Execution

COMMAND = "tools.execute"
RETRY_COMMAND = "executions.retry"


def make_success(*, execution_id: uuid.UUID, output_json: str, is_duplicate: bool = False) -> ResponsePayload:
    """The answer to a waiting caller whose run succeeded."""
    result = {
        "execution_id": str(execution_id),
        "state": ExecutionState.SUCCEEDED.value,
        "output": msgspec.Raw(output_json.encode()),
    }
    return ResponsePayload(COMMAND, result, is_duplicate or msgspec.UNSET)


def make_acceptance(*, execution: Execution, is_duplicate: bool = False) -> ResponsePayload:
    """The answer to a caller that does not wait."""
    command = COMMAND if execution.retry_of_id is None else RETRY_COMMAND
    result = {"execution_id": str(execution.id), "state": ExecutionState.QUEUED.value}
    return ResponsePayload(command, result, is_duplicate or msgspec.UNSET)


def make_failure(*, execution: Execution, error: MCPError, is_retryable: bool) -> ErrorPayload:
    """The answer to a waiting caller whose run did not succeed, with the run's id and trace."""
    payload = describe_error(error, trace_id=execution.trace_id)
    return msgspec.structs.replace(
        payload,
        retryable=is_retryable,
        details={**payload.details, "execution_id": str(execution.id)},
    )


def repeat_answer(*, execution: Execution, is_duplicate: bool = True) -> ResponsePayload | ErrorPayload:
    """The answer of a run that has ended, out of its row."""
    if execution.error_json:
        return msgspec.json.decode(execution.error_json, type=ErrorPayload)
    output_json = execution.output_json or "null"
    return make_success(execution_id=execution.id, output_json=output_json, is_duplicate=is_duplicate)


def get_answer(*, execution_id: uuid.UUID, is_duplicate: bool) -> ResponsePayload | ErrorPayload | None:
    """The answer of a run to a caller that has watched it; ``None``: it has not ended, or is not there any more."""
    execution = Execution.objects.filter(id=execution_id, finished_at__isnull=False).first()
    return None if execution is None else repeat_answer(execution=execution, is_duplicate=is_duplicate)
