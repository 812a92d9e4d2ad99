"""The chain: every event gets its place once, whoever seals and in whatever order transactions commit."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from protocol.ports import Resource
from security import selectors, services
from security.domain.audit_chain import ORIGIN
from security.models import AuditChain, AuditEvent, AuditHead, AuditSeal, UnsealedEvent
from security.services.audit import record_event
from tests.keys import ensure_keys
from tests.threads import run_at_once

strikes = pytest.mark.django_db(transaction=True)
NO_WAIT = timedelta(0)


def record(name: str = "a") -> AuditEvent:
    return record_event(
        action="execution.ended", resource=Resource(kind="execution", name=name), outcome="done", data={"code": 1}
    )


def seal_all() -> int:
    total = 0
    while sealed := services.seal_events():
        total += sealed
    return total


def verify() -> list[str]:
    """What is wrong with the chain now, each with its position."""
    result = selectors.verify_chain(find_key=services.find_audit_key)
    selectors.add_unsealed(result, sealed_before=timezone.now() + timedelta(hours=1))
    return [finding.kind.value for finding in result.findings]


@pytest.mark.django_db
def test_events_are_chained_in_the_order_they_came() -> None:
    events = [record(str(number)) for number in range(5)]
    assert seal_all() == 5
    seals = list(AuditSeal.objects.order_by("position"))
    assert [seal.position for seal in seals] == [1, 2, 3, 4, 5]
    assert [seal.event_id for seal in seals] == [event.id for event in events]
    assert [seal.previous for seal in seals] == [ORIGIN, *(seal.hash for seal in seals[:-1])]
    chain = AuditChain.objects.get()
    assert (chain.position, chain.hash) == (5, seals[-1].hash)
    assert not UnsealedEvent.objects.exists()
    assert verify() == []


@pytest.mark.django_db
def test_again_there_is_nothing_to_do() -> None:
    record()
    assert (services.seal_events(), services.seal_events()) == (1, 0)
    record()
    assert services.seal_events() == 1
    assert verify() == []


@pytest.mark.django_db
def test_more_than_a_batch() -> None:
    for _ in range(services.BATCH + 3):
        record()
    assert services.seal_events() == services.BATCH
    assert services.seal_events() == 3
    assert verify() == []


@pytest.mark.django_db
def test_an_old_event_that_comes_late_is_sealed_all_the_same() -> None:
    """Whatever its id and time say: a transaction that was open for long commits behind the sealer."""
    late = AuditEvent(action="execution.ended", resource_kind="k", resource_name="late", outcome="o")
    record()
    assert seal_all() == 1
    late.save(force_insert=True)
    assert seal_all() == 1
    assert AuditSeal.objects.get(position=2).event_id == late.id


@strikes
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_what_commits_behind_the_sealer_is_sealed() -> None:
    ensure_keys()
    recorded, sealed = threading.Event(), threading.Event()

    def hold_open() -> None:
        try:
            with transaction.atomic():
                record("late")
                recorded.set()
                assert sealed.wait(20)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold_open)
    thread.start()
    assert recorded.wait(20)
    record("early")
    assert seal_all() == 1
    sealed.set()
    thread.join()
    assert seal_all() == 1
    names = AuditSeal.objects.order_by("position").values_list("event__resource_name", flat=True)
    assert list(names) == ["early", "late"]
    assert verify() == []


@strikes
def test_many_sealers_make_one_chain() -> None:
    ensure_keys()
    for _ in range(40):
        record()
    done = run_at_once(lambda: sum(services.seal_events() for _ in range(3)), times=4)
    seal_all()
    assert sum(done) <= 40
    assert list(AuditSeal.objects.order_by("position").values_list("position", flat=True)) == list(range(1, 41))
    assert verify() == []


@strikes
def test_many_signers_make_one_row_of_heads() -> None:
    ensure_keys()
    record()
    seal_all()
    signed = [head for head in run_at_once(lambda: services.sign_chain(interval=NO_WAIT), times=4) if head]
    assert [head.number for head in signed] == [1]
    assert verify() == []


@pytest.mark.django_db
def test_heads_are_signed_at_a_bounded_rate_and_only_of_news() -> None:
    ensure_keys()
    assert services.sign_chain() is None
    record()
    seal_all()
    assert services.sign_chain() is not None
    assert services.sign_chain(interval=NO_WAIT) is None
    record()
    seal_all()
    assert services.sign_chain() is None
    head = services.sign_chain(interval=NO_WAIT)
    assert head is not None
    assert (head.number, head.position) == (2, 2)
    assert list(AuditHead.objects.order_by("number").values_list("position", flat=True)) == [1, 2]
    assert verify() == []


@pytest.mark.django_db
def test_what_is_rolled_back_leaves_no_trace() -> None:
    with transaction.atomic():
        record()
        transaction.set_rollback(True)
    assert not UnsealedEvent.objects.exists()
    assert seal_all() == 0


@pytest.mark.django_db
def test_an_event_that_nobody_seals_is_found() -> None:
    record()
    result = selectors.verify_chain(find_key=services.find_audit_key)
    selectors.add_unsealed(result, sealed_before=timezone.now() - services.SEALED_WITHIN)
    assert result.findings == []
    assert verify() == ["unsealed"]


@pytest.mark.django_db
def test_times_keep_their_microseconds() -> None:
    record()
    seal_all()
    _, event = next(selectors.iterate_seals(first=1, last=1))
    assert event is not None
    stored = AuditEvent.objects.get()
    assert datetime.strptime(str(event["at"]), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) == stored.at


@pytest.mark.django_db
def test_a_head_is_signed_although_the_clock_went_back() -> None:
    ensure_keys()
    record("a")
    seal_all()
    assert services.sign_chain() is not None
    AuditChain.objects.update(head_signed_at=timezone.now() + timedelta(hours=3))
    record("b")
    seal_all()
    assert services.sign_chain() is not None, "the last head's time is in the future"
    record("c")
    seal_all()
    assert services.sign_chain() is None, "it is younger than the interval"
    assert verify() == []
