"""The stages of a credential's end on a live connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.expiry import DEFAULT_EXPIRY_TIMES, ExpiryStage, ExpiryTimes, get_expiry_stage

END = datetime(2026, 11, 20, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("offset", "stage"),
    [
        (timedelta(seconds=-60) - MOMENT, ExpiryStage.LASTING),
        (timedelta(seconds=-60), ExpiryStage.EXPIRING),
        (-MOMENT, ExpiryStage.EXPIRING),
        (timedelta(0), ExpiryStage.EXPIRED),
        (timedelta(seconds=30) - MOMENT, ExpiryStage.EXPIRED),
        (timedelta(seconds=30), ExpiryStage.OVER),
    ],
)
def test_the_stages_begin_and_end_where_the_protocol_says(offset: timedelta, stage: ExpiryStage) -> None:
    assert get_expiry_stage(expires_at=END, now=END + offset, times=DEFAULT_EXPIRY_TIMES) is stage


def test_what_does_not_end_is_always_lasting() -> None:
    assert get_expiry_stage(expires_at=None, now=END, times=DEFAULT_EXPIRY_TIMES) is ExpiryStage.LASTING


SPANS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1))


@given(first=SPANS, second=SPANS, warning=SPANS, closing=SPANS)
def test_the_stages_only_ever_go_on(
    first: timedelta, second: timedelta, warning: timedelta, closing: timedelta
) -> None:
    times = ExpiryTimes(warning=warning, closing=closing)
    order = list(ExpiryStage)
    early, late = sorted([first, second])
    stages = [
        order.index(get_expiry_stage(expires_at=END, now=END - timedelta(hours=12) + offset, times=times))
        for offset in (early, late)
    ]
    assert stages == sorted(stages)
