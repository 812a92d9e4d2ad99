"""The connection's states (protocol.md section 3) and close codes (section 8), as tables.

The docs' pictures and the tests are made from these tables; nothing else decides whether a message is expected.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protocol.domain.messages import MessageType


class State(enum.StrEnum):
    CONNECTING = "connecting"
    HANDSHAKING = "handshaking"
    AUTHENTICATING = "authenticating"
    SYNCHRONIZING = "synchronizing"
    READY = "ready"
    DRAINING = "draining"
    CLOSED = "closed"


class Event(enum.StrEnum):
    """What moves a connection from state to state, in the past tense."""

    OPENED = "opened"
    SHOOK_HANDS = "shook_hands"
    AUTHENTICATED = "authenticated"
    SYNCHRONIZED = "synchronized"
    DRAIN_BEGAN = "drain_began"
    ENDED = "ended"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        State.CONNECTING: {Event.OPENED: State.HANDSHAKING, Event.ENDED: State.CLOSED},
        State.HANDSHAKING: {
            Event.SHOOK_HANDS: State.AUTHENTICATING,
            Event.DRAIN_BEGAN: State.DRAINING,
            Event.ENDED: State.CLOSED,
        },
        State.AUTHENTICATING: {
            Event.AUTHENTICATED: State.SYNCHRONIZING,
            Event.DRAIN_BEGAN: State.DRAINING,
            Event.ENDED: State.CLOSED,
        },
        State.SYNCHRONIZING: {
            Event.SYNCHRONIZED: State.READY,
            Event.DRAIN_BEGAN: State.DRAINING,
            Event.ENDED: State.CLOSED,
        },
        State.READY: {Event.DRAIN_BEGAN: State.DRAINING, Event.ENDED: State.CLOSED},
        State.DRAINING: {Event.ENDED: State.CLOSED},
        State.CLOSED: {},
    }
)

EXPECTED: Mapping[State, frozenset[MessageType]] = MappingProxyType(
    {
        State.CONNECTING: frozenset(),
        State.HANDSHAKING: frozenset({MessageType.HANDSHAKE}),
        State.AUTHENTICATING: frozenset({MessageType.AUTHENTICATION, MessageType.HEARTBEAT}),
        State.SYNCHRONIZING: frozenset({MessageType.STATE_SYNC, MessageType.HEARTBEAT}),
        State.READY: frozenset({MessageType.COMMAND, MessageType.AUTHENTICATION, MessageType.HEARTBEAT}),
        # Commands are taken off the wire while draining so that each gets its refusal instead of silence.
        State.DRAINING: frozenset({MessageType.COMMAND, MessageType.HEARTBEAT}),
        State.CLOSED: frozenset(),
    }
)
"""Which types of message each state takes from the client."""


class WrongTransition(Exception):
    """A fault in the server: the table has no such step."""


def get_next_state(state: State, event: Event) -> State:
    """The state that ``event`` leads to.

    Raises:
        WrongTransition: the table has no such step.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise WrongTransition(f"{event} in state {state}") from None


@dataclass(frozen=True, slots=True)
class CloseReason:
    code: int
    meaning: str
    is_resumable: bool


class Close(enum.Enum):
    """Why a WebSocket is closed; section 8's table."""

    ASKED_FOR = CloseReason(1000, "asked for", is_resumable=False)
    RESTARTING = CloseReason(1012, "the server restarts", is_resumable=True)
    FAILED = CloseReason(1011, "the server failed", is_resumable=True)
    TOO_LARGE = CloseReason(1009, "a frame was too large", is_resumable=True)
    PROTOCOL_VIOLATED = CloseReason(4400, "the protocol was violated", is_resumable=True)
    TOKEN_EXPIRED = CloseReason(4401, "the token has expired", is_resumable=True)
    REVOKED = CloseReason(4403, "revoked or denied", is_resumable=False)
    VERSION_UNSUPPORTED = CloseReason(4406, "no common protocol version", is_resumable=False)
    DEADLINE_MISSED = CloseReason(4408, "a deadline or two heartbeats were missed", is_resumable=True)
    TAKEN_OVER = CloseReason(4409, "another connection took the session", is_resumable=False)
    OVERLOADED = CloseReason(4429, "reader too slow, or the server is overloaded", is_resumable=True)

    @property
    def code(self) -> int:
        return self.value.code
