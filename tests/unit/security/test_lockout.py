"""The counters of wrong passwords: how many are allowed, and how they are forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.domain.lockout import (
    ADDRESS_ALLOWANCE,
    NO_ADDRESS,
    PAIR_ALLOWANCE,
    Allowance,
    count_attempt,
    get_retry_after,
    make_address_key,
    make_pair_key,
)

START = datetime(2026, 11, 20, tzinfo=UTC)
GAPS = st.lists(st.integers(min_value=0, max_value=2_000), max_size=60)
ALLOWANCES = st.sampled_from([PAIR_ALLOWANCE, ADDRESS_ALLOWANCE])


def attempt(allowance: Allowance, gaps: list[int]) -> list[datetime]:
    """When the attempts were allowed that came after these pauses, in seconds."""
    clear_at: datetime | None = None
    now, allowed = START, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        if not get_retry_after(allowance=allowance, clear_at=clear_at, now=now):
            clear_at = count_attempt(allowance=allowance, clear_at=clear_at, now=now)
            allowed.append(now)
    return allowed


@pytest.mark.parametrize(("allowance", "attempts"), [(PAIR_ALLOWANCE, 5), (ADDRESS_ALLOWANCE, 50)])
def test_so_many_at_once_are_allowed_and_no_more(allowance: Allowance, attempts: int) -> None:
    assert len(attempt(allowance, [0] * 100)) == attempts


@given(allowance=ALLOWANCES, gaps=GAPS)
def test_in_no_span_are_more_allowed_than_a_burst_and_what_was_forgotten(allowance: Allowance, gaps: list[int]) -> None:
    allowed = attempt(allowance, gaps)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            span = allowed[last] - allowed[first]
            assert last - first + 1 <= allowance.attempts + span // allowance.step


@given(allowance=ALLOWANCES, gaps=GAPS)
def test_who_waits_as_long_as_told_is_let_in_and_not_before(allowance: Allowance, gaps: list[int]) -> None:
    clear_at: datetime | None = None
    now = START
    for gap in gaps:
        now += timedelta(seconds=gap)
        wait = get_retry_after(allowance=allowance, clear_at=clear_at, now=now)
        assert wait <= allowance.step
        if wait:
            almost = now + wait - timedelta(microseconds=1)
            assert get_retry_after(allowance=allowance, clear_at=clear_at, now=almost)
            assert not get_retry_after(allowance=allowance, clear_at=clear_at, now=now + wait)
        else:
            clear_at = count_attempt(allowance=allowance, clear_at=clear_at, now=now)


@given(allowance=ALLOWANCES, gaps=GAPS)
def test_after_a_quarter_of_an_hour_everything_is_forgotten(allowance: Allowance, gaps: list[int]) -> None:
    quarter = 15 * 60
    assert len(attempt(allowance, [*gaps, quarter, *[0] * 60])) - len(attempt(allowance, gaps)) == allowance.attempts


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        (None, NO_ADDRESS),
        ("", NO_ADDRESS),
        ("not an address", NO_ADDRESS),
    ],
)
def test_which_addresses_are_one(address: str | None, key: str) -> None:
    assert make_address_key(address=address) == key


def test_a_names_key_is_of_one_length_hides_it_and_knows_no_case() -> None:
    key = make_pair_key(username="Anna", address_key="::/64")
    assert key == make_pair_key(username="aNNA", address_key="::/64")
    assert key != make_pair_key(username="anna", address_key="192.0.2.7")
    assert "anna" not in key.lower()
    longest = make_address_key(address="2001:0db8:1111:2222:3333:4444:5555:6666")
    for name in ("", "a" * 10_000, "\ud800"):
        assert len(make_pair_key(username=name, address_key=longest)) <= 120
