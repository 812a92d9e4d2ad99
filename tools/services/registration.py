"""Bringing the tools that installed apps declare into the database, where everyone else reads them.

A version is registered once: the same name and version with another definition is quarantined, not overwritten, so
that what an operator saw under that version is what runs under it.
"""

from __future__ import annotations

import logging
from collections import defaultdict

from django.db import transaction
from msgspec import Struct

from protocol.ports import Resource
from security.services import audit
from tools.adapters.python import autodiscover
from tools.authoring import get_declared_tools
from tools.domain.specification import ToolSpecification, get_latest_version
from tools.models import Tool, ToolVersion

logger = logging.getLogger(__name__)

REGISTER_TOOLS = "tools.register"
QUARANTINE_TOOLS = "tools.quarantine"
CODE_MISSING = "No installed app declares it."
CODE_ADAPTER = "python"


class Synchronised(Struct, frozen=True, kw_only=True):
    """What one synchronisation changed, as ``name@version``."""

    added: list[str]
    quarantined: list[str]
    missing: list[str]


def synchronise_tools() -> Synchronised:
    """Register what the installed apps declare, mark what none declares any more. Again, it changes nothing."""
    autodiscover()
    declared: dict[str, list[ToolSpecification]] = defaultdict(list)
    for specification in get_declared_tools().values():
        declared[specification.name].append(specification)
    result = Synchronised(added=[], quarantined=[], missing=[])
    with transaction.atomic():
        for name in sorted(declared):
            tool, _ = Tool.objects.get_or_create(name=name)
            for specification in declared[name]:
                register_version(tool=tool, specification=specification, result=result)
        withdraw_missing(declared={item.reference for items in declared.values() for item in items}, result=result)
        for tool in Tool.objects.prefetch_related("versions"):
            choose_current_version(tool)
    for reference in result.quarantined:
        logger.error("%s is quarantined: its definition changed; give the change a new version", reference)
    return result


def register_version(*, tool: Tool, specification: ToolSpecification, result: Synchronised) -> None:
    """Add the version, or compare it with what was registered under its name."""
    version, is_new = ToolVersion.objects.get_or_create(
        tool=tool,
        version=specification.version,
        defaults={
            "description": specification.description,
            "input_schema": specification.input_schema,
            "output_schema": specification.output_schema,
            "capabilities": list(specification.capabilities),
            "is_idempotent": specification.is_idempotent,
            "timeout_seconds": specification.timeout_seconds,
            "minimum_level": specification.minimum_level or "",
            "adapter": specification.adapter,
            "entry_point": specification.entry_point,
            "needs_port": specification.needs_port,
            "definition_hash": specification.definition_hash,
        },
    )
    if is_new:
        result.added.append(specification.reference)
        record_definition(specification, action=REGISTER_TOOLS, outcome="registered")
    elif version.definition_hash != specification.definition_hash:
        reason = "The code's definition differs from the one registered; give the change a new version."
        if set_state(version, ToolVersion.State.QUARANTINED, reason):
            record_definition(specification, action=QUARANTINE_TOOLS, outcome="quarantined")
        result.quarantined.append(specification.reference)
    else:
        set_state(version, ToolVersion.State.AVAILABLE, "")


def withdraw_missing(*, declared: set[str], result: Synchronised) -> None:
    """Mark the versions whose code is gone."""
    for version in ToolVersion.objects.select_related("tool").filter(adapter=CODE_ADAPTER):
        if str(version) not in declared:
            set_state(version, ToolVersion.State.UNAVAILABLE, CODE_MISSING)
            result.missing.append(str(version))


def choose_current_version(tool: Tool) -> None:
    """Make the highest available version current; where none is available, the highest there is, so that it is seen."""
    versions = list(tool.versions.all())
    if not versions:
        return
    available = [version for version in versions if version.state == ToolVersion.State.AVAILABLE] or versions
    latest = get_latest_version(version.version for version in available)
    current = next(version for version in available if version.version == latest)
    if tool.current_version_id != current.id:
        Tool.objects.filter(id=tool.id).update(current_version=current)


def set_state(version: ToolVersion, state: ToolVersion.State, reason: str) -> bool:
    """Change the state and nothing else of the version; ``False`` where it is the same."""
    if (version.state, version.state_reason) == (state, reason):
        return False
    ToolVersion.objects.filter(id=version.id).update(state=state, state_reason=reason)
    return True


def record_definition(specification: ToolSpecification, *, action: str, outcome: str) -> None:
    """Put a new or changed definition into the audit record, inside the caller's transaction."""
    audit.record_event(
        action=action,
        resource=Resource(kind="tool", name=specification.name),
        outcome=outcome,
        data={"version": specification.version, "definition_hash": specification.definition_hash},
    )
