"""Every error that a peer may be told, and the one table made from them.

    MCPError
    ├── ProtocolError       the message or its order is wrong
    ├── SecurityError       who, or whether they may            (subclasses in ``security.errors``)
    ├── TransportError      the connection or a port
    ├── SystemFailure       the server's own state
    └── one base class an app, in that app's ``errors.py``

A code is added by subclassing here or in an app's ``errors.py``: the class is the row of the table, its docstring's
first line the default message. What does not belong here: close codes (``protocol.domain.states``) and how an error
looks on the wire (``protocol.domain.messages.describe_error``).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

_TABLE: dict[str, type[MCPError]] = {}


def get_error_table() -> Mapping[str, type[MCPError]]:
    """All error classes that are loaded, by code. The docs, the tests and HTTP read this."""
    return MappingProxyType(_TABLE)


class MCPError(Exception):
    """The request failed."""

    category: ClassVar[str]
    """One of ``protocol security context tool transport system``; set by each app's base class."""
    code: ClassVar[str]
    """``category.reason``; stable, what programs read."""
    http_status: ClassVar[int]
    retryable: ClassVar[bool] = False
    """Whether the same message may be sent again as it is."""
    is_recorded: ClassVar[bool] = False
    """Whether it is a denial, or may be told in the place of one: it goes into the audit record whenever it is told."""
    waits_for_record: ClassVar[bool] = False
    """Whether it is told only once it is on record."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        code = cls.__dict__.get("code")
        if code is None:
            return
        if not code.startswith(f"{cls.category}."):
            raise TypeError(f"{cls.__qualname__}: code {code!r} is not of category {cls.category!r}")
        if code in _TABLE:
            raise TypeError(f"{cls.__qualname__}: code {code!r} is {_TABLE[code].__qualname__}'s")
        _TABLE[code] = cls

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_ms: int | None = None,
        denied_action: str = "",
    ) -> None:
        """``message`` is shown to people and holds no secret; ``details`` is JSON that programs may read.

        ``denied_action`` is what policy denied where even that may not be told: for the record only.
        """
        self.message = message or self.get_default_message()
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_ms = retry_after_ms
        self.denied_action = denied_action
        super().__init__(self.message)

    @classmethod
    def get_default_message(cls) -> str:
        """The first line of the class's docstring."""
        return inspect.getdoc(cls).partition("\n")[0]  # type: ignore[union-attr]  # every error has a docstring; a test holds it


class ProtocolError(MCPError):
    """The message breaks the protocol."""

    category = "protocol"
    http_status = 400


class InvalidMessage(ProtocolError):
    """The frame is not a message of this protocol."""

    code = "protocol.invalid_message"


class UnsupportedType(ProtocolError):
    """The message's type is not one that the server takes."""

    code = "protocol.unsupported_type"


class InvalidPayload(ProtocolError):
    """The payload has not the form that the message's type demands."""

    code = "protocol.invalid_payload"


class InvalidArguments(ProtocolError):
    """The command's arguments are not what it takes."""

    code = "protocol.invalid_arguments"


class InvalidMetadata(ProtocolError):
    """The metadata has an unknown key or a wrong value."""

    code = "protocol.invalid_metadata"


class MessageTooLarge(ProtocolError):
    """The message is larger than the connection's limit."""

    code = "protocol.message_too_large"
    http_status = 413


class UnknownCommand(ProtocolError):
    """There is no command of that name."""

    code = "protocol.unknown_command"
    http_status = 404


class UnexpectedMessage(ProtocolError):
    """The connection's state does not allow this message."""

    code = "protocol.unexpected_message"
    http_status = 409


class VersionUnsupported(ProtocolError):
    """Client and server share no protocol version."""

    code = "protocol.version_unsupported"


class FeatureNotAgreed(ProtocolError):
    """The feature was not agreed in the handshake, or this server does not have it."""

    code = "protocol.feature_not_agreed"


