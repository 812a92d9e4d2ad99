"""An operator's switch: a disabled tool is refused at acceptance, whatever its version; runs accepted before go on."""

from __future__ import annotations

from tools.models import Tool


def disable_tool(*, tool: Tool, reason: str) -> bool:
    """Let nobody run the tool until it is enabled again; callers are told the reason.

    ``False`` where it was disabled already: then the reason that stands is left.
    """
    return (
        Tool.objects.filter(id=tool.id, state=Tool.State.ENABLED).update(
            state=Tool.State.DISABLED, disabled_reason=reason
        )
        == 1
    )


def enable_tool(*, tool: Tool) -> bool:
    """Let the tool be run again; ``False`` where it was enabled."""
    return (
        Tool.objects.filter(id=tool.id, state=Tool.State.DISABLED).update(state=Tool.State.ENABLED, disabled_reason="")
        == 1
    )
