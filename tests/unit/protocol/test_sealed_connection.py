"""The connection at ``high`` and ``critical``, bytes in and bytes out, against a client that shares no code with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.domain.codec import CODECS, JSON_CODEC, MESSAGEPACK_CODEC, Codec
from protocol.domain.handshake import Terms
from protocol.domain.messages import MessageType, ResponsePayload, SecurityLevel
from protocol.domain.received import AuthenticationReceived, CommandReceived, HeartbeatReceived
from protocol.domain.sealed import RekeyLimits
from protocol.domain.states import Close, State
from tests.client import Encoding
from tests.sealing import ClientSealing, SigningKey, make_command
from tests.wire import CREDENTIALS, HANDSHAKE, TERMS, Wire, make_authentication_answer

TIMESTAMP = "2026-11-20T16:31:00.123Z"
BOTH = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)


class SealedPeer:
    """A client whose messages are sealed, at the other end of a connection without a socket."""

    def __init__(self, codec: Codec, *, level: str = "high", terms: Terms = TERMS, **request: Any) -> None:
        self.wire = Wire(codec=codec, terms=terms)
        self.connection = self.wire.connection
        self.sealing = ClientSealing(Encoding(codec.subprotocol), level=level)
        offer = self.sealing.make_offer()
        frame = self.sealing.encode(
            {
                "id": "h-1",
                "type": "handshake",
                "payload": {**HANDSHAKE, "security_level": level, "key_agreement": offer, **request},
                "timestamp": TIMESTAMP,
            }
        )
        self.give(frame)
        (answer,) = self.connection.take_output()
        self.sealing.frames = [frame, answer]
        payload = self.sealing.decode(answer)["payload"]
        assert payload["security_level"] == level
        self.sealing.agree(request=frame, answer=payload["key_agreement"], connection_id=payload["connection_id"])

    def give(self, frame: bytes) -> Any:
        return self.wire.receive(frame.decode() if self.wire.codec.is_text else frame)

    def send(self, message: dict[str, Any], **how: Any) -> Any:
        return self.give(self.sealing.encode(self.sealing.seal(message, **how)))

    def take(self) -> list[dict[str, Any]]:
        return [self.sealing.open(frame) for frame in self.connection.take_output()]

    def take_one(self) -> dict[str, Any]:
        (message,) = self.take()
        return message

    def authenticate(self) -> dict[str, Any]:
        message = {"id": "a-1", "type": "authentication", "payload": CREDENTIALS, "timestamp": TIMESTAMP}
        assert isinstance(self.send(message), AuthenticationReceived)
        self.connection.accept_authentication("a-1", make_authentication_answer(self.connection))
        return self.take_one()

    def rekey(self) -> bytes:
        """Ask for new keys; the request's frame."""
        offer = {"key_agreement": self.sealing.make_offer()}
        message = {"id": "r-1", "type": "handshake", "payload": offer, "timestamp": TIMESTAMP}
        frame = self.sealing.encode(self.sealing.seal(message))
        assert self.give(frame) is None
        return frame


def make_ready(codec: Codec = JSON_CODEC, *, level: str = "high", **request: Any) -> SealedPeer:
    peer = SealedPeer(codec, level=level, **request)
    peer.authenticate()
    return peer


def make_sealed_frame(peer: SealedPeer, **how: Any) -> dict[str, Any]:
    return peer.sealing.seal(make_command(timestamp=TIMESTAMP), **how)


