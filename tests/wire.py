"""A connection with no socket, as its client sees it: for the tests of the message kernel. Clock and ids are known."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.domain.codec import JSON_CODEC, Codec
from protocol.domain.connection import Connection
from protocol.domain.handshake import Terms
from protocol.domain.messages import (
    AuthenticationAnswer,
    Limits,
    PrincipalInfo,
    SecurityLevel,
    ServerInfo,
)
from protocol.domain.received import MessageRefused, ReceivedEvent
from protocol.domain.states import State
from security.domain.keyring import SigningKey
from security.services import IdentityKeyAgreer

START = datetime(2026, 11, 20, 16, 31, tzinfo=UTC)
TERMS = Terms(
    server=ServerInfo(name="server", version="1"),
    limits=Limits(
        max_message_size=1_048_576,
        max_batch=1,
        max_in_flight=64,
        timeout_ms=30_000,
        heartbeat_interval_ms=20_000,
        resume_window_ms=0,
    ),
)
HANDSHAKE: dict[str, Any] = {"protocol_versions": ["1.1"], "client": {"name": "test"}}
IDENTITY = SigningKey(id="0" * 16, private_key=Ed25519PrivateKey.generate())
"""What the connection's server signs handshakes with."""
CREDENTIALS = {"method": "api_key", "key": "mcp_secret"}


class Wire:
    """A client's view of one connection: it sends messages as objects and reads what comes back as objects."""

    def __init__(self, *, codec: Codec, terms: Terms = TERMS) -> None:
        self.codec = codec
        self.now = START
        ids = itertools.count(1)
        self.connection = Connection(
            codec=codec,
            terms=terms,
            keys=IdentityKeyAgreer(get_identity_key=lambda: IDENTITY),
            connection_id="connection",
            now=lambda: self.now,
            tick=self.get_tick,
            new_id=lambda: f"server-{next(ids)}",
            new_trace_id=lambda: "0" * 32,
        )

    def get_tick(self) -> float:
        """Seconds since the connection was made."""
        return (self.now - START).total_seconds()

    def get_state(self) -> State:
        return self.connection.state

    def encode(self, value: Any) -> str | bytes:
        """The value as a frame of the connection's kind."""
        return msgspec.json.encode(value).decode() if self.codec.is_text else msgspec.msgpack.encode(value)

    def decode(self, frame: bytes) -> Any:
        return msgspec.json.decode(frame) if self.codec.is_text else msgspec.msgpack.decode(frame)

    def send(
        self, message_type: str, payload: Any = None, *, message_id: str = "m-1", **fields: Any
    ) -> ReceivedEvent | None:
        """Send a message; what the connection makes of it."""
        message = {
            "id": message_id,
            "type": message_type,
            "payload": {} if payload is None else payload,
            "timestamp": "2026-11-20T16:31:00.123Z",
            **fields,
        }
        return self.receive(self.encode(message))

    def receive(self, frame: str | bytes) -> ReceivedEvent | None:
        """Feed a frame; what security refuses is answered at once, as if it were on record."""
        received = self.connection.receive(frame)
        if type(received) is MessageRefused:
            self.connection.refuse(received.message_id, received.error, closing=received.closing)
            return None
        return received

    def send_command(
        self, name: str = "session.ping", arguments: Any = None, *, message_id: str = "m-1", **fields: Any
    ) -> ReceivedEvent | None:
        payload = {"command": name, "arguments": {} if arguments is None else arguments}
        return self.send("command", payload, message_id=message_id, **fields)

    def take(self) -> list[dict[str, Any]]:
        """Everything that was sent since the last time."""
        return [self.decode(frame) for frame in self.connection.take_output()]

    def take_one(self) -> dict[str, Any]:
        (message,) = self.take()
        return message

    def take_error(self) -> dict[str, Any]:
        """The payload of the one message that was sent, an error."""
        message = self.take_one()
        assert message["type"] == "error", message
        payload: dict[str, Any] = message["payload"]
        return payload

    def shake_hands(self, **request: Any) -> dict[str, Any]:
        """Shake hands; the payload of the server's answer."""
        assert self.send("handshake", {**HANDSHAKE, **request}) is None
        message = self.take_one()
        assert message["type"] == "handshake", message
        payload: dict[str, Any] = message["payload"]
        return payload

    def authenticate(self) -> dict[str, Any]:
        """Authenticate as somebody whom the caller of the connection finds good."""
        assert self.send("authentication", CREDENTIALS) is not None
        self.connection.accept_authentication("m-1", make_authentication_answer(self.connection))
        return self.take_one()

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def make_authentication_answer(connection: Connection) -> AuthenticationAnswer:
    return AuthenticationAnswer(
        authenticated=True,
        session_id="session",
        resumed=False,
        principal=PrincipalInfo(id="account", name="agent", roles=("agent",)),
        expires_at=None,
        security_level_max=SecurityLevel.HIGH,
        handshake_sha256=connection.get_handshake_sha256(),
    )


def make_ready(codec: Codec = JSON_CODEC, *, terms: Terms = TERMS, **request: Any) -> Wire:
    """A connection that has shaken hands and authenticated."""
    wire = Wire(codec=codec, terms=terms)
    wire.shake_hands(**request)
    wire.authenticate()
    return wire