class DuplicateId(ProtocolError):
    """A message of this id or idempotency key was taken before, with other content."""

    code = "protocol.duplicate_id"
    http_status = 409


class BatchTooLarge(ProtocolError):
    """The array holds more messages than the server takes at once."""

    code = "protocol.batch_too_large"
    http_status = 413


class CommandCancelled(ProtocolError):
    """The command was cancelled."""

    code = "protocol.cancelled"
    http_status = 409


class SecurityError(MCPError):
    """The request is not permitted."""

    category = "security"
    http_status = 403
    is_recorded = True
    waits_for_record = True


class AuthenticationRequired(SecurityError):
    """Authenticate first."""

    code = "security.authentication_required"
    http_status = 401
    # Nobody showed a credential: nothing was decided about anybody.
    waits_for_record = False


class AuthenticationFailed(SecurityError):
    """The credentials were not accepted."""

    code = "security.authentication_failed"
    http_status = 401


class TokenExpired(SecurityError):
    """The credential has expired; authenticate again."""

    code = "security.token_expired"
    http_status = 401


class AccessDenied(SecurityError):
    """Your account may not do this."""

    code = "security.access_denied"


class IpDenied(SecurityError):
    """From this address it is not allowed."""

    code = "security.ip_denied"
    http_status = 403


class SecurityLevelTooLow(SecurityError):
    """The message's security level is below what is demanded."""

    code = "security.security_level_too_low"


class EncryptionRequired(SecurityError):
    """At this security level messages are sealed under keys that the handshake agrees on."""

    code = "security.encryption_required"


class DecryptionFailed(SecurityError):
    """The message does not open: it is not as it was sealed, or not under this connection's keys."""

    code = "security.decryption_failed"
    http_status = 400


class SignatureInvalid(SecurityError):
    """The command is not signed by a key that is registered for the account."""

    code = "security.signature_invalid"


class Replayed(SecurityError):
    """The message was taken before, or is too old to know that it was not."""

    code = "security.replayed"
    http_status = 409


class RateLimited(SecurityError):
    """Too many requests; try again later."""

    code = "security.rate_limited"
    http_status = 429
    retryable = True
    # Nothing was decided about who may do what, and who is told is to wait anyway.
    waits_for_record = False


class TransportError(MCPError):
    """The connection failed."""

    category = "transport"
    http_status = 400


class PortUnavailable(TransportError):
    """No port can be had now, or not this one; try again later, or ask for another."""

    code = "transport.port_unavailable"
    http_status = 409
    retryable = True


class PortInvalid(TransportError):
    """This server leases no such port."""

    code = "transport.port_invalid"


class LeaseNotFound(TransportError):
    """There is no such lease, or it has ended."""

    code = "transport.lease_not_found"
    http_status = 404
    is_recorded = True


class FrameInvalid(TransportError):
    """The frame's kind is not that of the agreed subprotocol."""

    code = "transport.frame_invalid"


class SystemFailure(MCPError):
    """The server could not do its part."""

    category = "system"
    http_status = 503


class InternalError(SystemFailure):
    """An unexpected error; quote the trace id to the operator."""

    code = "system.internal"
    http_status = 500


class Unavailable(SystemFailure):
    """The server is not taking commands now."""

    code = "system.unavailable"
    retryable = True


class Overloaded(SystemFailure):
    """The server's or the session's limit is reached; try again later."""

    code = "system.overloaded"
    http_status = 429
    retryable = True


class SystemTimeout(SystemFailure):
    """The command's deadline passed before it was done."""

    code = "system.timeout"
    http_status = 504
    retryable = True


class Misconfigured(SystemFailure):
    """The server's settings do not allow this."""

    code = "system.misconfigured"
    http_status = 500


class StorageUnavailable(SystemFailure):
    """The database did not take the change; nothing was done."""

    code = "system.storage_unavailable"
    retryable = True
