"""An operator's switch: a disabled tool is refused at acceptance, whatever its version; runs accepted before go on.

Each switch is in the audit record, in its own transaction. Whether somebody may switch is asked by the edge: it is the
console's permission, no command's.
"""

from __future__ import annotations

from django.db import transaction

from protocol.ports import Principal, Resource
from security.services import audit
from tools.models import Tool

DISABLE_TOOLS = "tools.disable"
ENABLE_TOOLS = "tools.enable"


def disable_tool(*, tool: Tool, reason: str, principal: Principal, trace_id: str) -> bool:
    """Let nobody run the tool until it is enabled again; callers are told the reason.

    ``False`` where it was disabled already: then the reason that stands is left.
    """
    with transaction.atomic():
        disabled = Tool.objects.filter(id=tool.id, state=Tool.State.ENABLED).update(
            state=Tool.State.DISABLED, disabled_reason=reason
        )
        if disabled:
            audit.record_event(
                action=DISABLE_TOOLS,
                principal=principal,
                resource=Resource(kind="tool", name=tool.name),
                outcome=Tool.State.DISABLED.value,
                trace_id=trace_id,
                data={"reason": reason},
            )
    return disabled == 1


def enable_tool(*, tool: Tool, principal: Principal, trace_id: str) -> bool:
    """Let the tool be run again; ``False`` where it was enabled."""
    with transaction.atomic():
        enabled = Tool.objects.filter(id=tool.id, state=Tool.State.DISABLED).update(
            state=Tool.State.ENABLED, disabled_reason=""
        )
        if enabled:
            audit.record_event(
                action=ENABLE_TOOLS,
                principal=principal,
                resource=Resource(kind="tool", name=tool.name),
                outcome=Tool.State.ENABLED.value,
                trace_id=trace_id,
            )
    return enabled == 1
