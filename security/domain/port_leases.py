"""A port lease's states and steps, as one table. Docs and tests are made from it; no clock, no database.

A lease is *reserved* when it is given, *active* once its port was seen in use, *draining* from its end until the port
is free again, and then *released*. While it is not released nobody else gets the port.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class LeaseState(enum.StrEnum):
    RESERVED = "reserved"
    ACTIVE = "active"
    DRAINING = "draining"
    RELEASED = "released"


class LeaseEvent(enum.StrEnum):
    """What moves a lease from state to state, in the past tense."""

    SEEN_IN_USE = "seen_in_use"
    """Something on the lease's host uses the port."""
    ENDED = "ended"
    """By its holder, its time, an operator, or the end of the session or run that it was for."""
    PORT_LEFT = "port_left"
    """The port is free again, or was put into quarantine."""


TRANSITIONS: Mapping[LeaseState, Mapping[LeaseEvent, LeaseState]] = MappingProxyType(
    {
        LeaseState.RESERVED: {LeaseEvent.SEEN_IN_USE: LeaseState.ACTIVE, LeaseEvent.ENDED: LeaseState.DRAINING},
        LeaseState.ACTIVE: {LeaseEvent.ENDED: LeaseState.DRAINING},
        LeaseState.DRAINING: {LeaseEvent.PORT_LEFT: LeaseState.RELEASED},
        LeaseState.RELEASED: {},
    }
)


def list_sources(event: LeaseEvent) -> tuple[LeaseState, ...]:
    """The states that the event leads out of; every update of a row names them."""
    return tuple(state for state, steps in TRANSITIONS.items() if event in steps)


HELD_STATES: Final = list_sources(LeaseEvent.ENDED)
"""Of a lease that its holder has."""
LIVE_STATES: Final = tuple(state for state, steps in TRANSITIONS.items() if steps)
"""Of a lease whose port nobody else gets."""


class EndReason(enum.StrEnum):
    """Why a lease ended."""

    RELEASED = "released"
    DRAINED = "drained"
    EXPIRED = "expired"
    SESSION_ENDED = "session_ended"
    EXECUTION_ENDED = "execution_ended"


class HolderKind(enum.StrEnum):
    """What a lease is held for; it ends with it."""

    ACCOUNT = "account"
    SESSION = "session"
    EXECUTION = "execution"


class QuarantineReason(enum.StrEnum):
    """Why a port is given to nobody for a time."""

    HELD = "held"
    """Something that has no lease of it uses it."""
    STILL_HELD = "still_held"
    """Its lease ended, and it was not given up in time."""
    FORBIDDEN = "forbidden"
    """The operating system does not let the server use it."""
