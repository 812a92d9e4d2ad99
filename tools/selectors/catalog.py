"""Tools and their versions as callers see them: what a principal may not see is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from msgspec import Struct

from protocol import ports
from protocol.domain.messages import SecurityLevel
from protocol.ports import Principal, Resource
from security.domain.actions import register_action
from tools.errors import ToolNotFound
from tools.models import Tool, ToolVersion

VIEW_TOOLS = register_action("tools.view", summary="Know of a tool.")
EXECUTE_TOOLS = register_action("tools.execute", summary="Run a tool.")
TOOL_STATES = ("enabled", "disabled", "unavailable", "quarantined")
"""A tool's state as its callers see it."""
_LIST_CHUNK = 200


class ToolSummary(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    description: str
    capabilities: list[str]
    idempotent: bool
    state: str
    """One of ``TOOL_STATES``."""
    labels: list[str]
    """What the operator has marked it with."""
    security_level: str | None
    """Below which no connection may run it."""


class ToolPage(Struct, frozen=True, kw_only=True):
    tools: list[ToolSummary]
    next_cursor: str | None


class VersionSummary(Struct, frozen=True, kw_only=True):
    version: str
    state: str
    definition_hash: str
    created_at: datetime


class ToolDescription(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    capabilities: list[str]
    idempotent: bool
    timeout_ms: int | None
    state: str
    state_reason: str
    labels: list[str]
    """What the operator has marked it with."""
    security_level: str | None
    """Below which no connection may run it."""
    definition_hash: str
    versions: list[VersionSummary]


def _get_tool_version(*, principal: Principal, name: str, version: str | None) -> ToolVersion:
    """The version that a call of the tool means, with its tool; without ``version`` the current one.

    Raises:
        ToolNotFound: there is none, or the principal may not see it.
        SecurityLevelTooLow: the principal might see it at a higher level.
    """
    not_found = ToolNotFound(details={"tool": name[:100]})
    tool = Tool.objects.select_related("current_version").filter(name=name).first()
    # Asked of a tool that there is not, too: nobody is told by which of both it is not there.
    ports.require_allowed(
        principal=principal,
        action=VIEW_TOOLS,
        resource=make_tool_resource(name=name, labels=[] if tool is None else tool.labels),
        otherwise=not_found,
    )
    found = None
    if tool is not None:
        found = tool.current_version if version is None else tool.versions.filter(version=version).first()
    if tool is None or found is None:
        raise not_found
    found.tool = tool
    return found


def describe_tool(*, principal: Principal, name: str, version: str | None) -> ToolDescription:
    """A tool's version with its schemas, and which versions there are.

    Raises:
        ToolNotFound: there is none, or the principal may not see it.
    """
    found = _get_tool_version(principal=principal, name=name, version=version)
    timeout = found.timeout_seconds
    return ToolDescription(
        name=found.tool.name,
        version=found.version,
        description=found.description,
        input_schema=found.input_schema,
        output_schema=found.output_schema,
        capabilities=found.capabilities,
        idempotent=found.is_idempotent,
        timeout_ms=None if timeout is None else int(timeout * 1000),
        state=get_wire_state(found),
        state_reason=found.tool.disabled_reason or found.state_reason,
        labels=found.tool.labels,
        security_level=get_demanded_level(found.tool.minimum_level, found.minimum_level),
        definition_hash=found.definition_hash,
        versions=[
            VersionSummary(
                version=row.version, state=row.state, definition_hash=row.definition_hash, created_at=row.created_at
            )
            for row in found.tool.versions.order_by("-created_at")[:_LIST_CHUNK]
        ],
    )


def list_tools(
    *,
    principal: Principal,
    capability: str | None,
    query: str | None,
    state: str | None,
    cursor: str | None,
    limit: int,
) -> ToolPage:
    """The tools that the principal may see, by name; the cursor is the last name of the page before."""
    page: list[ToolSummary] = []
    for version in _iterate_current(query=query, after=cursor or ""):
        name = version.tool.name
        wire_state = get_wire_state(version)
        if not may_view_tool(principal=principal, tool=version.tool) or (state is not None and state != wire_state):
            continue
        if capability is not None and capability not in version.capabilities:
            continue
        if len(page) == limit:
            return ToolPage(tools=page, next_cursor=page[-1].name)
        page.append(
            ToolSummary(
                name=name,
                version=version.version,
                description=version.description,
                capabilities=version.capabilities,
                idempotent=version.is_idempotent,
                state=wire_state,
                labels=version.tool.labels,
                security_level=get_demanded_level(version.tool.minimum_level, version.minimum_level),
            )
        )
    return ToolPage(tools=page, next_cursor=None)


def get_wire_state(version: ToolVersion) -> str:
    """The version's state as callers see it: its tool's switch first."""
    if version.tool.state == Tool.State.DISABLED:
        return "disabled"
    return "enabled" if version.state == ToolVersion.State.AVAILABLE else version.state


def may_view_tool(*, principal: Principal, tool: Tool) -> bool:
    """Whether the principal may know of the tool."""
    return ports.get_authorizer().is_allowed(
        principal=principal, action=VIEW_TOOLS, resource=make_tool_resource(name=tool.name, labels=tool.labels)
    )


def make_tool_resource(*, name: str, labels: Sequence[str], levels: Sequence[str] = ()) -> Resource:
    """The tool as policy knows it; ``levels`` are those that are demanded for the action, empty for none."""
    level = get_demanded_level(*levels)
    return Resource(
        kind="tool",
        name=name,
        labels=frozenset(labels),
        minimum_level=SecurityLevel.LOW if level is None else SecurityLevel(level),
    )


def find_tool_resource(name: str, action: str) -> Resource | None:
    """The tool as policy meets it when this action is asked for; ``None``: there is none."""
    tool = Tool.objects.select_related("current_version").filter(name=name).first()
    if tool is None:
        return None
    is_run = action == EXECUTE_TOOLS
    levels = (tool.minimum_level, tool.current_version.minimum_level if tool.current_version else "")
    return make_tool_resource(name=name, labels=tool.labels, levels=levels if is_run else ())


def get_demanded_level(*levels: str) -> str | None:
    """The highest of the levels; ``None`` where all are empty."""
    demanded = [SecurityLevel(level) for level in levels if level]
    return max(demanded, key=lambda level: level.rank).value if demanded else None


def _iterate_current(*, query: str | None, after: str) -> Iterator[ToolVersion]:
    rows: QuerySet[Tool] = Tool.objects.select_related("current_version").exclude(current_version=None)
    if query:
        rows = rows.filter(Q(name__icontains=query) | Q(current_version__description__icontains=query))
    while chunk := list(rows.filter(name__gt=after).order_by("name")[:_LIST_CHUNK]):
        for tool in chunk:
            version = tool.current_version
            if version is not None:
                version.tool = tool
                yield version
        after = chunk[-1].name
