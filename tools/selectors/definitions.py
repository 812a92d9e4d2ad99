"""What a call of a tool means, at the cost of one small query: definitions never change, so a process keeps them.

What does change (whether the tool is switched off, whether its code is there) is read each time.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from protocol import ports, statements
from protocol.ports import Principal, Resource
from tools.errors import ToolNotFound
from tools.models import Tool, ToolVersion
from tools.selectors.catalog import VIEW_TOOLS, make_tool_resource

MAX_KEPT = 1_024
"""Definitions that a process keeps."""
_TOOL_NAMES: Final = ("id", "state", "disabled_reason", "current_version_id", "labels", "minimum_level")


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
    minimum_level: str
    """That its author demands; empty: none."""
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
    resource: Resource
    """The tool as policy meets it when it is to be run."""


def find_callee(*, principal: Principal, name: str, version: str | None) -> Callee:
    """What a call of the tool means; without ``version`` the current one.

    Raises:
        ToolNotFound: there is none, or the principal may not see it.
        SecurityLevelTooLow: the principal might see it at a higher level.
    """
    not_found = ToolNotFound(details={"tool": name[:100]})
    tools = statements.select(Tool, where={"name": name}, names=_TOOL_NAMES)
    # Asked of a tool that there is not, too: nobody is told by which of both it is not there.
    ports.require_allowed(
        principal=principal,
        action=VIEW_TOOLS,
        resource=make_tool_resource(name=name, labels=tools[0][4] if tools else ()),
        otherwise=not_found,
    )
    for tool_id, state, disabled_reason, current_version_id, labels, minimum_level in tools:
        wanted = {"id": current_version_id} if version is None else {"tool_id": tool_id, "version": version}
        for version_id, version_state in statements.select(ToolVersion, where=wanted, names=("id", "state")):
            definition = get_definition(version_id)
            return Callee(
                definition=definition,
                is_disabled=state == Tool.State.DISABLED,
                disabled_reason=disabled_reason,
                version_state=version_state,
                resource=make_tool_resource(name=name, labels=labels, levels=(minimum_level, definition.minimum_level)),
            )
    raise not_found


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
        minimum_level=version.minimum_level,
        adapter=version.adapter,
        entry_point=version.entry_point,
        needs_port=version.needs_port,
    )