@BOTH
def test_everything_after_the_handshake_is_sealed_in_both_directions(codec: Codec) -> None:
    peer = SealedPeer(codec)
    answer = peer.authenticate()
    assert (answer["type"], answer["metadata"]) == ("authentication", {"correlation_id": "a-1"})
    received = peer.send(make_command("text.say", {"n": 1}, metadata={"timeout_ms": 5}))
    assert isinstance(received, CommandReceived)
    assert (received.command, received.metadata.timeout_ms) == ("text.say", 5)
    assert received.security_level is SecurityLevel.HIGH
    peer.connection.respond("c-1", ResponsePayload("text.say", {"text": "secret words"}))
    (frame,) = peer.connection.take_output()
    assert b"secret words" not in frame
    assert b"text.say" not in frame
    assert peer.sealing.open(frame)["payload"]["result"] == {"text": "secret words"}
    assert isinstance(
        peer.send({"id": "b-1", "type": "heartbeat", "payload": {"ack": 3}, "timestamp": TIMESTAMP}), HeartbeatReceived
    )
    assert peer.take_one()["type"] == "heartbeat"
    peer.send(make_command("x", message_id="c-2", metadata={"no such": 1}))
    assert peer.take_one()["payload"]["code"] == "protocol.invalid_metadata"
    assert peer.connection.closing is None


@BOTH
def test_the_clients_half_of_the_handshake_is_bound_by_the_digest(codec: Codec) -> None:
    peer = SealedPeer(codec)
    assert peer.connection.get_handshake_sha256() == hashlib.sha256(b"".join(peer.sealing.frames)).hexdigest()


def test_keys_are_new_for_each_connection() -> None:
    first, second = SealedPeer(JSON_CODEC), SealedPeer(JSON_CODEC)
    assert first.sealing.keys is not None
    assert second.sealing.keys is not None
    assert first.sealing.keys.key_id != second.sealing.keys.key_id
    assert first.sealing.keys.outgoing.key != second.sealing.keys.outgoing.key


def test_at_standard_keys_are_agreed_on_and_nothing_is_sealed() -> None:
    wire = Wire(codec=JSON_CODEC)
    offer = ClientSealing(Encoding.JSON).make_offer()
    answer = wire.shake_hands(key_agreement=offer)
    assert (answer["security_level"], set(answer["key_agreement"])) == (
        "standard",
        {"algorithm", "public_key", "key_id", "signature"},
    )
    assert "payload" in wire.authenticate()


NO_KEYS: dict[str, dict[str, Any]] = {
    "none": {},
    "null": {"key_agreement": None},
    "another algorithm": {"key_agreement": {"algorithm": "P-256", "public_key": "AAAA"}},
}


@pytest.mark.parametrize("name", NO_KEYS)
@pytest.mark.parametrize("level", ["high", "critical"])
def test_without_keys_there_is_no_sealed_level(name: str, level: str) -> None:
    wire = Wire(codec=JSON_CODEC)
    wire.send("handshake", {**HANDSHAKE, "security_level": level, **NO_KEYS[name]})
    error = wire.take_error()
    assert (error["code"], error["details"]["path"]) == ("security.encryption_required", "payload.key_agreement")
    assert wire.get_state() is State.HANDSHAKING
    assert wire.connection.closing is None


BAD_KEYS = ["", "AAAA", "A" * 43, "!" * 43, "A" * 44, "A" * 42 + "B", "AQ" + "A" * 41]


@pytest.mark.parametrize("public_key", BAD_KEYS)
def test_a_public_key_that_agrees_to_nothing_is_refused(public_key: str) -> None:
    wire = Wire(codec=JSON_CODEC)
    offer = {"algorithm": "X25519", "public_key": public_key}
    wire.send("handshake", {**HANDSHAKE, "security_level": "high", "key_agreement": offer})
    error = wire.take_error()
    assert (error["code"], error["details"]["path"]) == (
        "protocol.invalid_payload",
        "payload.key_agreement.public_key",
    )
    assert wire.get_state() is State.HANDSHAKING


@pytest.mark.parametrize("minimum", [SecurityLevel.HIGH, SecurityLevel.CRITICAL])
def test_the_server_raises_the_level_and_never_lowers_it(minimum: SecurityLevel) -> None:
    terms = msgspec.structs.replace(TERMS, minimum_level=minimum)
    wire = Wire(codec=JSON_CODEC, terms=terms)
    wire.send("handshake", HANDSHAKE)
    assert wire.take_error()["code"] == "security.encryption_required"
    offer = ClientSealing(Encoding.JSON).make_offer()
    assert wire.shake_hands(security_level="low", key_agreement=offer)["security_level"] == minimum.value
    wire = Wire(codec=JSON_CODEC, terms=terms)
    assert wire.shake_hands(security_level="critical", key_agreement=offer)["security_level"] == "critical"


