"""Codes of an authenticator app, held to RFC 6238's own vectors, and recovery codes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils.compat import uuid7

from security.domain.second_factor import (
    RECOVERY_LENGTH,
    Requirement,
    find_step,
    get_step,
    hash_recovery_code,
    is_required,
    make_code,
    make_recovery_code,
    make_secret,
    make_uri,
    normalize_code,
)

RFC_SECRET = b"12345678901234567890"
NOW = datetime(2026, 11, 20, 12, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        # Appendix B, its last six digits.
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_the_rfcs(seconds: int, code: str) -> None:
    now = datetime.fromtimestamp(seconds, tz=UTC)
    assert make_code(secret=RFC_SECRET, step=get_step(now=now)) == code
    assert find_step(secret=RFC_SECRET, code=code, now=now, last_step=0) == get_step(now=now)


@pytest.mark.parametrize(("off", "counts"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_clocks_may_be_off_by_one_step(off: int, counts: bool) -> None:
    step = get_step(now=NOW) + off
    code = make_code(secret=RFC_SECRET, step=step)
    assert find_step(secret=RFC_SECRET, code=code, now=NOW, last_step=0) == (step if counts else None)


def test_a_used_step_and_those_before_it_do_not_count_again() -> None:
    step = get_step(now=NOW)
    for before in (step, step + 1):
        code = make_code(secret=RFC_SECRET, step=step)
        assert find_step(secret=RFC_SECRET, code=code, now=NOW, last_step=before) is None
    later = NOW + timedelta(seconds=30)
    assert find_step(secret=RFC_SECRET, code=make_code(secret=RFC_SECRET, step=step + 1), now=later, last_step=step)


@pytest.mark.parametrize(
    "code", ["", "0", "28708", "2870822", "abcdef", "\uff12\uff18\uff17\uff10\uff18\uff12", "\ud800", "287 083"]
)
def test_what_is_no_code_is_none(code: str) -> None:
    now = datetime.fromtimestamp(59, tz=UTC)
    assert find_step(secret=RFC_SECRET, code=code, now=now, last_step=0) is None


def test_what_people_put_between_does_not_matter() -> None:
    now = datetime.fromtimestamp(59, tz=UTC)
    assert find_step(secret=RFC_SECRET, code=" 287 082 ", now=now, last_step=0) == 1
    code = make_recovery_code()
    account = uuid7()
    assert len(normalize_code(code)) == RECOVERY_LENGTH
    written = code.upper().replace("-", " ")
    assert hash_recovery_code(account_id=account, code=written) == hash_recovery_code(account_id=account, code=code)
    assert hash_recovery_code(account_id=uuid7(), code=code) != hash_recovery_code(account_id=account, code=code)


def test_secrets_are_all_different() -> None:
    assert len({make_secret() for _ in range(50)}) == len({make_recovery_code() for _ in range(50)}) == 50


def test_the_address_is_what_apps_read() -> None:
    uri = make_uri(secret=RFC_SECRET, account="anna@mcp", issuer="mcp")
    assert uri.startswith("otpauth://totp/mcp:anna%40mcp?")
    assert "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" in uri
    assert "issuer=mcp" in uri


@pytest.mark.parametrize(
    ("requirement", "of_staff", "of_others"),
    [(Requirement.NONE, False, False), (Requirement.STAFF, True, False), (Requirement.EVERYONE, True, True)],
)
def test_who_must_have_one(requirement: Requirement, of_staff: bool, of_others: bool) -> None:
    assert is_required(requirement=requirement, is_staff=True) is of_staff
    assert is_required(requirement=requirement, is_staff=False) is of_others
