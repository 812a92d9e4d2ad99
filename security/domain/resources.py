"""The kinds of resources that patterns name: a registry, so that explanations and the docs know what there is.

An app that has a kind registers it in its ``AppConfig.ready``. How a resource is found is the app's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protocol.ports import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """One kind of resource."""

    name: str
    summary: str
    """What its name is, and who owns one."""
    example: str
    find: Callable[[str, str], Resource | None] | None = None
    """The resource of this name as this action meets it, with its labels, owner and demanded level; it may query."""


_kinds: dict[str, ResourceKind] = {}


def register_resource_kind(kind: ResourceKind) -> None:
    """Take another kind; the same one again changes nothing.

    Raises:
        ValueError: the name is another kind's.
    """
    if _kinds.get(kind.name, kind) != kind:
        raise ValueError(f"The resource kind {kind.name!r} is there already.")
    _kinds[kind.name] = kind


def get_resource_kinds() -> Mapping[str, ResourceKind]:
    return MappingProxyType(_kinds)
