"""The wire's types: what a message, its payloads and its parts look like (protocol.md sections 2 to 8).

msgspec decodes straight into these and encodes from them; the published JSON Schema is made from them too. What belongs
here is shape. What a command means is its app's, what order messages come in is ``states`` and ``connection``.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from protocol.domain.redaction import redact
from protocol.errors import MCPError

PROTOCOL_VERSION = "1.1"
SUPPORTED_VERSIONS = ("1.1",)
SUPPORTED_FEATURES = ("progress",)
"""The optional features that this server has, in the order in which it names them."""


class MessageType(enum.StrEnum):
    COMMAND = "command"
    RESPONSE = "response"
    EVENT = "event"
    ERROR = "error"
    HANDSHAKE = "handshake"
    AUTHENTICATION = "authentication"
    STATE_SYNC = "state_sync"
    HEARTBEAT = "heartbeat"


class SecurityLevel(enum.StrEnum):
    """What a message needs (section 11), lowest first."""

    LOW = "low"
    STANDARD = "standard"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 to 3; levels are compared by rank, never as text."""
        return _LEVEL_RANKS[self]


_LEVEL_RANKS = {level: rank for rank, level in enumerate(SecurityLevel)}


class Priority(enum.StrEnum):
    """How urgent a command is (section 9), most urgent first."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


MessageId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,64}\Z")]
# A deadline of a day is longer than any run; an unbounded one would overflow timers.
TimeoutMs = Annotated[int, Meta(ge=1, le=86_400_000)]
NO_CONTROL_CHARACTERS = r"^(?![\s\S]*[\u0000-\u001f\u007f])"
"""Of names that are stored, shown and logged."""
IdempotencyKey = Annotated[str, Meta(min_length=1, max_length=255, pattern=NO_CONTROL_CHARACTERS)]
MAX_REASON_CHARACTERS = 200
NO_RAW = Raw(b"")
"""A ``Raw`` field's absence; msgspec has no ``Raw | None``."""


Timestamp = Annotated[datetime, Meta(tz=True)]


class EncryptionInfo(Struct, frozen=True, forbid_unknown_fields=True):
    """Under which key a message is sealed, and which of those under it it is (section 11)."""

    algorithm: Annotated[str, Meta(max_length=50)]
    key_id: Annotated[str, Meta(max_length=64)]
    sequence: Annotated[int, Meta(ge=0)]


