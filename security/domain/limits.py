"""What is limited, for whom, and how much: rules, who falls under them, and the windows of quotas. Pure.

A *rate* is a bucket: so many at once (``burst``), and ``amount`` a period in the long run. A *quota* has a calendar
window in UTC, a day or a month, and is counted in the database. Where rules come from is ``models``', how they are
counted ``services.limiting``'s; the arithmetic of a bucket and of a process's chunk of it is ``chunks``'.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from security.domain.policy import parse_action_pattern

UNLIMITED_COMMANDS: Final = frozenset({"command.cancel", "session.close"})
"""Never counted: who is over a limit must be able to end what runs, and to leave."""
EVERYTHING: Final = "*"


class Scope(enum.StrEnum):
    """Whom a limit is about; each of them has a count of its own."""

    EACH_ACCOUNT = "each_account"
    ACCOUNT = "account"
    API_KEY = "api_key"
    ROLE = "role"
    ADDRESS = "address"
    """Only of the limits that come from settings."""


class Counted(enum.StrEnum):
    """What one token stands for."""

    COMMANDS = "commands"
    RUNS = "runs"
    """Accepted runs of tools."""
    SIGN_INS = "sign_ins"
    CONNECTIONS = "connections"


class Period(enum.StrEnum):
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    @property
    def is_quota(self) -> bool:
        """Whether it is a calendar window, whose count must survive everything but the database's loss."""
        return self in (Period.DAY, Period.MONTH)

    @property
    def seconds(self) -> float:
        """How long it is; of a month the mean."""
        return _SECONDS[self]


_SECONDS: Final = {
    Period.SECOND: 1.0,
    Period.MINUTE: 60.0,
    Period.HOUR: 3600.0,
    Period.DAY: 86_400.0,
    Period.MONTH: 2_629_746.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRule:
    """One limit."""

    id: uuid.UUID
    name: str
    scope: Scope
    target: str = ""
    """The account's or key's id, or the role's name, where the scope is of one."""
    counted: Counted
    pattern: str = EVERYTHING
    """Of the commands' or tools' names."""
    amount: int
    period: Period
    burst: int

    def __post_init__(self) -> None:
        parse_action_pattern(self.pattern)

    def matches(self, name: str) -> bool:
        """Whether it counts the command or tool of this name."""
        return self.pattern == EVERYTHING or parse_action_pattern(self.pattern).matches(name)

    def is_about(self, *, account_id: uuid.UUID, roles: Iterable[str], api_key_id: uuid.UUID | None) -> bool:
        """Whether it is about whoever has this account, these roles, and showed this key or what came of it."""
        match self.scope:
            case Scope.EACH_ACCOUNT:
                return True
            case Scope.ACCOUNT:
                return self.target == str(account_id)
            case Scope.API_KEY:
                return api_key_id is not None and self.target == str(api_key_id)
            case Scope.ROLE:
                return self.target in roles
            case Scope.ADDRESS:
                return False

    def get_subject(self, *, account_id: uuid.UUID) -> str:
        """Whose count it is: a key's own, else the account's."""
        return self.target if self.scope is Scope.API_KEY else str(account_id)


def get_window_start(*, period: Period, now: datetime) -> date:
    """The first day of the quota's window that ``now`` is in (UTC)."""
    today = now.astimezone(UTC).date()
    return today.replace(day=1) if period is Period.MONTH else today


def get_window_end(*, period: Period, now: datetime) -> datetime:
    """When the quota's window ends that ``now`` is in."""
    start = get_window_start(period=period, now=now)
    # The 1st and 32 days is always in the next month.
    following = (start + timedelta(days=32)).replace(day=1) if period is Period.MONTH else start + timedelta(days=1)
    return datetime(following.year, following.month, following.day, tzinfo=UTC)
