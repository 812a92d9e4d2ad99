"""How states are written and coloured, in the names of the console's label variants; no colour is the plain one."""

from __future__ import annotations

from typing import Final

from tools.domain.states import ExecutionState

EXECUTION_COLOURS: Final[dict[str, str]] = {
    ExecutionState.QUEUED.value: "",
    ExecutionState.AWAITING_APPROVAL.value: "warning",
    ExecutionState.RUNNING.value: "info",
    ExecutionState.SUCCEEDED.value: "success",
    ExecutionState.FAILED.value: "danger",
    ExecutionState.TIMED_OUT.value: "danger",
    ExecutionState.INTERRUPTED.value: "danger",
    ExecutionState.CANCELLED.value: "warning",
    ExecutionState.REJECTED.value: "warning",
}
TOOL_COLOURS: Final[dict[str, str]] = {
    "enabled": "success",
    "available": "success",
    "disabled": "warning",
    "unavailable": "danger",
    "quarantined": "danger",
}
LEASE_COLOURS: Final[dict[str, str]] = {"alive": "success", "lapsed": "danger"}


def get_state_text(state: str) -> str:
    """A state as people read it."""
    return state.replace("_", " ")


def make_label(state: str, *, colours: dict[str, str]) -> dict[str, str]:
    """A label for a template."""
    return {"text": get_state_text(state), "colour": colours.get(state, "")}