class Security(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    security_level: SecurityLevel | None = None
    encryption_info: dict[str, Any] | None = None
    signature: str | None = None
    auth_token: str | None = None

    def __repr__(self) -> str:
        return f"Security(security_level={self.security_level!r})"


class Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    """An incoming message; payload and metadata stay encoded until someone needs them."""

    id: MessageId
    type: MessageType
    payload: Raw
    timestamp: Timestamp
    metadata: Raw = NO_RAW
    security: Security | None = None


class SealedSecurity(Struct, frozen=True, forbid_unknown_fields=True):
    security_level: SecurityLevel | None = None
    encryption_info: EncryptionInfo | None = None
    signature: Annotated[str, Meta(max_length=500)] | None = None
    auth_token: str | None = None

    def __repr__(self) -> str:
        return f"SealedSecurity(security_level={self.security_level!r}, encryption_info={self.encryption_info!r})"


class SealedEnvelope(Struct, frozen=True, forbid_unknown_fields=True):
    """An incoming message of a connection whose messages are sealed; what is authenticated stays as it was written."""

    id: MessageId
    type: MessageType
    payload: Raw
    timestamp: Annotated[str, Meta(max_length=64)]
    metadata: Raw = NO_RAW
    security: SealedSecurity | None = None


class Opened(Struct, frozen=True, forbid_unknown_fields=True):
    """What is inside a sealed message."""

    payload: Raw
    metadata: Raw = NO_RAW


class OpenedEnvelope(Envelope, frozen=True, kw_only=True):
    """An incoming message that was sealed."""

    written_at: str
    """Its timestamp as it was written."""


class Identified(Struct, frozen=True):
    """What is read of a frame that is no message: whose it would have been."""

    id: MessageId


class Metadata(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    correlation_id: MessageId | None = None
    sequence: Annotated[int, Meta(ge=1)] | None = None
    priority: Priority = Priority.NORMAL
    timeout_ms: TimeoutMs | None = None
    idempotency_key: IdempotencyKey | None = None
    traceparent: Annotated[str, Meta(max_length=255)] | None = None
    content_encoding: str | None = None


class CommandPayload(Struct, frozen=True, forbid_unknown_fields=True):
    command: Annotated[str, Meta(max_length=100)]
    arguments: Raw = NO_RAW


class ClientInfo(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=NO_CONTROL_CHARACTERS)]
    version: Annotated[str, Meta(max_length=50, pattern=NO_CONTROL_CHARACTERS)] = ""


class ExtensionOffer(Struct, frozen=True):
    """What a client says of one extension; other keys are the extension's own."""

    required: bool = False


class KeyAgreementOffer(Struct, frozen=True, forbid_unknown_fields=True):
    """The client's half of the connection's keys."""

    algorithm: Annotated[str, Meta(max_length=50)]
    public_key: Annotated[str, Meta(max_length=200)]


class KeyAgreement(Struct, frozen=True):
    """The server's half, which its identity key has signed."""

    algorithm: str
    public_key: str
    key_id: str
    signature: str


class HandshakeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    protocol_versions: Annotated[list[Annotated[str, Meta(max_length=20)]], Meta(min_length=1, max_length=20)]
    client: ClientInfo
    security_level: SecurityLevel | None = None
    features: Annotated[list[Annotated[str, Meta(max_length=50)]], Meta(max_length=50)] = []
    compression: Annotated[list[Annotated[str, Meta(max_length=50)]], Meta(max_length=10)] = []
    key_agreement: KeyAgreementOffer | None = None
    resume: dict[str, Any] | None = None
    state_sync: bool = False
    max_in_flight: Annotated[int, Meta(ge=1)] | None = None
    max_message_size: Annotated[int, Meta(ge=1024)] | None = None
    extensions: dict[str, ExtensionOffer] = {}

    def __repr__(self) -> str:
        # Without ``resume``, which has a token in it.
        return f"HandshakeRequest(protocol_versions={self.protocol_versions!r}, client={self.client!r})"


class ServerInfo(Struct, frozen=True):
    name: str
    version: str


class Limits(Struct, frozen=True):
    max_message_size: int
    max_batch: int
    max_in_flight: int
    timeout_ms: int
    heartbeat_interval_ms: int
    resume_window_ms: int


class AuthenticationOffer(Struct, frozen=True):
    methods: tuple[str, ...]


class HandshakeAnswer(Struct, frozen=True):
    protocol_version: str
    server: ServerInfo
    connection_id: str
    security_level: SecurityLevel
    features: tuple[str, ...]
    limits: Limits
    authentication: AuthenticationOffer
    compression: str | None = None
    key_agreement: KeyAgreement | None = None
    extensions: dict[str, Any] = {}


class RekeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A handshake on a connection whose messages are sealed: new keys, nothing else."""

    key_agreement: KeyAgreementOffer


class RekeyAnswer(Struct, frozen=True):
    key_agreement: KeyAgreement


class JwtCredentials(Struct, frozen=True, forbid_unknown_fields=True, tag_field="method", tag="jwt"):
    token: Annotated[str, Meta(max_length=4096)]

    def __repr__(self) -> str:
        return "JwtCredentials(token=<hidden>)"


class ApiKeyCredentials(Struct, frozen=True, forbid_unknown_fields=True, tag_field="method", tag="api_key"):
    key: Annotated[str, Meta(max_length=512)]

    def __repr__(self) -> str:
        return "ApiKeyCredentials(key=<hidden>)"


class PasswordCredentials(Struct, frozen=True, forbid_unknown_fields=True, tag_field="method", tag="password"):
    username: Annotated[str, Meta(max_length=150, pattern=NO_CONTROL_CHARACTERS)]
    password: Annotated[str, Meta(max_length=1024)]
    code: Annotated[str, Meta(max_length=64)] | None = None
    """Of the second factor, where the account has one."""

    def __repr__(self) -> str:
        # The name too: now and then somebody types the password there.
        return "PasswordCredentials(<hidden>)"


Authentication = JwtCredentials | ApiKeyCredentials | PasswordCredentials
"""Every kind of credentials, told apart by ``method``."""
AUTHENTICATION_METHODS = ("jwt", "api_key", "password")


class PrincipalInfo(Struct, frozen=True):
    id: str
    name: str
    roles: tuple[str, ...]


class AuthenticationAnswer(Struct, frozen=True):
    authenticated: bool
    session_id: str
    resumed: bool
    principal: PrincipalInfo
    expires_at: datetime | None
    security_level_max: SecurityLevel
    handshake_sha256: str
    ack: int = 0
    resume_token: str | None = None

    def __repr__(self) -> str:
        return f"AuthenticationAnswer(session_id={self.session_id!r}, principal={self.principal!r})"


class Heartbeat(Struct, frozen=True, forbid_unknown_fields=True):
    """The client's: it has everything up to ``ack``."""

    ack: Annotated[int, Meta(ge=0)] = 0


class HeartbeatAnswer(Struct, frozen=True):
    server_time: datetime
    ack: int = 0


class ErrorPayload(Struct, frozen=True):
    code: str
    category: str
    message: str
    retryable: bool
    retry_after_ms: int | None
    details: dict[str, Any]
    trace_id: str


class ResponsePayload(Struct, frozen=True):
    command: str
    result: Any
    duplicate: bool | UnsetType = UNSET


class StoredResponse(Struct, frozen=True, omit_defaults=True):
    """A response's payload as the outbox has it, its result still encoded."""

    command: str
    result: Raw
    duplicate: bool = False


class EventPayload(Struct, frozen=True):
    event: str
    data: Any


class OutgoingMetadata(Struct, frozen=True, omit_defaults=True):
    correlation_id: str | None = None
    sequence: int | None = None


class OutgoingMessage(Struct, frozen=True, omit_defaults=True):
    id: str
    type: MessageType
    payload: Any
    timestamp: str
    """RFC 3339, UTC, milliseconds."""
    metadata: OutgoingMetadata | None = None


class OutgoingContent(Struct, frozen=True):
    """What of a message is sealed."""

    payload: Any
    metadata: OutgoingMetadata | None


class OutgoingSecurity(Struct, frozen=True):
    security_level: SecurityLevel
    encryption_info: EncryptionInfo


class OutgoingSealed(Struct, frozen=True):
    """A sealed message on its way out."""

    id: str
    type: MessageType
    payload: Any
    """Base64url as text, or bytes, as the encoding has it."""
    timestamp: str
    security: OutgoingSecurity
    metadata: None = None


def describe_field_error(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong and where: msgspec's message in two, e.g. ``("Expected `int`, got `str`", "limit")``."""
    reason, _, path = str(error).partition(" - at `$")
    if reason.startswith("Invalid "):
        # It repeats the value, which may be a key in the wrong place: errors hold no secret, the peer's own neither.
        reason = reason.partition(" '")[0]
    # It repeats unknown names, which may be as long as the frame, or a key in the wrong place again.
    return redact(reason[:MAX_REASON_CHARACTERS]), path.rstrip("`").lstrip(".")


def describe_error(error: MCPError, *, trace_id: str) -> ErrorPayload:
    """The error as the wire tells it (section 8)."""
    return ErrorPayload(
        code=error.code,
        category=error.category,
        message=error.message,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
        details=dict(error.details),
        trace_id=trace_id,
    )
