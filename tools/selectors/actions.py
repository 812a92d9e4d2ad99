"""What a principal may do with a run as it stands now, and with a tool. Only an offer: services decide anew."""

from __future__ import annotations

import enum
import uuid

from protocol import ports
from protocol.ports import Principal, Resource
from security.domain.actions import register_action
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.domain.supervision import CancelMode
from tools.models import Execution, Tool
from tools.selectors.catalog import EXECUTE_TOOLS, get_wire_state, make_tool_resource, may_view_tool
from tools.selectors.executions import VIEW_EXECUTIONS, may_act

CANCEL_EXECUTIONS = register_action("executions.cancel", summary="End a run.")
RETRY_EXECUTIONS = register_action("executions.retry", summary="Run again what has ended.")


class ExecutionAction(enum.StrEnum):
    CANCEL = "cancel"
    KILL = "kill"
    RUN_AGAIN = "run_again"


def list_execution_actions(*, principal: Principal, execution_id: uuid.UUID) -> frozenset[ExecutionAction]:
    """What the run's state and the policy leave open; nothing of a run that there is not.

    A wish to cancel that stands already is not offered again, nor a second run of what cannot be run now.
    """
    execution = (
        Execution.objects.select_related("tool__current_version", "version")
        .only(
            "state",
            "cancel_mode",
            "requested_by_id",
            "tool__name",
            "tool__state",
            "tool__labels",
            "tool__minimum_level",
            "tool__current_version__minimum_level",
            "version__state",
        )
        .filter(id=execution_id)
        .first()
    )
    if execution is None:
        return frozenset()
    if ExecutionState(execution.state) in TERMINAL_STATES:
        return frozenset({ExecutionAction.RUN_AGAIN}) if _can_run_again(principal, execution) else frozenset()
    if not may_act(principal=principal, action=CANCEL_EXECUTIONS, execution=execution):
        return frozenset()
    match execution.cancel_mode:
        case CancelMode.KILL.value:
            return frozenset()
        case CancelMode.GRACEFUL.value:
            return frozenset({ExecutionAction.KILL})
        case _:
            return frozenset({ExecutionAction.CANCEL, ExecutionAction.KILL})


def may_run_tool(*, principal: Principal, tool: Tool) -> bool:
    """Whether the principal may know of the tool and run it; whether it can be run now is another matter."""
    return may_view_tool(principal=principal, tool=tool) and ports.get_authorizer().is_allowed(
        principal=principal, action=EXECUTE_TOOLS, resource=_get_run_resource(tool)
    )


def may_ask_for_run(*, principal: Principal, tool: Tool) -> bool:
    """Whether asking for a run gets further than ``security.access_denied``.

    Of a tool that the principal may not know of it does: it is ``tool.not_found`` then, as what is not there. And of
    one that demands a higher level: then it is told which.
    """
    authorizer = ports.get_authorizer()
    if not authorizer.may_ever(principal=principal, action=EXECUTE_TOOLS):
        return False
    if not may_view_tool(principal=principal, tool=tool):
        return True
    resource = _get_run_resource(tool)
    return (
        authorizer.is_allowed(principal=principal, action=EXECUTE_TOOLS, resource=resource)
        or authorizer.find_demanded_level(principal=principal, action=EXECUTE_TOOLS, resource=resource) is not None
    )


def _get_run_resource(tool: Tool) -> Resource:
    version = tool.current_version
    return make_tool_resource(
        name=tool.name,
        labels=tool.labels,
        levels=(tool.minimum_level, "" if version is None else version.minimum_level),
    )


def may_view_execution(*, principal: Principal, execution_id: uuid.UUID) -> bool:
    """Whether there is such a run and the principal may see it."""
    execution = Execution.objects.only("requested_by_id").filter(id=execution_id).first()
    return execution is not None and may_act(principal=principal, action=VIEW_EXECUTIONS, execution=execution)


def _can_run_again(principal: Principal, execution: Execution) -> bool:
    version = execution.version
    version.tool = execution.tool
    return (
        get_wire_state(version) == "enabled"
        and may_act(principal=principal, action=VIEW_EXECUTIONS, execution=execution)
        and may_act(principal=principal, action=RETRY_EXECUTIONS, execution=execution)
        and may_run_tool(principal=principal, tool=execution.tool)
    )