Spoil = Callable[[SealedPeer, dict[str, Any]], dict[str, Any]]


def change_info(**changes: Any) -> Spoil:
    def spoil(_peer: SealedPeer, frame: dict[str, Any]) -> dict[str, Any]:
        info = {**frame["security"]["encryption_info"], **changes}
        return {**frame, "security": {**frame["security"], "encryption_info": info}}

    return spoil


def change(**changes: Any) -> Spoil:
    return lambda _peer, frame: {**frame, **changes}


def change_level(level: str | None) -> Spoil:
    return lambda _peer, frame: {**frame, "security": {**frame["security"], "security_level": level}}


def truncate(_peer: SealedPeer, frame: dict[str, Any]) -> dict[str, Any]:
    return {**frame, "payload": frame["payload"][:-4]}


def unseal(_peer: SealedPeer, _frame: dict[str, Any]) -> dict[str, Any]:
    return make_command(timestamp=TIMESTAMP)


NOT_OPENED: dict[str, tuple[Spoil, str]] = {
    "unsealed": (unseal, "security.encryption_required"),
    "unsealed, downgraded": (
        lambda peer, frame: {**unseal(peer, frame), "security": {"security_level": "standard"}},
        "security.encryption_required",
    ),
    "another key": (change_info(key_id="other"), "security.decryption_failed"),
    "another algorithm": (change_info(algorithm="AES-128-GCM"), "security.decryption_failed"),
    "another sequence, later": (change_info(sequence=7), "security.decryption_failed"),
    "another sequence, earlier": (change_info(sequence=0), "security.replayed"),
    "another id": (change(id="c-9"), "security.decryption_failed"),
    "another type": (change(type="heartbeat"), "security.decryption_failed"),
    "another timestamp": (change(timestamp="2026-11-20T16:31:00.124Z"), "security.decryption_failed"),
    "the same time written otherwise": (
        change(timestamp="2026-11-20T16:31:00.123+00:00"),
        "security.decryption_failed",
    ),
    "downgraded": (change_level("standard"), "security.decryption_failed"),
    "upgraded": (change_level("critical"), "security.decryption_failed"),
    "truncated": (truncate, "security.decryption_failed"),
    "empty": (lambda _peer, frame: {**frame, "payload": frame["payload"][:0]}, "security.decryption_failed"),
    "no text or bytes": (change(payload={"command": "session.ping"}), "security.decryption_failed"),
    "metadata outside": (change(metadata={"priority": "urgent"}), "security.decryption_failed"),
    "no sequence": (
        lambda _peer, frame: {**frame, "security": {"encryption_info": {"algorithm": "AES-256-GCM", "key_id": "k"}}},
        "protocol.invalid_message",
    ),
    "an unknown field": (change(surplus=1), "protocol.invalid_message"),
}


@BOTH
@pytest.mark.parametrize("name", NOT_OPENED)
def test_what_does_not_open_is_answered_sealed_and_closes(name: str, codec: Codec) -> None:
    spoil, code = NOT_OPENED[name]
    peer = make_ready(codec)
    frame = spoil(peer, make_sealed_frame(peer))
    assert peer.give(peer.sealing.encode(frame)) is None
    error = peer.take_one()
    assert (error["type"], error["payload"]["code"]) == ("error", code)
    assert error["metadata"] == {"correlation_id": frame["id"]}
    assert peer.connection.closing is Close.PROTOCOL_VIOLATED
    assert peer.connection.closing.code == 4400
    assert peer.connection.closing.value.is_resumable
    assert peer.send(make_command(message_id="c-2")) is None


