"""The signing key, and whether a token counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.domain.tokens import (
    REUSE_GRACE,
    TokenInvalid,
    TokenState,
    get_expiry,
    get_token_state,
    is_reuse,
    parse_claims,
)

NOW = datetime(2026, 11, 20, 12, 0, 0, 700_000, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("expires_at", "spent_at", "revoked_at", "state"),
    [
        (FUTURE, None, None, TokenState.ACTIVE),
        (NOW, None, None, TokenState.EXPIRED),
        (PAST, PAST, None, TokenState.SPENT),
        (FUTURE, PAST, None, TokenState.SPENT),
        (FUTURE, PAST, PAST, TokenState.REVOKED),
        (PAST, None, PAST, TokenState.REVOKED),
    ],
)
def test_what_a_token_is(
    expires_at: datetime, spent_at: datetime | None, revoked_at: datetime | None, state: TokenState
) -> None:
    assert get_token_state(expires_at=expires_at, spent_at=spent_at, revoked_at=revoked_at, now=NOW) is state


@pytest.mark.parametrize(
    ("after", "expected"),
    [(timedelta(0), False), (REUSE_GRACE, False), (REUSE_GRACE + timedelta(microseconds=1), True)],
)
def test_what_is_a_reuse(after: timedelta, expected: bool) -> None:
    assert is_reuse(spent_at=NOW, now=NOW + after) is expected


@given(
    lifetime=st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=365)),
    left=st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365)),
)
def test_no_token_outlives_its_lifetime_or_its_ground(lifetime: timedelta, left: timedelta | None) -> None:
    ends_at = None if left is None else NOW + left
    expires_at = get_expiry(now=NOW, lifetime=lifetime, ends_at=ends_at)
    assert expires_at <= NOW + lifetime
    assert ends_at is None or expires_at <= ends_at
    assert expires_at.microsecond == 0


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"jti": "x", "sub": "y", "token_type": "access"},
        {"jti": 1, "sub": 2, "token_type": "access"},
        {"jti": "0" * 32, "sub": "0" * 32, "token_type": "sliding"},
        {"jti": None, "sub": None, "token_type": None},
    ],
)
def test_a_payload_of_another_purpose_is_none(payload: dict[str, object]) -> None:
    with pytest.raises(TokenInvalid):
        parse_claims(payload, expires_at=FUTURE)
