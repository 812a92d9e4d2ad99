"""Conditions of grants: under which circumstances a rule counts, and the registry of their kinds.

A kind is pure: it reads a value, decides by the circumstances, and says itself in words. An app adds one by
``register_condition`` in its ``AppConfig.ready``. What an unknown or broken condition means is decided here once: an
allow that carries one never applies, a deny always does, so that no mistake opens anything.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from protocol.domain.addresses import Address
from protocol.domain.messages import SecurityLevel
from security.domain.addresses import Network, NetworkInvalid, is_in_any, parse_network

MAX_CONDITIONS: Final = 10
MAX_NETWORKS: Final = 100
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


class ConditionInvalid(ValueError):
    """The value is none of this kind's; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """From where, how and when something is asked."""

    address: Address | None
    """``None``: it is not known, or the peer has none."""
    security_level: SecurityLevel
    at: datetime


class Holding(enum.Enum):
    """Whether something holds."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"
    """It cannot be told: an allow does not count then, a deny does."""


class Condition(Protocol):
    """One condition with its value. Hashable, and equal to another with the same value."""

    def judge(self, circumstances: Circumstances) -> Holding: ...

    def get_end(self, at: datetime) -> datetime | None:
        """Until when what ``judge`` says stays the same for the same peer; ``None``: for ever."""

    def describe(self) -> str:
        """In words, behind "only": ``from 10.0.0.0/8``."""


class ConditionKind(Protocol):
    """What ``conditions`` may hold under one name."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def example(self) -> Any:
        """A value that can be read, as JSON."""

    def parse(self, value: Any) -> Condition:
        """The condition of this value.

        Raises:
            ConditionInvalid: it is none.
        """


@dataclass(frozen=True, slots=True)
class FromNetworks:
    networks: tuple[Network, ...]

    def judge(self, circumstances: Circumstances) -> Holding:
        if circumstances.address is None:
            return Holding.UNKNOWN
        is_inside = is_in_any(address=circumstances.address, networks=self.networks)
        return Holding.HOLDS if is_inside else Holding.FAILS

    def get_end(self, at: datetime) -> datetime | None:  # noqa: ARG002  # a connection's address stays
        return None

    def describe(self) -> str:
        return "from " + " or ".join(map(str, self.networks))


@dataclass(frozen=True, slots=True)
class AtLevel:
    level: SecurityLevel

    def judge(self, circumstances: Circumstances) -> Holding:
        return Holding.HOLDS if circumstances.security_level.rank >= self.level.rank else Holding.FAILS

    def get_end(self, at: datetime) -> datetime | None:  # noqa: ARG002  # a connection's level stays
        return None

    def describe(self) -> str:
        return f"at the level {self.level.value} or above"


@dataclass(frozen=True, slots=True)
class WithinHours:
    """From ``start`` up to ``end`` on these days, in this zone; past midnight where ``end`` is not later."""

    start: time
    end: time
    days: tuple[int, ...]
    """Monday is 0; the day on which it begins."""
    zone: str

    def judge(self, circumstances: Circumstances) -> Holding:
        local = circumstances.at.astimezone(ZoneInfo(self.zone))
        clock = local.time().replace(tzinfo=None)
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        if self.start < self.end:
            is_inside = self.start <= clock < self.end and today in self.days
        else:
            is_inside = (clock >= self.start and today in self.days) or (clock < self.end and yesterday in self.days)
        return Holding.HOLDS if is_inside else Holding.FAILS

    def get_end(self, at: datetime) -> datetime | None:
        # Its ends are whole minutes in every zone of today.
        return at.replace(second=0, microsecond=0) + timedelta(minutes=1)

    def describe(self) -> str:
        days = "every day" if len(self.days) == len(DAYS) else " ".join(DAYS[day] for day in self.days)
        return f"from {self.start:%H:%M} to {self.end:%H:%M} ({self.zone}), {days}"


class _Networks:
    name = "networks"
    summary = "A list of networks: the peer's address is in one of them."
    example: ClassVar[Any] = ["10.0.0.0/8", "2001:db8::/32"]

    def parse(self, value: Any) -> Condition:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_NETWORKS:
            raise ConditionInvalid(f"networks is a list of 1 to {MAX_NETWORKS} networks.")
        if not all(isinstance(text, str) for text in value):
            raise ConditionInvalid("networks holds texts such as 10.0.0.0/8.")
        try:
            return FromNetworks(tuple(parse_network(text) for text in value))
        except NetworkInvalid as error:
            raise ConditionInvalid(str(error)) from error


class _MinimumLevel:
    name = "minimum_level"
    summary = "A security level: the connection has it, or a higher one."
    example: ClassVar[Any] = SecurityLevel.HIGH.value

    def parse(self, value: Any) -> Condition:
        try:
            return AtLevel(SecurityLevel(value))
        except ValueError as error:
            levels = ", ".join(level.value for level in SecurityLevel)
            raise ConditionInvalid(f"minimum_level is one of {levels}.") from error