@BOTH
def test_what_is_no_message_at_all_closes_too(codec: Codec) -> None:
    peer = make_ready(codec)
    peer.give(b"\x01 what is this")
    assert peer.take_one()["payload"]["code"] == "protocol.invalid_message"
    assert peer.connection.closing is Close.PROTOCOL_VIOLATED


@BOTH
def test_reordered_and_replayed_messages_are_refused(codec: Codec) -> None:
    peer = make_ready(codec)
    first = make_sealed_frame(peer)
    second = peer.sealing.seal(make_command(message_id="c-2", timestamp=TIMESTAMP))
    peer.give(peer.sealing.encode(second))
    assert peer.take_one()["payload"]["code"] == "security.decryption_failed"
    peer = make_ready(codec)
    first = make_sealed_frame(peer)
    assert isinstance(peer.give(peer.sealing.encode(first)), CommandReceived)
    peer.connection.respond("c-1", ResponsePayload("session.ping", {}))
    peer.take()
    peer.give(peer.sealing.encode(first))
    assert peer.take_one()["payload"]["code"] == "security.replayed"
    assert peer.connection.closing is Close.PROTOCOL_VIOLATED


def test_the_refusal_of_a_forged_message_does_not_answer_a_command_in_flight() -> None:
    peer = make_ready()
    assert isinstance(peer.send(make_command(message_id="c-1")), CommandReceived)
    peer.give(peer.sealing.encode(make_command(message_id="c-1")))
    error = peer.take_one()
    assert (error["payload"]["code"], error["metadata"]) == ("security.encryption_required", None)


OPENED_BUT_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "sealed at a lower level": ({}, {"level": "standard"}, "security.security_level_too_low"),
    "sealed at a higher level": ({}, {"level": "critical"}, "protocol.feature_not_agreed"),
    "signed at high": ({"security": {"signature": "ed25519:k:s"}}, {}, "protocol.feature_not_agreed"),
    "a token": ({"security": {"auth_token": "t"}}, {}, "protocol.invalid_message"),
    "bad metadata": ({"metadata": {"surplus": 1}}, {}, "protocol.invalid_metadata"),
    "a bad payload": ({"payload": {"command": 3}}, {}, "protocol.invalid_payload"),
    "another kind of timestamp": ({"timestamp": "yesterday"}, {}, "protocol.invalid_message"),
    "too deep": ({"payload": [[]]}, {}, "protocol.invalid_payload"),
}


@BOTH
@pytest.mark.parametrize("name", OPENED_BUT_REFUSED)
def test_what_opens_and_is_wrong_is_answered_and_the_connection_goes_on(name: str, codec: Codec) -> None:
    changes, how, code = OPENED_BUT_REFUSED[name]
    peer = make_ready(codec)
    assert peer.send({**make_command(), **changes}, **how) is None
    error = peer.take_one()
    assert (error["payload"]["code"], error["metadata"]) == (code, {"correlation_id": "c-1"})
    assert peer.connection.closing is None
    assert isinstance(peer.send(make_command(message_id="c-2")), CommandReceived)


def test_sealed_nesting_is_bounded() -> None:
    peer = make_ready()
    value: Any = 1
    for _ in range(70):
        value = [value]
    peer.send(make_command("x", value))
    assert peer.take_one()["payload"]["code"] == "protocol.invalid_message"
    assert peer.connection.closing is None


# Size


@BOTH
@pytest.mark.parametrize("size", [0, 1, 500, 1500])
def test_a_sealed_answer_never_exceeds_what_the_client_takes(codec: Codec, size: int) -> None:
    peer = make_ready(codec, max_message_size=1024)
    peer.send(make_command())
    peer.connection.respond("c-1", ResponsePayload("session.ping", "x" * size))
    (frame,) = peer.connection.take_output()
    assert len(frame) <= 1024
    message = peer.sealing.open(frame)
    if size > 700:
        assert message["payload"]["code"] == "protocol.message_too_large"
    if size <= 1:
        assert message["payload"]["result"] == "x" * size


