"""What can go wrong with a tool or a run of it, as errors that a peer may be told (protocol's section 8, row ``tool``).

    ToolFailure
    ├── ToolNotFound, ExecutionNotFound               there is none, or the caller may not see it
    ├── RegistrationInvalid                           a tool's definition is refused
    ├── ToolUnavailable, ToolQuarantined, InvalidInput the run never started
    ├── InvalidOutput, ExecutionFailed                the tool ran and did not deliver
    └── ExecutionTimeout, ExecutionCancelled,
        ExecutionRejected, ExecutionInterrupted       the run was ended

A new code is a class here. What an author raises is ``tools.authoring.ToolError``: it is not part of this tree, since
it becomes one of these only at the adapter.
"""

from __future__ import annotations

from protocol.errors import MCPError

RUN_FAILED = 424
"""The HTTP status of a run that ended without success. It is none of the server's errors: the server did its part, and
much that speaks HTTP sends a request again by itself upon 502 and 504, which would run the tool again."""


class ToolFailure(MCPError):
    """The tool could not be run."""

    category = "tool"
    http_status = 422


class ToolNotFound(ToolFailure):
    """There is no tool of that name and version."""

    code = "tool.not_found"
    http_status = 404
    is_recorded = True


class ExecutionNotFound(ToolFailure):
    """There is no execution of that id."""

    code = "tool.execution_not_found"
    http_status = 404
    is_recorded = True


class RegistrationInvalid(ToolFailure):
    """The tool's definition is not valid."""

    code = "tool.registration_invalid"


class ToolUnavailable(ToolFailure):
    """The tool cannot be run now."""

    code = "tool.unavailable"
    http_status = 503
    retryable = True


class ToolQuarantined(ToolFailure):
    """The tool's definition changed without a new version; an operator must look at it first."""

    code = "tool.quarantined"
    http_status = 409


class InvalidInput(ToolFailure):
    """The input is not what the tool takes."""

    code = "tool.invalid_input"


class InvalidOutput(ToolFailure):
    """The tool's output is not what it declares."""

    code = "tool.invalid_output"
    http_status = RUN_FAILED


class ExecutionFailed(ToolFailure):
    """The tool failed."""

    code = "tool.execution_failed"
    http_status = RUN_FAILED


class ExecutionTimeout(ToolFailure):
    """The tool did not finish in time."""

    code = "tool.timeout"
    http_status = RUN_FAILED


class ExecutionCancelled(ToolFailure):
    """The run was cancelled."""

    code = "tool.cancelled"
    http_status = 409


class ExecutionRejected(ToolFailure):
    """The run was not approved."""

    code = "tool.rejected"
    http_status = 403


class ExecutionInterrupted(ToolFailure):
    """The worker was lost while the tool ran; whether it took effect is not known."""

    code = "tool.interrupted"
    http_status = RUN_FAILED