class _Hours:
    name = "hours"
    summary = (
        "`from` and `to` as `HH:MM`, with `days` (all by default; of a span past midnight the day on which it begins) "
        "and a time `zone` (`UTC` by default): now is within them."
    )
    example: ClassVar[Any] = {"from": "08:00", "to": "18:00", "days": ["mon", "fri"], "zone": "UTC"}

    def parse(self, value: Any) -> Condition:
        if not isinstance(value, Mapping) or not {"from", "to"} <= set(value) <= {"from", "to", "days", "zone"}:
            raise ConditionInvalid("hours is an object with from and to, and may have days and zone.")
        days, zone = value.get("days", DAYS), value.get("zone", "UTC")
        if not isinstance(days, list | tuple) or not days or not all(day in DAYS for day in days):
            raise ConditionInvalid(f"days is a list of {', '.join(DAYS)}.")
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
            raise ConditionInvalid("zone is the name of a time zone, as Europe/Berlin.") from error
        numbers = tuple(sorted({DAYS.index(day) for day in days}))
        return WithinHours(_parse_time(value["from"]), _parse_time(value["to"]), numbers, zone)


def _parse_time(text: Any) -> time:
    found = _CLOCK_TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConditionInvalid("A time is HH:MM, from 00:00 to 23:59.")
    return time(int(found[1]), int(found[2]))


_kinds: dict[str, ConditionKind] = {}


def register_condition(kind: ConditionKind) -> None:
    """Take another kind, for every grant from now on.

    Raises:
        ValueError: the name is taken, or the kind's own example cannot be read.
    """
    if kind.name in _kinds:
        raise ValueError(f"The condition {kind.name!r} is there already.")
    kind.parse(kind.example)
    _kinds[kind.name] = kind


def get_condition_kinds() -> Mapping[str, ConditionKind]:
    return MappingProxyType(_kinds)


for _kind in (_Networks(), _MinimumLevel(), _Hours()):
    register_condition(_kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All conditions of one grant; each must hold."""

    conditions: tuple[Condition, ...] = ()
    is_broken: bool = False
    """Whether one of them is unknown or cannot be read."""

    @property
    def is_empty(self) -> bool:
        return not self.conditions and not self.is_broken

    def judge(self, circumstances: Circumstances) -> Holding:
        if self.is_broken:
            return Holding.UNKNOWN
        found = {_ask(condition, circumstances) for condition in self.conditions}
        if Holding.FAILS in found:
            return Holding.FAILS
        return Holding.UNKNOWN if Holding.UNKNOWN in found else Holding.HOLDS

    def get_end(self, at: datetime) -> datetime | None:
        """Until when ``judge`` says the same for the same peer; ``None``: for ever."""
        ends = [end for end in (_ask_end(condition, at) for condition in self.conditions) if end is not None]
        return min(ends, default=None)

    def describe(self) -> str:
        """In words; empty where there are none."""
        words = [condition.describe() for condition in self.conditions]
        if self.is_broken:
            words.append("under a condition that this server cannot read")
        return " and ".join(words)


NO_CONDITIONS: Final = Conditions()


def _ask(condition: Condition, circumstances: Circumstances) -> Holding:
    try:
        return condition.judge(circumstances)
    except Exception:  # noqa: BLE001  # another app's code: whatever fails in it opens nothing
        return Holding.UNKNOWN


def _ask_end(condition: Condition, at: datetime) -> datetime | None:
    try:
        return condition.get_end(at)
    except Exception:  # noqa: BLE001  # another app's code: then nothing is remembered
        return at


def parse_conditions(value: Any) -> Conditions:
    """The conditions that a stored value writes; what cannot be read makes them broken, and nothing is raised."""
    if not isinstance(value, Mapping):
        return Conditions(is_broken=True)
    parsed: list[Condition] = []
    is_broken = False
    for name, given in sorted(value.items()):
        kind = _kinds.get(name)
        try:
            if kind is None:
                is_broken = True
            else:
                parsed.append(kind.parse(given))
        except Exception:  # noqa: BLE001  # another app's code: whatever fails in it opens nothing
            is_broken = True
    return Conditions(conditions=tuple(parsed), is_broken=is_broken)


def check_conditions(value: Any) -> Conditions:
    """The conditions of a value that somebody wants to store.

    Raises:
        ConditionInvalid: it is no object, a name is unknown, or a value cannot be read.
    """
    if not isinstance(value, Mapping) or len(value) > MAX_CONDITIONS:
        raise ConditionInvalid(f"Conditions are an object of at most {MAX_CONDITIONS} of them.")
    for name, given in value.items():
        if name not in _kinds:
            raise ConditionInvalid(f"There is no condition {name!r}; there are {', '.join(sorted(_kinds))}.")
        _kinds[name].parse(given)
    return parse_conditions(value)