@BOTH
def test_no_frame_is_larger_than_it_was_counted(codec: Codec) -> None:
    peer = make_ready(codec)
    peer.send(make_command())
    for size in (0, 1, 2, 3, 1000):
        peer.connection.emit("e", "x" * size)
    counted = peer.connection.output_bytes
    assert counted >= sum(map(len, peer.connection.take_output()))


# New keys


@BOTH
def test_new_keys_hold_from_the_answer_on_in_both_directions(codec: Codec) -> None:
    peer = make_ready(codec)
    peer.connection.emit("before", {})
    request = peer.rekey()
    peer.connection.emit("after", {})
    before, answer, after = peer.connection.take_output()
    assert peer.sealing.open(before)["payload"]["event"] == "before"
    opened = peer.sealing.open(answer)
    assert (opened["type"], set(opened["payload"])) == ("handshake", {"key_agreement"})
    old = peer.sealing.keys
    # Crossed the answer: still under the old keys.
    assert isinstance(peer.send(make_command(message_id="c-1")), CommandReceived)
    new = peer.sealing.agree(request=request, answer=opened["payload"]["key_agreement"])
    assert old is not None
    assert new.key_id != old.key_id
    assert peer.sealing.open(after)["payload"]["event"] == "after"
    assert isinstance(peer.send(make_command(message_id="c-2")), CommandReceived)
    # The first message under the new keys was the last chance of the old ones.
    peer.send(make_command(message_id="c-3"), keys=old)
    assert peer.take_one()["payload"]["code"] == "security.decryption_failed"
    assert peer.connection.closing is Close.PROTOCOL_VIOLATED


def test_new_keys_are_asked_for_once_and_again_for_the_next() -> None:
    limits = RekeyLimits(messages=5, seconds=60)
    peer = make_ready()
    assert not peer.connection.ask_for_rekey(limits)
    peer.wire.advance(61)
    assert peer.connection.ask_for_rekey(limits)
    assert not peer.connection.ask_for_rekey(limits)
    assert peer.sealing.keys is not None
    event = peer.take_one()["payload"]
    assert event == {"event": "session.rekey_due", "data": {"key_id": peer.sealing.keys.key_id}}
    request = peer.rekey()
    answer = peer.take_one()["payload"]["key_agreement"]
    peer.sealing.agree(request=request, answer=answer)
    assert not peer.connection.ask_for_rekey(limits)
    for number in range(5):
        peer.send(make_command(message_id=f"c-{number}"))
    assert peer.connection.ask_for_rekey(limits)


def test_nobody_is_asked_where_nothing_is_sealed() -> None:
    wire = Wire(codec=JSON_CODEC)
    wire.shake_hands()
    wire.authenticate()
    wire.advance(100_000)
    assert not wire.connection.ask_for_rekey(RekeyLimits())


OFFER = {"algorithm": "X25519", "public_key": "CQ" + "A" * 41}
REKEYS: dict[str, tuple[dict[str, Any], str]] = {
    "a whole handshake": (
        {**HANDSHAKE, "key_agreement": OFFER},
        "protocol.unexpected_message",
    ),
    "no keys": ({}, "protocol.unexpected_message"),
    "another algorithm": ({"key_agreement": {"algorithm": "P-256", "public_key": "A"}}, "protocol.feature_not_agreed"),
    "a bad key": ({"key_agreement": {"algorithm": "X25519", "public_key": "A" * 43}}, "protocol.invalid_payload"),
}


@pytest.mark.parametrize("name", REKEYS)
def test_another_handshake_than_for_new_keys_changes_nothing(name: str) -> None:
    payload, code = REKEYS[name]
    peer = make_ready()
    peer.send({"id": "r-1", "type": "handshake", "payload": payload, "timestamp": TIMESTAMP})
    assert peer.take_one()["payload"]["code"] == code
    assert isinstance(peer.send(make_command(message_id="c-2")), CommandReceived)


