"""What the audit record may say: a registry of actions, so that the docs and readers of exports know what there is.

An app registers its actions in its ``AppConfig.ready``, from the one table that it has of them: this app's is
``recorded_actions``. ``services.audit.record_event`` takes no other action, kind of resource or datum. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

ACTION_LENGTH: Final = 100
COMMON_DATA: Final[Mapping[str, str]] = {
    "evidence": "where the act was a signed command: what was signed, the signature and the key, to verify it by",
}
"""What any event's data may hold."""


class UnregisteredEvent(LookupError):
    """Code records what no table says: a mistake in the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditAction:
    """One action of the record."""

    name: str
    summary: str
    """Which act it is; of one that can come to different ends, what the outcomes are."""
    kinds: tuple[str, ...]
    """What kind of resource it is done to; none: of whatever kind was asked for."""
    data: Mapping[str, str] = field(default_factory=dict)
    """What the event's data may hold, and what each is."""


_actions: dict[str, AuditAction] = {}


def register_audit_actions(*actions: AuditAction) -> None:
    """Take these actions; the same ones again change nothing.

    Raises:
        ValueError: a name is another action's, or too long for its column.
    """
    for action in actions:
        if _actions.get(action.name, action) != action:
            raise ValueError(f"The audit action {action.name!r} is there already.")
        if len(action.name) > ACTION_LENGTH:
            raise ValueError(f"The audit action {action.name!r} is longer than {ACTION_LENGTH} characters.")
        _actions[action.name] = action


def get_audit_actions() -> Mapping[str, AuditAction]:
    return MappingProxyType(_actions)


def require_registered(*, action: str, kind: str, data: Set[str]) -> None:
    """See that an event is one that a table has.

    Raises:
        UnregisteredEvent: no table has the action, or it is not done to such a resource, or has no such data.
    """
    found = _actions.get(action)
    if found is None:
        raise UnregisteredEvent(f"No table of audit actions has {action!r}.")
    if found.kinds and kind not in found.kinds:
        raise UnregisteredEvent(f"The audit action {action!r} is not done to a {kind!r}.")
    if not data <= found.data.keys():
        raise UnregisteredEvent(f"The audit action {action!r} has no data {sorted(data - found.data.keys())}.")
