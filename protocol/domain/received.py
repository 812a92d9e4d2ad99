"""What a connection makes of a message that somebody else has to act upon."""

from __future__ import annotations

import msgspec

from protocol.domain.activity import PendingCommand
from protocol.domain.messages import Authentication, Metadata, SecurityLevel
from protocol.domain.signed import SignedMessage
from protocol.domain.states import Close
from protocol.errors import SecurityError


class CommandReceived(msgspec.Struct, frozen=True, kw_only=True):
    """A well-formed command, counted as in flight, that waits for its answer."""

    message_id: str
    command: str
    arguments: msgspec.Raw
    metadata: Metadata
    security_level: SecurityLevel
    signed: SignedMessage | None
    """Where the level has commands signed; the signature is the caller's to verify."""
    pending: PendingCommand
    is_repeated: bool
    """Whether a command of this id is in flight already."""


class AuthenticationReceived(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials to be judged; answered by ``accept_authentication`` or ``fail``."""

    message_id: str
    credentials: Authentication


class HeartbeatReceived(msgspec.Struct, frozen=True, kw_only=True):
    ack: int


class MessageRefused(msgspec.Struct, frozen=True, kw_only=True):
    """A message that security refuses, which is told once it is on record: answered by ``refuse``."""

    message_id: str | None
    error: SecurityError
    closing: Close | None = None
    """The connection closes after the answer; nothing more of it is read."""


ReceivedEvent = CommandReceived | AuthenticationReceived | HeartbeatReceived | MessageRefused