def test_keys_that_are_not_in_use_yet_are_not_changed_again() -> None:
    peer = make_ready()
    request = peer.rekey()
    (answer,) = peer.take()
    again = {"id": "r-2", "type": "handshake", "payload": {"key_agreement": OFFER}, "timestamp": TIMESTAMP}
    frame = peer.sealing.encode(peer.sealing.seal(again))
    peer.sealing.agree(request=request, answer=answer["payload"]["key_agreement"])
    peer.give(frame)
    error = peer.take_one()
    assert (error["payload"]["code"], error["metadata"]) == (
        "protocol.unexpected_message",
        {"correlation_id": "r-2"},
    )
    assert isinstance(peer.send(make_command(message_id="c-2")), CommandReceived)


# Level critical


def test_at_critical_each_command_carries_a_signature() -> None:
    peer = make_ready(level="critical")
    peer.send(make_command(message_id="c-1"))
    error = peer.take_one()["payload"]
    assert (error["code"], error["details"]["path"]) == ("security.signature_invalid", "security.signature")
    message = make_command(message_id="c-2", metadata={"timeout_ms": 100})
    signature = peer.sealing.sign(message, key=SigningKey(), session_id="session")
    received = peer.send({**message, "security": {"signature": signature}})
    assert isinstance(received, CommandReceived)
    assert received.signed is not None
    assert received.signed.signature == signature
    assert received.signed.payload == peer.sealing.encode(message["payload"])
    assert received.signed.metadata == peer.sealing.encode(message["metadata"])
    heartbeat = {"id": "b-1", "type": "heartbeat", "payload": {}, "timestamp": TIMESTAMP}
    assert isinstance(peer.send(heartbeat), HeartbeatReceived)
    peer.take()
    peer.send({**heartbeat, "id": "b-2", "security": {"signature": signature}})
    assert peer.take_one()["payload"]["code"] == "protocol.feature_not_agreed"


# Any of them

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@BOTH
@given(value=JSON_VALUES)
@settings(deadline=None)
def test_any_value_comes_through_in_both_directions(codec: Codec, value: Any) -> None:
    peer = make_ready(codec)
    received = peer.send(make_command("x", {"value": value}))
    assert isinstance(received, CommandReceived)
    assert codec.decode(received.arguments, dict) == {"value": value}
    peer.connection.respond("c-1", ResponsePayload("x", value))
    assert peer.take_one()["payload"]["result"] == value


@BOTH
@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_any_flipped_bit_is_refused(codec: Codec, data: st.DataObject) -> None:
    peer = make_ready(codec)
    frame = bytearray(peer.sealing.encode(make_sealed_frame(peer)))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    try:
        received = peer.give(bytes(frame))
    except UnicodeDecodeError:
        received = peer.wire.receive(bytes(frame))
    assert received is None
    assert peer.take_one()["type"] == "error"
    assert peer.connection.closing is Close.PROTOCOL_VIOLATED


@BOTH
@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=8))
@settings(deadline=None)
def test_any_order_but_the_right_one_is_refused(codec: Codec, order: list[int]) -> None:
    peer = make_ready(codec)
    frames = [peer.sealing.seal(make_command(message_id=f"c-{number}")) for number in range(5)]
    for expected, place in enumerate(order):
        received = peer.give(peer.sealing.encode(frames[place]))
        if place == expected:
            assert isinstance(received, CommandReceived)
            continue
        assert received is None
        code = "security.replayed" if place < expected else "security.decryption_failed"
        assert peer.take_one()["payload"]["code"] == code
        assert peer.connection.closing is Close.PROTOCOL_VIOLATED
        return


@given(first=st.sampled_from(list(MessageType)))
@settings(deadline=None)
def test_nothing_unsealed_is_acted_upon(first: MessageType) -> None:
    peer = make_ready(MESSAGEPACK_CODEC)
    frame: dict[str, Any] = {"id": "x-1", "type": first.value, "payload": {}, "timestamp": TIMESTAMP}
    assert peer.give(peer.sealing.encode(frame)) is None
    assert peer.take_one()["payload"]["code"] == "security.encryption_required"
