"""An execution's states and steps, as one table (protocol.md section 6). Docs and tests are made from it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class ExecutionState(enum.StrEnum):
    QUEUED = "queued"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    INTERRUPTED = "interrupted"


TERMINAL_STATES = frozenset(
    {
        ExecutionState.SUCCEEDED,
        ExecutionState.FAILED,
        ExecutionState.TIMED_OUT,
        ExecutionState.CANCELLED,
        ExecutionState.REJECTED,
        ExecutionState.INTERRUPTED,
    }
)

TRANSITIONS: Mapping[ExecutionState, frozenset[ExecutionState]] = MappingProxyType(
    {
        ExecutionState.QUEUED: frozenset(
            {
                ExecutionState.AWAITING_APPROVAL,
                ExecutionState.RUNNING,
                ExecutionState.TIMED_OUT,
                ExecutionState.CANCELLED,
            }
        ),
        ExecutionState.AWAITING_APPROVAL: frozenset(
            {ExecutionState.QUEUED, ExecutionState.REJECTED, ExecutionState.CANCELLED}
        ),
        # Back to queued: an idempotent tool's run whose worker was lost.
        ExecutionState.RUNNING: frozenset(
            {
                ExecutionState.QUEUED,
                ExecutionState.SUCCEEDED,
                ExecutionState.FAILED,
                ExecutionState.TIMED_OUT,
                ExecutionState.CANCELLED,
                ExecutionState.INTERRUPTED,
            }
        ),
        **{state: frozenset[ExecutionState]() for state in TERMINAL_STATES},
    }
)
"""Which state may follow which; every update of a row names the state that it comes from."""
