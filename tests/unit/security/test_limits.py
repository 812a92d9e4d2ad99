"""Rules: whom a limit is about, what it counts, and the windows of quotas."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from security.domain.limits import Counted, LimitRule, Period, Scope, get_window_end, get_window_start
from security.domain.policy import PatternInvalid

ACCOUNT, KEY, OTHER = uuid.UUID(int=11), uuid.UUID(int=12), uuid.UUID(int=13)


def make_rule(*, scope: Scope = Scope.EACH_ACCOUNT, target: str = "", pattern: str = "*") -> LimitRule:
    return LimitRule(
        id=uuid.UUID(int=1),
        name="rule",
        scope=scope,
        target=target,
        counted=Counted.COMMANDS,
        pattern=pattern,
        amount=10,
        period=Period.MINUTE,
        burst=10,
    )


@pytest.mark.parametrize(
    ("scope", "target", "is_about"),
    [
        (Scope.EACH_ACCOUNT, "", True),
        (Scope.ACCOUNT, str(ACCOUNT), True),
        (Scope.ACCOUNT, str(OTHER), False),
        (Scope.API_KEY, str(KEY), True),
        (Scope.API_KEY, str(OTHER), False),
        (Scope.ROLE, "agent", True),
        (Scope.ROLE, "agents", False),
        (Scope.ADDRESS, "127.0.0.1", False),
    ],
)
def test_whom_a_limit_is_about(scope: Scope, target: str, is_about: bool) -> None:
    rule = make_rule(scope=scope, target=target)
    assert rule.is_about(account_id=ACCOUNT, roles=("viewer", "agent"), api_key_id=KEY) is is_about


def test_who_showed_no_key_falls_under_no_keys_limit() -> None:
    rule = make_rule(scope=Scope.API_KEY, target=str(KEY))
    assert not rule.is_about(account_id=ACCOUNT, roles=(), api_key_id=None)


def test_each_member_of_a_role_has_a_count_of_its_own_and_a_key_one_for_all_its_tokens() -> None:
    assert make_rule(scope=Scope.ROLE, target="agent").get_subject(account_id=ACCOUNT) == str(ACCOUNT)
    assert make_rule(scope=Scope.API_KEY, target=str(KEY)).get_subject(account_id=ACCOUNT) == str(KEY)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "anything at all", True),
        ("tools.*", "tools.execute", True),
        ("tools.*", "my.tools.execute", False),
        ("tools.execute", "tools.executes", False),
    ],
)
def test_patterns_are_anchored(pattern: str, name: str, matches: bool) -> None:
    assert make_rule(pattern=pattern).matches(name) is matches


def test_a_rule_that_does_not_parse_cannot_be_made() -> None:
    with pytest.raises(PatternInvalid):
        make_rule(pattern="tools execute")


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        (Period.DAY, datetime(2026, 2, 28, 23, 59, tzinfo=UTC), date(2026, 2, 28), datetime(2026, 3, 1, tzinfo=UTC)),
        (Period.MONTH, datetime(2026, 12, 31, 12, tzinfo=UTC), date(2026, 12, 1), datetime(2027, 1, 1, tzinfo=UTC)),
        (Period.MONTH, datetime(2028, 2, 29, tzinfo=UTC), date(2028, 2, 1), datetime(2028, 3, 1, tzinfo=UTC)),
        # An hour past midnight east of Greenwich it is still the day before.
        (
            Period.DAY,
            datetime(2026, 6, 2, 1, tzinfo=timezone(timedelta(hours=2))),
            date(2026, 6, 1),
            datetime(2026, 6, 2, tzinfo=UTC),
        ),
    ],
)
def test_quotas_have_calendar_windows_in_utc(period: Period, now: datetime, start: date, end: datetime) -> None:
    assert get_window_start(period=period, now=now) == start
    assert get_window_end(period=period, now=now) == end
