"""The life of a key of the ring: what it is for, and the table of its states.

What belongs here is a decision from facts that are handed in. Making, wrapping and storing keys is done elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final


class KeyPurpose(enum.StrEnum):
    AT_REST = "at_rest"
    """Seals what the database holds in confidence."""
    JWT = "jwt"
    """Signs access and refresh tokens."""
    IDENTITY = "identity"
    """Signs the key agreement of handshakes: the server's identity, which clients may pin."""
    AUDIT = "audit"
    """Signs the heads of the audit chain."""


class KeyAlgorithm(enum.StrEnum):
    AES_256_GCM = "AES-256-GCM"
    ED25519 = "Ed25519"


class RingKeyState(enum.StrEnum):
    PENDING = "pending"
    """Published, so that every node knows it, and not used yet."""
    ACTIVE = "active"
    """What new work is done with: one of each purpose."""
    RETIRING = "retiring"
    """Makes nothing new; what it made is still opened and verified."""
    RETIRED = "retired"
    """Nothing that counts should be left of it."""


class KeyEvent(enum.StrEnum):
    ACTIVATE = "activate"
    REPLACE = "replace"
    RETIRE = "retire"


class TransitionRefused(Exception):
    """The key is in another state than this event needs."""


TRANSITIONS: Final[Mapping[tuple[RingKeyState, KeyEvent], RingKeyState]] = {
    (RingKeyState.PENDING, KeyEvent.ACTIVATE): RingKeyState.ACTIVE,
    (RingKeyState.ACTIVE, KeyEvent.REPLACE): RingKeyState.RETIRING,
    (RingKeyState.RETIRING, KeyEvent.RETIRE): RingKeyState.RETIRED,
}

ALGORITHMS: Final[Mapping[KeyPurpose, KeyAlgorithm]] = {
    KeyPurpose.AT_REST: KeyAlgorithm.AES_256_GCM,
    KeyPurpose.JWT: KeyAlgorithm.ED25519,
    KeyPurpose.IDENTITY: KeyAlgorithm.ED25519,
    KeyPurpose.AUDIT: KeyAlgorithm.ED25519,
}
"""Fixed by the purpose and written into each key: never taken from what a key opens or verifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long the steps of a rotation wait for each other, so that nobody meets a key that it does not know."""

    snapshot_age: timedelta
    """How long a process may go on with the keys that it has read."""
    published_for: timedelta
    """How long a key is pending: longer than a process, or a reader of the published set, goes on with an older one."""
    grace: timedelta
    """After a key was replaced: until then a process that has not read of it may still do its work with it."""


def make_waits(*, seconds: float) -> Waits:
    """The waits of which the longest is this one: a snapshot lives for a third of it at most."""
    longest = timedelta(seconds=seconds)
    return Waits(snapshot_age=longest * 0.3, published_for=longest, grace=longest)


SIGNATURES_COUNT_FOR: Final = timedelta(hours=1)
"""How long a replaced identity or audit key is published as one that counts; a handshake is over by then."""


def get_next_state(*, state: RingKeyState, event: KeyEvent) -> RingKeyState:
    """The state after the event.

    Raises:
        TransitionRefused: the table has no such step.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise TransitionRefused(f"{event} in state {state}") from None


def has_secret(*, purpose: KeyPurpose, state: RingKeyState) -> bool:
    """Whether the secret half is still needed: to open what was sealed always, to sign only until it is replaced."""
    return purpose is KeyPurpose.AT_REST or state in (RingKeyState.PENDING, RingKeyState.ACTIVE)
