"""What this app puts on record: one entry an action. The place to add one; the docs are made from it."""

from __future__ import annotations

from typing import Final

from security.domain.audit_actions import AuditAction

_DEFINITION: Final = {"version": "the version", "definition_hash": "what the definition is known by"}
_ATTEMPT: Final = {
    "attempt": "its number, from 1",
    "worker": "who had it",
    "code": "the error's, where it did not succeed",
}

RECORDED_ACTIONS: Final = (
    AuditAction(
        name="tools.register",
        summary="A tool's new version was found in the code: `available`, or why it is not.",
        kinds=("tool",),
        data=_DEFINITION,
    ),
    AuditAction(
        name="tools.quarantine",
        summary="A version's definition changed without a new number; it does not run.",
        kinds=("tool",),
        data=_DEFINITION,
    ),
    AuditAction(
        name="tools.disable", summary="A tool was switched off.", kinds=("tool",), data={"reason": "as it was given"}
    ),
    AuditAction(name="tools.enable", summary="A tool was switched on again.", kinds=("tool",)),
    AuditAction(
        name="tools.mark",
        summary="A tool got other labels, or demands another level.",
        kinds=("tool",),
        data={
            "labels": "as they are",
            "labels_before": "as they were",
            "minimum_level": "as it is",
            "minimum_level_before": "as it was",
        },
    ),
    AuditAction(
        name="tools.execute",
        summary="A run was accepted.",
        kinds=("tool",),
        data={"execution_id": "the run", **_DEFINITION, "input_hash": "SHA-256 of the input"},
    ),
    AuditAction(
        name="executions.cancel",
        summary="A run was asked to end; the outcome is how: `graceful` or `kill`.",
        kinds=("execution",),
    ),
    AuditAction(
        name="execution.ended",
        summary="A run is over; the outcome is its state.",
        kinds=("execution",),
        data=_ATTEMPT,
    ),
    AuditAction(
        name="execution.lost",
        summary="An attempt's worker was lost; the run is queued again.",
        kinds=("execution",),
        data=_ATTEMPT,
    ),
    AuditAction(
        name="execution.came_late",
        summary="An attempt came to an end when the run had another one already; nothing changed.",
        kinds=("execution",),
        data=_ATTEMPT,
    ),
)
