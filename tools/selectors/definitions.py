"""What a call of a tool means, at the cost of one small query: definitions never change, so a process keeps them.

What does change (whether the tool is switched off, whether its code is there) is read each time.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import Any

from msgspec import Struct

from protocol import statements
from protocol.ports import Principal
from tools.errors import ToolNotFound
from tools.models import Tool, ToolVersion
from tools.selectors.catalog import may_view_tool

MAX_KEPT = 1_024
"""Definitions that a process keeps."""


class Definition(Struct, frozen=True, kw_only=True):
    """A tool's version without its state."""

    version_id: uuid.UUID
    tool_id: uuid.UUID
    tool: str
    version: str
    definition_hash: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    is_idempotent: bool
    timeout_seconds: float | None
    adapter: str
    entry_point: str
    needs_port: bool


class Callee(Struct, frozen=True, kw_only=True):
    """What a call would run, and what may keep it from running now."""

    definition: Definition
    is_disabled: bool
    disabled_reason: str
    version_state: str
    """One of ``ToolVersion.State``."""


def find_callee(*, principal: Principal, name: str, version: str | None) -> Callee:
    """What a call of the tool means; without ``version`` the current one.

    Raises:
        ToolNotFound: there is none, or the principal may not see it.
    """
    tools = (
        statements.select(Tool, where={"name": name}, names=("id", "state", "disabled_reason", "current_version_id"))
        if may_view_tool(principal=principal, name=name)
        else []
    )
    for tool_id, state, disabled_reason, current_version_id in tools:
        wanted = {"id": current_version_id} if version is None else {"tool_id": tool_id, "version": version}
        for version_id, version_state in statements.select(ToolVersion, where=wanted, names=("id", "state")):
            return Callee(
                definition=get_definition(version_id),
                is_disabled=state == Tool.State.DISABLED,
                disabled_reason=disabled_reason,
                version_state=version_state,
            )
    raise ToolNotFound(details={"tool": name[:100]})


@lru_cache(maxsize=MAX_KEPT)
def get_definition(version_id: uuid.UUID) -> Definition:
    """The version's definition; read once a process."""
    version = ToolVersion.objects.select_related("tool").get(id=version_id)
    return Definition(
        version_id=version.id,
        tool_id=version.tool_id,
        tool=version.tool.name,
        version=version.version,
        definition_hash=version.definition_hash,
        input_schema=version.input_schema,
        output_schema=version.output_schema,
        is_idempotent=version.is_idempotent,
        timeout_seconds=version.timeout_seconds,
        adapter=version.adapter,
        entry_point=version.entry_point,
        needs_port=version.needs_port,
    )
