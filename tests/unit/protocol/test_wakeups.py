"""Wake-ups as they travel: nothing is lost in their form, and one without an address goes nowhere."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from protocol.wakeups import RiddenEvent, Wakeup, decode_wakeup, encode_wakeup, publish

EVENT = RiddenEvent(
    event="execution.progress",
    data={"fraction": 0.5, "message": "é", "position": 2**31},
    correlation_id="m-1",
    feature="progress",
)


@pytest.mark.parametrize(
    "wakeup",
    [
        Wakeup(session_id=uuid.uuid4(), has_outbox=True),
        Wakeup(session_id=uuid.uuid4(), events=(EVENT,)),
        Wakeup(session_id=uuid.uuid4(), events=(EVENT, RiddenEvent(event="e", data={}, correlation_id=None))),
    ],
)
def test_a_wake_up_arrives_as_it_was_sent(wakeup: Wakeup) -> None:
    # The channel layer's encoding is MessagePack too.
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(encode_wakeup(wakeup)))
    assert decode_wakeup(travelled) == wakeup


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"session": b"short", "outbox": True, "events": []},
        {"session": uuid.uuid4().bytes, "outbox": True, "events": [["too", "few"]]},
        {"session": 5, "outbox": True, "events": []},
        {"session": uuid.uuid4().bytes, "outbox": True, "events": None},
    ],
)
def test_what_is_no_wake_up_is_an_error_that_the_hub_expects(message: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_wakeup(message)


def test_a_wake_up_for_nobody_needs_no_broker() -> None:
    publish(channel="", wakeup=Wakeup(session_id=uuid.uuid4(), has_outbox=True))
