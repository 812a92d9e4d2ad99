"""Where a client stands in its session's numbered messages, and how much it may owe."""

from __future__ import annotations

from protocol.domain.delivery import MAX_UNACKNOWLEDGED, MAX_UNACKNOWLEDGED_BYTES, Delivery


def send(delivery: Delivery, count: int, *, size_bytes: int = 1) -> None:
    for _ in range(count):
        delivery.record_sent(sequence=delivery.position + 1, size_bytes=size_bytes)


def test_the_position_is_the_last_that_was_sent() -> None:
    delivery = Delivery()
    assert (delivery.position, delivery.acknowledged) == (0, 0)
    send(delivery, 3)
    delivery.acknowledge(2)
    assert (delivery.position, delivery.acknowledged) == (3, 2)


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    delivery = Delivery()
    delivery.acknowledge(5)
    assert delivery.acknowledged == 0
    send(delivery, 2)
    delivery.acknowledge(10**18)
    assert delivery.acknowledged == 2


def test_an_older_acknowledgement_takes_nothing_back() -> None:
    delivery = Delivery()
    send(delivery, 3)
    delivery.acknowledge(3)
    delivery.acknowledge(1)
    assert delivery.acknowledged == 3


def test_a_client_may_owe_so_many_and_no_more() -> None:
    delivery = Delivery()
    send(delivery, MAX_UNACKNOWLEDGED)
    assert not delivery.is_full()
    send(delivery, 1)
    assert delivery.is_full()
    delivery.acknowledge(1)
    assert not delivery.is_full()


def test_a_client_may_owe_so_many_bytes_and_no_more() -> None:
    delivery = Delivery()
    send(delivery, 2, size_bytes=MAX_UNACKNOWLEDGED_BYTES // 2)
    assert not delivery.is_full()
    send(delivery, 1)
    assert delivery.is_full()
    delivery.acknowledge(2)
    assert not delivery.is_full()
