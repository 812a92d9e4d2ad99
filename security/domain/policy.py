"""Who may do what: the grammar of patterns, and the decision.

A rule allows or denies actions on resources. An *action pattern* is dotted names (``tools.execute``, ``tools.*``,
``*``); a *resource pattern* is ``kind:name`` (``tool:files.*``, ``execution:*``), with ``@own`` behind it where only
what the principal owns is meant, and ``@label=production`` where only what bears the label is. ``*`` stands for any run
of characters, the empty one too, and is the only wildcard; everything is anchored at both ends.

What belongs here is pure. Where rules come from is ``models``', what a principal carries is ``authorization``'s.
"""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final

from protocol.domain.messages import SecurityLevel
from protocol.ports import Resource
from security.domain.conditions import NO_CONDITIONS, Circumstances, Conditions, Holding

MAX_PATTERN_LENGTH: Final = 200
OWN: Final = "own"
LABEL_PREFIX: Final = "label="

_ACTION_PATTERN: Final = re.compile(r"[a-z0-9_*]+(?:\.[a-z0-9_*]+)*")
_KIND_PATTERN: Final = re.compile(r"[a-z0-9_*]+")
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9._:/*-]+")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")


class PatternInvalid(ValueError):
    """The text is not a pattern of this grammar; the message says why."""


class Effect(enum.StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Reason(enum.StrEnum):
    """Why a decision fell as it did."""

    GRANTED = "granted"
    DENIED = "denied"
    NOT_GRANTED = "not_granted"
    OUT_OF_SCOPE = "out_of_scope"
    LEVEL_TOO_LOW = "level_too_low"
    """It would be allowed at a higher level."""


@dataclass(frozen=True, slots=True)
class _Glob:
    """Literal pieces; between two of them anything may stand."""

    pieces: tuple[str, ...]

    def matches(self, text: str) -> bool:
        # Each middle piece takes its leftmost place: with ``*`` as the only wildcard that never misses a match, and it
        # is done in one pass where a regular expression would backtrack.
        first, last = self.pieces[0], self.pieces[-1]
        if len(self.pieces) == 1:
            return text == first
        position, end = len(first), len(text) - len(last)
        if position > end or not text.startswith(first) or not text.endswith(last):
            return False
        for piece in self.pieces[1:-1]:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True


@dataclass(frozen=True, slots=True)
class ActionPattern:
    _glob: _Glob

    def matches(self, action: str) -> bool:
        return self._glob.matches(action)


@dataclass(frozen=True, slots=True)
class ResourcePattern:
    _kind: _Glob
    _name: _Glob
    is_own_only: bool
    labels: frozenset[str]
    """All of which the resource bears."""

    @property
    def is_everything(self) -> bool:
        """Whether no resource can be outside of it: ``*:*``."""
        return not (self.is_own_only or self.labels or any(self._kind.pieces) or any(self._name.pieces))

    def matches_kind(self, kind: str) -> bool:
        return self._kind.matches(kind)

    def matches(self, resource: Resource, *, principal_id: uuid.UUID) -> bool:
        if self.is_own_only and resource.owner_id != principal_id:
            return False
        return (
            self.labels <= resource.labels and self._kind.matches(resource.kind) and self._name.matches(resource.name)
        )


@lru_cache(maxsize=4096)
def parse_action_pattern(text: str) -> ActionPattern:
    """The pattern that ``text`` writes.

    Raises:
        PatternInvalid: it writes none.
    """
    if len(text) > MAX_PATTERN_LENGTH or not _ACTION_PATTERN.fullmatch(text):
        raise PatternInvalid(
            "An action pattern is names of a-z, 0-9 and _ joined by dots, with * as a wildcard: tools.execute, tools.*."
        )
    return ActionPattern(_parse_glob(text))


@lru_cache(maxsize=4096)
def parse_resource_pattern(text: str) -> ResourcePattern:
    """The pattern that ``text`` writes.

    Raises:
        PatternInvalid: it writes none.
    """
    body, *qualifiers = text.split("@")
    kind, colon, name = body.partition(":")
    labels = [entry.removeprefix(LABEL_PREFIX) for entry in qualifiers if entry.startswith(LABEL_PREFIX)]
    if (
        len(text) > MAX_PATTERN_LENGTH
        or not colon
        or not _KIND_PATTERN.fullmatch(kind)
        or not _NAME_PATTERN.fullmatch(name)
        or len(set(qualifiers)) != len(qualifiers)
        or not set(qualifiers) - {LABEL_PREFIX + label for label in labels} <= {OWN}
        or not all(is_label(label) for label in labels)
    ):
        raise PatternInvalid(
            "A resource pattern is kind:name, with * as a wildcard, and behind it @own for what the account owns and "
            "@label=… for what bears the label: tool:files.*, execution:*@own, tool:*@label=production, *:*."
        )
    return ResourcePattern(_parse_glob(kind), _parse_glob(name), OWN in qualifiers, frozenset(labels))


def is_label(text: str) -> bool:
    """Whether the text can be a resource's label."""
    return _LABEL.fullmatch(text) is not None


def _parse_glob(text: str) -> _Glob:
    return _Glob(tuple(re.sub(r"\*+", "*", text).split("*")))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRule:
    """One grant of a role. A rule that does not parse cannot be made, so that a broken deny is never passed over."""

    effect: Effect
    action_pattern: str
    resource_pattern: str
    conditions: Conditions = NO_CONDITIONS
    minimum_level: SecurityLevel = SecurityLevel.LOW
    """What its role demands. It holds for what is allowed only: or a lower level would get past what is denied."""
    role: str = field(default="", compare=False)
    """Whose grant it is, for telling; it has no say."""

    def __post_init__(self) -> None:
        parse_action_pattern(self.action_pattern)
        parse_resource_pattern(self.resource_pattern)

    def matches_action(self, action: str) -> bool:
        return parse_action_pattern(self.action_pattern).matches(action)

    def matches(self, *, principal_id: uuid.UUID, action: str, resource: Resource) -> bool:
        """Whether it is about this action on this resource, whatever its conditions."""
        return self.matches_action(action) and parse_resource_pattern(self.resource_pattern).matches(
            resource, principal_id=principal_id
        )

    def applies(self, circumstances: Circumstances) -> bool:
        """Whether it counts. What cannot be told, or read, makes an allow count for nothing and a deny for all."""
        holding = self.conditions.judge(circumstances)
        if self.effect is Effect.DENY:
            return holding is not Holding.FAILS
        return holding is Holding.HOLDS and circumstances.security_level.rank >= self.minimum_level.rank

    def reaches_others(self, *, action: str, kind: str) -> bool:
        """Whether it is about this action on resources of this kind, whoever owns them."""
        pattern = parse_resource_pattern(self.resource_pattern)
        return self.matches_action(action) and not pattern.is_own_only and pattern.matches_kind(kind)

    @property
    def always_covers_all_resources(self) -> bool:
        """Whether no resource is outside of it, under no circumstances."""
        is_unconditional = self.conditions.is_empty or self.conditions.is_broken
        return is_unconditional and parse_resource_pattern(self.resource_pattern).is_everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    is_allowed: bool
    reason: Reason
    rule: GrantRule | None
    """The rule that decided; ``None``: there was none for it."""
    demanded_level: SecurityLevel | None = None
    """At which it would be allowed, where the level is all that it lacks."""
    ends_at: datetime | None = None
    """When it has to be decided anew for the same peer; ``None``: never."""


def decide(
    *,
    grants: Sequence[GrantRule],
    principal_id: uuid.UUID,
    action: str,
    resource: Resource,
    scopes: tuple[str, ...],
    circumstances: Circumstances,
) -> Decision:
    """Whether the action is allowed: denied unless a grant allows it, no grant denies it, and the scopes have it.

    A grant counts where its conditions hold. The resource may demand a level itself. ``scopes`` are action patterns
    that narrow what the grants give; empty narrows nothing. The order of ``grants`` has no say, but in which of several
    agreeing rules is named.
    """
    matching = [rule for rule in grants if rule.matches(principal_id=principal_id, action=action, resource=resource)]
    decision = _decide(matching, action, resource, scopes, circumstances)
    if not decision.is_allowed and decision.reason is not Reason.OUT_OF_SCOPE:
        decision = _look_higher(decision, matching, action, resource, scopes, circumstances)
    ends = [end for end in (rule.conditions.get_end(circumstances.at) for rule in matching) if end is not None]
    return replace(decision, ends_at=min(ends)) if ends else decision


def _decide(
    matching: Sequence[GrantRule],
    action: str,
    resource: Resource,
    scopes: tuple[str, ...],
    circumstances: Circumstances,
) -> Decision:
    allowing: GrantRule | None = None
    for rule in matching:
        if not rule.applies(circumstances):
            continue
        if rule.effect is Effect.DENY:
            return Decision(is_allowed=False, reason=Reason.DENIED, rule=rule)
        allowing = allowing or rule
    if allowing is None:
        return Decision(is_allowed=False, reason=Reason.NOT_GRANTED, rule=None)
    if not is_in_scope(scopes=scopes, action=action):
        return Decision(is_allowed=False, reason=Reason.OUT_OF_SCOPE, rule=allowing)
    if circumstances.security_level.rank < resource.minimum_level.rank:
        return Decision(is_allowed=False, reason=Reason.LEVEL_TOO_LOW, rule=allowing)
    return Decision(is_allowed=True, reason=Reason.GRANTED, rule=allowing)


def _look_higher(
    decision: Decision,
    matching: Sequence[GrantRule],
    action: str,
    resource: Resource,
    scopes: tuple[str, ...],
    circumstances: Circumstances,
) -> Decision:
    """The same decision, or that only the level is too low: some higher one would do."""
    for level in SecurityLevel:
        if level.rank <= circumstances.security_level.rank:
            continue
        above = _decide(matching, action, resource, scopes, replace(circumstances, security_level=level))
        if above.is_allowed:
            return Decision(is_allowed=False, reason=Reason.LEVEL_TOO_LOW, rule=above.rule, demanded_level=level)
        if above.reason is not Reason.LEVEL_TOO_LOW and decision.reason is Reason.LEVEL_TOO_LOW:
            # Where the resource would take the level, a condition refuses it: the level is not all that is lacking.
            decision = above
    return decision


def may_ever(*, grants: Sequence[GrantRule], action: str, scopes: tuple[str, ...]) -> bool:
    """Whether there can be a resource on which, and circumstances under which, ``decide`` allows the action.

    ``False`` is certain; ``True`` only says that the resource has to be looked at.
    """
    matching = [rule for rule in grants if rule.matches_action(action)]
    return (
        any(rule.effect is Effect.ALLOW for rule in matching)
        and not any(rule.effect is Effect.DENY and rule.always_covers_all_resources for rule in matching)
        and is_in_scope(scopes=scopes, action=action)
    )


def reaches_others(*, grants: Sequence[GrantRule], action: str, kind: str) -> bool:
    """Whether ``decide`` can allow the action on a resource of the kind that the principal does not own.

    ``False`` is certain; ``True`` only says that each resource has to be looked at.
    """
    return any(rule.effect is Effect.ALLOW and rule.reaches_others(action=action, kind=kind) for rule in grants)


def is_in_scope(*, scopes: tuple[str, ...], action: str) -> bool:
    """Whether one of the scopes has the action; no scopes have all."""
    return not scopes or any(parse_action_pattern(scope).matches(action) for scope in scopes)
