"""The connection's states: the two tables, and that the connection does what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.domain.codec import JSON_CODEC
from protocol.domain.messages import MessageType
from protocol.domain.received import AuthenticationReceived, CommandReceived
from protocol.domain.states import EXPECTED, TRANSITIONS, Close, Event, State, WrongTransition, get_next_state
from tests.wire import CREDENTIALS, HANDSHAKE, Wire, make_ready

LIFE = [
    (State.CONNECTING, Event.OPENED, State.HANDSHAKING),
    (State.HANDSHAKING, Event.SHOOK_HANDS, State.AUTHENTICATING),
    (State.AUTHENTICATING, Event.AUTHENTICATED, State.SYNCHRONIZING),
    (State.SYNCHRONIZING, Event.SYNCHRONIZED, State.READY),
]
DRAINS = [
    (state, Event.DRAIN_BEGAN, State.DRAINING)
    for state in (State.HANDSHAKING, State.AUTHENTICATING, State.SYNCHRONIZING, State.READY)
]
ENDS = [(state, Event.ENDED, State.CLOSED) for state in State if state is not State.CLOSED]
STEPS = {(state, event): target for state, event, target in [*LIFE, *DRAINS, *ENDS]}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_state_and_event_leads_where_the_protocol_says(state: State, event: Event) -> None:
    target = STEPS.get((state, event))
    if target is None:
        with pytest.raises(WrongTransition):
            get_next_state(state, event)
    else:
        assert get_next_state(state, event) is target


def test_the_tables_name_every_state() -> None:
    assert set(TRANSITIONS) == set(EXPECTED) == set(State)


def test_close_codes_are_the_protocols() -> None:
    resumable = {1001, 1006, 1009, 1011, 1012, 4400, 4401, 4408, 4429}
    final = {1000, 4403, 4406, 4409}
    for close in Close:
        assert close.code in (resumable if close.value.is_resumable else final), close
    assert len({close.code for close in Close}) == len(Close)


def reach_handshaking() -> Wire:
    return Wire(codec=JSON_CODEC)


def reach_authenticating() -> Wire:
    wire = Wire(codec=JSON_CODEC)
    wire.shake_hands()
    return wire


def reach_draining() -> Wire:
    wire = make_ready()
    wire.connection.begin_drain()
    return wire


def reach_closed() -> Wire:
    wire = make_ready()
    wire.connection.close(Close.ASKED_FOR)
    return wire


REACH: dict[State, Callable[[], Wire]] = {
    State.HANDSHAKING: reach_handshaking,
    State.AUTHENTICATING: reach_authenticating,
    State.READY: make_ready,
    State.DRAINING: reach_draining,
    State.CLOSED: reach_closed,
}
PAYLOADS: dict[MessageType, dict[str, Any]] = {
    MessageType.COMMAND: {"command": "session.ping", "arguments": {}},
    MessageType.HANDSHAKE: HANDSHAKE,
    MessageType.AUTHENTICATION: CREDENTIALS,
    MessageType.HEARTBEAT: {"ack": 0},
}

UNEXPECTED = "protocol.unexpected_message"
UNSUPPORTED = "protocol.unsupported_type"
UNAUTHENTICATED = "security.authentication_required"

# What the client gets for a well-formed message of each type: a type of message, an error's code, what the caller is
# handed, or nothing at all.
ANSWERS: dict[State, dict[MessageType, object]] = {
    State.HANDSHAKING: {
        MessageType.HANDSHAKE: MessageType.HANDSHAKE,
        MessageType.AUTHENTICATION: UNEXPECTED,
        MessageType.HEARTBEAT: UNEXPECTED,
        MessageType.STATE_SYNC: UNEXPECTED,
        MessageType.COMMAND: UNAUTHENTICATED,
    },
    State.AUTHENTICATING: {
        MessageType.HANDSHAKE: UNEXPECTED,
        MessageType.AUTHENTICATION: AuthenticationReceived,
        MessageType.HEARTBEAT: MessageType.HEARTBEAT,
        MessageType.STATE_SYNC: UNEXPECTED,
        MessageType.COMMAND: UNAUTHENTICATED,
    },
    State.READY: {
        MessageType.HANDSHAKE: UNEXPECTED,
        MessageType.AUTHENTICATION: AuthenticationReceived,
        MessageType.HEARTBEAT: MessageType.HEARTBEAT,
        MessageType.STATE_SYNC: UNEXPECTED,
        MessageType.COMMAND: CommandReceived,
    },
    State.DRAINING: {
        MessageType.HANDSHAKE: UNEXPECTED,
        MessageType.AUTHENTICATION: UNEXPECTED,
        MessageType.HEARTBEAT: MessageType.HEARTBEAT,
        MessageType.STATE_SYNC: UNEXPECTED,
        MessageType.COMMAND: "system.unavailable",
    },
    State.CLOSED: dict.fromkeys(
        [*PAYLOADS, MessageType.STATE_SYNC, MessageType.RESPONSE, MessageType.EVENT, MessageType.ERROR], None
    ),
}


@pytest.mark.parametrize("state", REACH)
@pytest.mark.parametrize("message_type", MessageType)
def test_every_state_answers_every_type(state: State, message_type: MessageType) -> None:
    wire = REACH[state]()
    expected = ANSWERS[state].get(message_type, UNSUPPORTED)
    result = wire.send(message_type.value, PAYLOADS.get(message_type), message_id="asked")
    if isinstance(expected, type):
        assert type(result) is expected
        assert wire.take() == []
        return
    assert result is None or message_type is MessageType.HEARTBEAT
    if expected is None:
        assert wire.take() == []
        return
    answer = wire.take_one()
    assert answer["metadata"]["correlation_id"] == "asked"
    if isinstance(expected, MessageType):
        assert answer["type"] == expected
    else:
        assert answer["type"] == "error"
        assert answer["payload"]["code"] == expected
        assert wire.connection.state is state, "a message that is not allowed changed the state"


def test_a_refused_message_says_what_state_it_met(wire: Wire) -> None:
    wire.send("authentication", CREDENTIALS)
    assert wire.take_error()["details"] == {"state": "handshaking", "type": "authentication"}


@pytest.fixture
def wire() -> Wire:
    return reach_handshaking()
