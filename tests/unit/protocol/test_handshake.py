"""The handshake (protocol.md section 4): what is agreed, what is refused, and the digest of both frames."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from protocol.domain.codec import CODECS, JSON_CODEC, Codec
from protocol.domain.messages import SecurityLevel
from protocol.domain.states import Close, State
from tests.wire import HANDSHAKE, TERMS, Wire

EVERYTHING: dict[str, Any] = {
    "protocol_versions": ["2.0", "1.1"],
    "client": {"name": "agent", "version": "2.0"},
    "security_level": "standard",
    "features": ["batch", "resume", "progress", "provider", "telepathy"],
    "compression": ["deflate"],
    "key_agreement": {"algorithm": "X25519", "public_key": "CQ" + "A" * 41},
    "resume": {"session_id": "s", "resume_token": "t", "last_sequence": 41},
    "state_sync": False,
    "max_in_flight": 8,
    "max_message_size": 1048576,
    "extensions": {"example.trace@1": {"required": False, "level": 3}},
}


@pytest.fixture
def wire() -> Wire:
    return Wire(codec=JSON_CODEC)


def test_only_version_and_client_are_needed(wire: Wire) -> None:
    assert wire.shake_hands() == {
        "protocol_version": "1.1",
        "server": {"name": "server", "version": "1"},
        "connection_id": "connection",
        "security_level": "standard",
        "features": [],
        "compression": None,
        "key_agreement": None,
        "limits": {
            "max_message_size": 1048576,
            "max_batch": 1,
            "max_in_flight": 64,
            "timeout_ms": 30000,
            "heartbeat_interval_ms": 20000,
            "resume_window_ms": 0,
        },
        "authentication": {"methods": ["jwt", "api_key", "password"]},
        "extensions": {},
    }


def test_the_answer_lists_only_what_both_have(wire: Wire) -> None:
    answer = wire.shake_hands(**EVERYTHING)
    assert answer["features"] == ["progress"]
    assert answer["compression"] is None
    assert answer["extensions"] == {}
    assert answer["limits"]["max_in_flight"] == 8
    assert wire.connection.features == {"progress"}
    assert wire.connection.client.name == "agent"


@pytest.mark.parametrize(("asked", "agreed"), [(1, 1), (64, 64), (65, 64), (10**9, 64)])
def test_the_window_is_the_smaller_one(wire: Wire, asked: int, agreed: int) -> None:
    assert wire.shake_hands(max_in_flight=asked)["limits"]["max_in_flight"] == agreed
    assert wire.connection.max_in_flight == agreed


def test_no_common_version_closes_the_connection(wire: Wire) -> None:
    wire.send("handshake", {**HANDSHAKE, "protocol_versions": ["1.0", "2.0"]}, message_id="h-1")
    answer = wire.take_one()
    assert answer["metadata"]["correlation_id"] == "h-1"
    assert answer["payload"]["code"] == "protocol.version_unsupported"
    assert answer["payload"]["details"] == {"supported": ["1.1"]}
    assert wire.connection.closing is Close.VERSION_UNSUPPORTED
    assert wire.connection.closing.code == 4406
    assert wire.connection.state is State.CLOSED


INSISTED: dict[str, tuple[dict[str, Any], str]] = {
    "a required extension": ({"extensions": {"example.trace@1": {"required": True}}}, "payload.extensions"),
    "state synchronisation": ({"state_sync": True}, "payload.state_sync"),
}


@pytest.mark.parametrize("name", INSISTED)
def test_what_the_client_insists_on_and_is_not_here_fails_the_handshake(wire: Wire, name: str) -> None:
    request, path = INSISTED[name]
    wire.send("handshake", {**HANDSHAKE, **request})
    error = wire.take_error()
    assert (error["code"], error["details"]["path"]) == ("protocol.feature_not_agreed", path)
    assert wire.get_state() is State.HANDSHAKING
    wire.shake_hands()
    assert wire.get_state() is State.AUTHENTICATING


def test_the_server_raises_the_level_and_never_lowers_it(wire: Wire) -> None:
    assert wire.shake_hands(security_level="low")["security_level"] == "standard"
    low = Wire(codec=JSON_CODEC, terms=msgspec.structs.replace(TERMS, minimum_level=SecurityLevel.LOW))
    assert low.shake_hands(security_level="standard")["security_level"] == "standard"
    low = Wire(codec=JSON_CODEC, terms=msgspec.structs.replace(TERMS, minimum_level=SecurityLevel.LOW))
    assert low.shake_hands(security_level="low")["security_level"] == "low"
    low = Wire(codec=JSON_CODEC, terms=msgspec.structs.replace(TERMS, minimum_level=SecurityLevel.LOW))
    assert low.shake_hands()["security_level"] == "standard"


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no versions": ({"protocol_versions": []}, "payload.protocol_versions"),
    "versions of a wrong type": ({"protocol_versions": "1.1"}, "payload.protocol_versions"),
    "too many versions": ({"protocol_versions": ["1.1"] * 21}, "payload.protocol_versions"),
    "a client without a name": ({"client": {}}, "payload.client"),
    "an empty name": ({"client": {"name": ""}}, "payload.client.name"),
    "an endless name": ({"client": {"name": "n" * 101}}, "payload.client.name"),
    "an unknown level": ({"security_level": "medium"}, "payload.security_level"),
    "a window of nothing": ({"max_in_flight": 0}, "payload.max_in_flight"),
    "frames too small for an error": ({"max_message_size": 1023}, "payload.max_message_size"),
    "too many features": ({"features": ["f"] * 51}, "payload.features"),
    "an unknown field": ({"colour": "red"}, "payload"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_handshake_is_refused_and_can_be_sent_again(wire: Wire, name: str) -> None:
    request, path = MALFORMED[name]
    wire.send("handshake", {**HANDSHAKE, **request})
    error = wire.take_error()
    assert (error["code"], error["details"]["path"]) == ("protocol.invalid_payload", path)
    wire.shake_hands()


def test_a_second_handshake_is_refused_and_changes_nothing(wire: Wire) -> None:
    wire.shake_hands(max_in_flight=8)
    wire.send("handshake", {**HANDSHAKE, "max_in_flight": 2})
    assert wire.take_error()["code"] == "protocol.unexpected_message"
    assert wire.connection.max_in_flight == 8


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
def test_the_digest_is_of_both_frames_as_they_were_on_the_wire(codec: Codec) -> None:
    wire = Wire(codec=codec)
    message = {"id": "h", "type": "handshake", "payload": HANDSHAKE, "timestamp": "2026-11-20T16:31:00Z"}
    sent = wire.encode(message)
    if isinstance(sent, str):
        # White space and order are the client's own.
        sent = f" {sent} \n"
    wire.connection.receive("[1]" if codec.is_text else b"\x91\x01")
    wire.connection.take_output()
    wire.connection.receive(sent)
    (answered,) = wire.connection.take_output()
    frame = sent.encode() if isinstance(sent, str) else sent
    assert wire.connection.get_handshake_sha256() == hashlib.sha256(frame + answered).hexdigest()


def test_a_refused_handshake_is_not_in_the_digest(wire: Wire) -> None:
    wire.send("handshake", {**HANDSHAKE, "colour": "red"})
    wire.take()
    nothing = hashlib.sha256().hexdigest()
    assert wire.connection.get_handshake_sha256() == nothing
