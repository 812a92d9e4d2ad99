"""What is counted together, what waits and what is too much, by a clock of the test's own."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.messages import SecurityLevel
from protocol.ports import Denial, Door, Principal
from security.domain import denials
from security.domain.denials import CEILING, MAX_WAITING_A_SOURCE, DenialLedger, Group, LedgerFull


def make_denial(
    address: str = "192.0.2.1", code: str = "security.access_denied", account: uuid.UUID | None = None
) -> Denial:
    principal = None
    if account is not None:
        principal = Principal(
            id=account,
            name="agent",
            roles=(),
            security_level_max=SecurityLevel.STANDARD,
            credential_id=account,
            expires_at=None,
        )
    return Denial(
        code=code, door=Door.HTTP, remote_address=address, principal=principal, kind="command", subject="tools.execute"
    )


def add(ledger: DenialLedger, denial: Denial, now: float) -> Future[None]:
    waiter: Future[None] = Future()
    ledger.add(denial, waiter, now=now)
    return waiter


def take_counts(ledger: DenialLedger, now: float) -> list[int]:
    return [group.count for group in ledger.take(now=now)]


def test_the_first_of_a_source_is_due_at_once_and_the_next_a_second_later_as_one() -> None:
    ledger = DenialLedger()
    first = add(ledger, make_denial(), 10.0)
    assert ledger.get_next_due() == 10.0
    (group,) = ledger.take(now=10.0)
    assert group.waiting == [first]
    later = [add(ledger, make_denial(), now) for now in (10.1, 10.5, 10.9)]
    assert ledger.get_next_due() == 11.0
    assert ledger.take(now=10.99) == []
    (group,) = ledger.take(now=11.0)
    assert (group.count, group.waiting) == (3, later)
    assert ledger.get_next_due() is None


def test_a_source_that_was_quiet_for_a_second_is_due_at_once_again() -> None:
    ledger = DenialLedger()
    add(ledger, make_denial(), 10.0)
    ledger.take(now=10.0)
    add(ledger, make_denial(), 11.5)
    assert take_counts(ledger, 11.5) == [1]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (make_denial("192.0.2.1"), make_denial("192.0.2.1", code="security.rate_limited"), True),
        (make_denial("192.0.2.1"), make_denial("192.0.2.2"), False),
        (make_denial("2001:db8::1"), make_denial("2001:db8::ffff:1"), True),
        (make_denial("2001:db8::1"), make_denial("2001:db8:0:1::1"), False),
        (make_denial("192.0.2.1"), make_denial("::ffff:192.0.2.1"), True),
        (make_denial("192.0.2.1", account=uuid.UUID(int=1)), make_denial("192.0.2.2", account=uuid.UUID(int=1)), True),
        (make_denial("192.0.2.1", account=uuid.UUID(int=1)), make_denial("192.0.2.1"), False),
    ],
)
def test_who_is_one_source(one: Denial, other: Denial, is_same: bool) -> None:
    assert (denials.get_source(one) == denials.get_source(other)) is is_same


def test_beyond_the_ceiling_sources_are_counted_together_in_the_next_second() -> None:
    ledger = DenialLedger()
    for number in range(CEILING + 30):
        add(ledger, make_denial(f"192.0.2.{number}", account=uuid.uuid4()), 10.0)
    assert take_counts(ledger, 10.0) == [1] * CEILING
    assert ledger.get_next_due() == 11.0
    for number in range(20):
        add(ledger, make_denial(f"198.51.100.{number}"), 10.5)
    assert ledger.take(now=10.5) == []
    (crowd,) = ledger.take(now=11.0)
    assert (crowd.count, crowd.source_count, crowd.principal) == (50, 50, None)
    assert len(crowd.waiting) == 50
    assert len(crowd.addresses) == denials.MAX_EXAMPLES


def test_one_source_cannot_take_the_room_of_all_to_wait() -> None:
    ledger = DenialLedger()
    for _ in range(MAX_WAITING_A_SOURCE):
        add(ledger, make_denial(), 10.0)
    with pytest.raises(LedgerFull):
        add(ledger, make_denial(), 10.0)
    add(ledger, make_denial("192.0.2.2"), 10.0)
    assert take_counts(ledger, 10.0) == [MAX_WAITING_A_SOURCE, 1]


def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "MAX_WAITING", 5)
    ledger = DenialLedger()
    for number in range(5):
        add(ledger, make_denial(f"192.0.2.{number}"), 10.0)
    with pytest.raises(LedgerFull):
        add(ledger, make_denial("192.0.2.9"), 10.0)
    ledger.take(now=10.0)
    add(ledger, make_denial("192.0.2.9"), 10.0)


@given(arrivals=st.lists(st.tuples(st.floats(0, 0.3, allow_nan=False), st.integers(0, 120)), min_size=1, max_size=300))
def test_every_denial_is_counted_once_and_writes_are_bounded(arrivals: list[tuple[float, int]]) -> None:
    ledger, now = DenialLedger(), 100.0
    waiters: list[Future[None]] = []
    taken: list[tuple[float, Group]] = []
    for pause, source in arrivals:
        now += pause
        waiters.append(add(ledger, make_denial(f"192.0.2.{source}"), now))
        taken += [(now, group) for group in ledger.take(now=now)]
    while (due := ledger.get_next_due()) is not None:
        now = max(now, due)
        taken += [(now, group) for group in ledger.take(now=now)]
    told = [waiter for _, group in taken for waiter in group.waiting]
    assert len(told) == len(set(map(id, told))) == len(waiters) == sum(group.count for _, group in taken)
    for start, _ in taken:
        events = [at for at, _ in taken if start <= at < start + 1.0]
        # Of two windows that a second overlaps, with a crowd in each.
        assert len(events) <= 2 * (CEILING + 1)
    by_source: dict[str, list[float]] = {}
    for at, group in taken:
        if group.source_count == 1:
            by_source.setdefault(str(group.first.remote_address), []).append(at)
    for times in by_source.values():
        assert all(later - earlier >= 0.999 for earlier, later in itertools.pairwise(times))


def test_what_nobody_waits_for_is_counted_with_the_rest() -> None:
    ledger = DenialLedger()
    add(ledger, make_denial(), 10.0)
    assert take_counts(ledger, 10.0) == [1]
    for _ in range(MAX_WAITING_A_SOURCE * 2):
        ledger.add(make_denial(code="security.rate_limited"), None, now=10.1)
    waiter = add(ledger, make_denial(), 10.2)
    (group,) = ledger.take(now=11.0)
    assert group.codes == {"security.rate_limited": MAX_WAITING_A_SOURCE * 2, "security.access_denied": 1}
    assert group.waiting == [waiter]


def test_no_more_sources_are_kept_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "MAX_WAITING", 3)
    ledger = DenialLedger()
    for number in range(3):
        ledger.add(make_denial(f"192.0.2.{number}"), None, now=1.0)
    with pytest.raises(LedgerFull):
        ledger.add(make_denial("192.0.2.9"), None, now=1.0)
    ledger.add(make_denial("192.0.2.1"), None, now=1.0)
