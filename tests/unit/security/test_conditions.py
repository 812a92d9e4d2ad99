"""The kinds of conditions, and what others may add."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from protocol.domain.addresses import parse_address
from protocol.domain.messages import SecurityLevel
from security.domain.conditions import (
    Circumstances,
    ConditionInvalid,
    Holding,
    check_conditions,
    get_condition_kinds,
    parse_conditions,
    register_condition,
)

THURSDAY = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def judge(
    value: Any,
    *,
    address: str | None = "10.1.2.3",
    level: SecurityLevel = SecurityLevel.STANDARD,
    at: datetime = THURSDAY,
) -> Holding:
    circumstances = Circumstances(address=parse_address(address), security_level=level, at=at)
    return parse_conditions(value).judge(circumstances)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, Holding.HOLDS),
        ({"networks": ["10.0.0.0/8"]}, Holding.HOLDS),
        ({"networks": ["192.0.2.0/24", "::/0"]}, Holding.FAILS),
        ({"networks": ["::ffff:10.0.0.0/104"]}, Holding.HOLDS),
        ({"minimum_level": "standard"}, Holding.HOLDS),
        ({"minimum_level": "high"}, Holding.FAILS),
        ({"networks": ["10.0.0.0/8"], "minimum_level": "high"}, Holding.FAILS),
        ({"networks": ["10.0.0.0/8"], "unheard_of": True}, Holding.UNKNOWN),
        ({"networks": ["192.0.2.0/24"], "unheard_of": True}, Holding.UNKNOWN),
        ({"hours": {"from": "08:00", "to": "12:00"}}, Holding.FAILS),
        ({"hours": {"from": "12:00", "to": "12:01"}}, Holding.HOLDS),
        ({"hours": {"from": "08:00", "to": "18:00", "days": ["mon", "fri"]}}, Holding.FAILS),
        ({"hours": {"from": "13:00", "to": "14:00", "zone": "Europe/Berlin"}}, Holding.HOLDS),
        ({"hours": {"from": "22:00", "to": "13:00", "days": ["wed"]}}, Holding.HOLDS),
        ({"hours": {"from": "22:00", "to": "13:00", "days": ["thu"]}}, Holding.FAILS),
    ],
)
def test_whether_conditions_hold(value: Any, expected: Holding) -> None:
    assert judge(value) is expected


def test_without_an_address_nothing_is_known_of_networks() -> None:
    assert judge({"networks": ["0.0.0.0/0", "::/0"]}, address=None) is Holding.UNKNOWN


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        "networks",
        {"unheard_of": 1},
        {"networks": []},
        {"networks": "10.0.0.0/8"},
        {"networks": [1]},
        {"networks": ["10.0.0.1/8"]},
        {"minimum_level": "higher"},
        {"minimum_level": ["high"]},
        {"hours": {"from": "08:00"}},
        {"hours": {"from": "8:00", "to": "18:00"}},
        {"hours": {"from": "08:00", "to": "24:00"}},
        {"hours": {"from": "08:00", "to": "18:00", "days": []}},
        {"hours": {"from": "08:00", "to": "18:00", "zone": "Moon/Crater"}},
        {"hours": {"from": "08:00", "to": "18:00", "zone": "../../etc/passwd"}},
        {"hours": {"from": "08:00", "to": "18:00", "until": "2027"}},
    ],
)
def test_what_cannot_be_read_is_refused_and_broken_where_it_is_stored(value: Any) -> None:
    with pytest.raises(ConditionInvalid):
        check_conditions(value)
    assert parse_conditions(value).is_broken
    assert judge(value) is Holding.UNKNOWN


@pytest.mark.parametrize("name", sorted(get_condition_kinds()))
def test_every_kind_reads_its_own_example_and_says_it(name: str) -> None:
    kind = get_condition_kinds()[name]
    assert kind.summary
    conditions = check_conditions({name: kind.example})
    assert conditions.describe()
    assert conditions == parse_conditions({name: kind.example})
    assert hash(conditions) == hash(parse_conditions({name: kind.example}))


def test_what_depends_on_the_time_ends_by_the_next_minute() -> None:
    conditions = parse_conditions({"hours": {"from": "08:00", "to": "18:00"}, "networks": ["10.0.0.0/8"]})
    at = THURSDAY + timedelta(seconds=17, microseconds=5)
    assert conditions.get_end(at) == THURSDAY + timedelta(minutes=1)
    assert parse_conditions({"networks": ["10.0.0.0/8"]}).get_end(at) is None


class _Failing:
    def judge(self, circumstances: Circumstances) -> Holding:  # noqa: ARG002  # as the port has it
        raise RuntimeError

    def get_end(self, at: datetime) -> datetime | None:  # noqa: ARG002  # as the port has it
        raise RuntimeError

    def describe(self) -> str:
        return "never"


class _FailingKind:
    name = "failing_for_tests"
    summary = "Fails."
    example = 1

    def parse(self, value: Any) -> _Failing:
        if value != 1:
            raise KeyError(value)
        return _Failing()


def test_another_app_adds_a_kind_whose_defects_open_nothing() -> None:
    register_condition(_FailingKind())
    assert judge({"failing_for_tests": 1}) is Holding.UNKNOWN
    assert parse_conditions({"failing_for_tests": 2}).is_broken
    assert parse_conditions({"failing_for_tests": 1}).get_end(THURSDAY) == THURSDAY
    with pytest.raises(ValueError, match="there already"):
        register_condition(_FailingKind())
