"""One connection, frame by frame: commands, their window and answers, heartbeats, events, draining, closing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from protocol.domain.activity import LATENCIES_KEPT
from protocol.domain.codec import CODECS, JSON_CODEC, MESSAGEPACK_CODEC, Codec
from protocol.domain.connection import (
    MAX_REPEATS,
    MAX_UNSENT_EVENTS,
)
from protocol.domain.messages import (
    ApiKeyCredentials,
    Authentication,
    JwtCredentials,
    MessageType,
    PasswordCredentials,
    Priority,
    ResponsePayload,
    SecurityLevel,
)
from protocol.domain.received import AuthenticationReceived, CommandReceived, HeartbeatReceived
from protocol.domain.states import Close, State
from protocol.errors import AccessDenied, AuthenticationFailed, DuplicateId, InternalError
from tests.wire import CREDENTIALS, START, TERMS, Wire, make_authentication_answer, make_ready

both_codecs = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)


@pytest.fixture
def wire() -> Wire:
    return Wire(codec=JSON_CODEC)


@pytest.fixture
def ready() -> Wire:
    return make_ready()


@both_codecs
def test_from_the_first_frame_to_an_answered_command(codec: Codec) -> None:
    wire = Wire(codec=codec)
    wire.shake_hands()
    assert wire.get_state() is State.AUTHENTICATING
    answer = wire.authenticate()
    assert (answer["type"], answer["metadata"]) == ("authentication", {"correlation_id": "m-1"})
    assert answer["payload"]["authenticated"] is True
    assert wire.get_state() is State.READY

    received = wire.send_command("text.say", {"n": 1}, message_id="c-1", metadata={"priority": "high"})
    assert isinstance(received, CommandReceived)
    assert (received.message_id, received.command, received.security_level) == ("c-1", "text.say", "standard")
    assert received.metadata.priority is Priority.HIGH
    assert codec.decode(received.arguments, dict[str, int]) == {"n": 1}
    assert wire.take() == []

    wire.connection.respond("c-1", ResponsePayload("text.say", {"said": True}), sequence=3)
    answer = wire.take_one()
    assert answer["type"] == "response"
    assert answer["payload"] == {"command": "text.say", "result": {"said": True}}
    assert answer["metadata"] == {"correlation_id": "c-1", "sequence": 3}
    assert answer["timestamp"] == "2026-11-20T16:31:00.000Z"
    assert answer["id"].startswith("server-")


def test_credentials_are_handed_to_the_caller_and_hidden(wire: Wire) -> None:
    wire.shake_hands()
    received = wire.send("authentication", CREDENTIALS, message_id="a-1")
    assert isinstance(received, AuthenticationReceived)
    assert (received.message_id, received.credentials) == ("a-1", ApiKeyCredentials("mcp_secret"))
    assert "mcp_secret" not in repr(received)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"method": "jwt", "token": "hidden-1"}, JwtCredentials("hidden-1")),
        (
            {"method": "password", "username": "hidden-2", "password": "hidden-3"},
            PasswordCredentials("hidden-2", "hidden-3"),
        ),
    ],
)
def test_every_kind_of_credentials_is_decoded_and_hidden(
    wire: Wire, payload: dict[str, Any], expected: Authentication
) -> None:
    wire.shake_hands()
    received = wire.send("authentication", payload)
    assert isinstance(received, AuthenticationReceived)
    assert received.credentials == expected
    assert "hidden-" not in repr(received)


@pytest.mark.parametrize(
    "payload",
    [
        {"method": "jwt"},
        {"method": "jwt", "key": "k"},
        {"method": "jwt", "token": "t" * 4097},
        {"method": "password", "username": "u"},
        {"method": "password", "username": "u" * 151, "password": "p"},
        {"method": "password", "username": "u", "password": "p" * 1025},
        {"method": "magic", "key": "k"},
        {"key": "k"},
    ],
)
def test_what_are_no_credentials_is_refused(wire: Wire, payload: dict[str, Any]) -> None:
    wire.shake_hands()
    assert wire.send("authentication", payload) is None
    assert wire.take_one()["payload"]["code"] == "protocol.invalid_payload"


def test_failed_authentication_can_be_tried_again(wire: Wire) -> None:
    wire.shake_hands()
    assert wire.send("authentication", CREDENTIALS, message_id="a-1") is not None
    wire.connection.fail("a-1", AuthenticationFailed())
    assert wire.take_error()["code"] == "security.authentication_failed"
    assert wire.get_state() is State.AUTHENTICATING
    wire.authenticate()
    assert wire.get_state() is State.READY


def test_authentication_again_leaves_a_ready_connection_ready(ready: Wire) -> None:
    assert isinstance(ready.send("authentication", CREDENTIALS, message_id="a-2"), AuthenticationReceived)
    ready.connection.accept_authentication("a-2", make_authentication_answer(ready.connection))
    assert ready.take_one()["metadata"]["correlation_id"] == "a-2"
    assert ready.connection.state is State.READY


# What is refused, and what it leaves behind

MESSAGE: dict[str, Any] = {
    "id": "m-1",
    "type": "command",
    "payload": {"command": "session.ping", "arguments": {}},
    "timestamp": "2026-11-20T16:31:00.123Z",
}
REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "auth_token": ({"security": {"auth_token": "t"}}, "protocol.invalid_message", "security.auth_token"),
    "sealed": ({"security": {"encryption_info": {}}}, "protocol.feature_not_agreed", "security.encryption_info"),
    "signed": ({"security": {"signature": "ed25519:…"}}, "protocol.feature_not_agreed", "security.signature"),
    "lower level": ({"security": {"security_level": "low"}}, "security.security_level_too_low", None),
    "higher level": (
        {"security": {"security_level": "high"}},
        "protocol.feature_not_agreed",
        "security.security_level",
    ),
    "compressed": (
        {"metadata": {"content_encoding": "deflate"}},
        "protocol.feature_not_agreed",
        "metadata.content_encoding",
    ),
    "metadata of a wrong type": ({"metadata": {"timeout_ms": "5"}}, "protocol.invalid_metadata", "metadata.timeout_ms"),
    "no deadline": ({"metadata": {"timeout_ms": 0}}, "protocol.invalid_metadata", "metadata.timeout_ms"),
    "endless deadline": ({"metadata": {"timeout_ms": 2**40}}, "protocol.invalid_metadata", "metadata.timeout_ms"),
    "unknown metadata": ({"metadata": {"hurry": 1}}, "protocol.invalid_metadata", "metadata.hurry"),
    "unknown metadata beside x-": (
        {"metadata": {"x-a": 1, "hurry": 1}},
        "protocol.invalid_metadata",
        "metadata.hurry",
    ),
    "wrong metadata beside x-": (
        {"metadata": {"x-a": 1, "priority": "now"}},
        "protocol.invalid_metadata",
        "metadata.priority",
    ),
    "metadata that is a list": ({"metadata": []}, "protocol.invalid_metadata", "metadata"),
    "no payload": ({"payload": None}, "protocol.invalid_payload", "payload"),
    "payload of a wrong type": ({"payload": "x"}, "protocol.invalid_payload", "payload"),
    "no command": ({"payload": {"arguments": {}}}, "protocol.invalid_payload", "payload"),
    "command of a wrong type": ({"payload": {"command": 1}}, "protocol.invalid_payload", "payload.command"),
    "endless command": ({"payload": {"command": "c" * 101}}, "protocol.invalid_payload", "payload.command"),
    "unknown field in the payload": (
        {"payload": {"command": "session.ping", "args": {}}},
        "protocol.invalid_payload",
        "payload",
    ),
    "unknown field": ({"extra": 1}, "protocol.invalid_message", ""),
    "unknown type": ({"type": "order"}, "protocol.invalid_message", "type"),
    "timestamp that is none": ({"timestamp": "yesterday"}, "protocol.invalid_message", "timestamp"),
    "timestamp without a zone": ({"timestamp": "2026-11-20T16:31:00"}, "protocol.invalid_message", "timestamp"),
    "unknown security field": ({"security": {"level": "low"}}, "protocol.invalid_message", "security"),
}


@both_codecs
@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_command_is_answered_and_changes_nothing(codec: Codec, name: str) -> None:
    change, code, path = REFUSED[name]
    wire = make_ready(codec)
    assert wire.receive(wire.encode({**MESSAGE, **change})) is None
    answer = wire.take_one()
    assert (answer["type"], answer["payload"]["code"]) == ("error", code)
    assert answer["payload"]["details"].get("path") == path
    assert answer["metadata"] == {"correlation_id": "m-1"}, "the client cannot know which message it was"
    assert wire.connection.activity.pending == {}
    assert isinstance(wire.send_command(message_id="m-1"), CommandReceived), "the connection is not usable any more"


@both_codecs
@pytest.mark.parametrize("message_id", ["", "a b", "é", "x" * 65, "m\n", 7, None])
def test_an_id_that_is_none_is_not_repeated(codec: Codec, message_id: object) -> None:
    wire = make_ready(codec)
    wire.connection.receive(wire.encode({**MESSAGE, "id": message_id}))
    answer = wire.take_one()
    assert answer["payload"]["code"] == "protocol.invalid_message"
    assert answer["payload"]["details"]["path"] == "id"
    assert "metadata" not in answer


@pytest.mark.parametrize("message_id", ["0", "x" * 64, "A.z_9:-"])
def test_an_id_of_the_allowed_characters_is_repeated(ready: Wire, message_id: str) -> None:
    assert isinstance(ready.send_command(message_id=message_id), CommandReceived)


def test_a_message_that_fits_nowhere_never_ends_the_command_of_the_same_id(ready: Wire) -> None:
    for message_type, payload in (("handshake", {}), ("state_sync", {}), ("authentication", CREDENTIALS)):
        assert isinstance(ready.send_command("text.say", message_id="same"), CommandReceived)
        assert ready.send(message_type, payload, message_id="same") is None
        assert ready.take_error()["code"] in ("protocol.unexpected_message", "protocol.duplicate_id")
        ready.connection.receive(ready.encode({**MESSAGE, "id": "same", "extra": 1}))
        assert ready.take_error()["code"] == "protocol.invalid_message"
        assert list(ready.connection.activity.pending) == ["same"]
        ready.connection.respond("same", ResponsePayload("text.say", None))
        ready.take()


def test_a_name_from_the_client_does_not_swell_the_error(ready: Wire) -> None:
    for change in ({"x" * 100_000: 1}, {"metadata": {"y" * 100_000: 1}}, {"type": "z" * 100_000}):
        ready.connection.receive(ready.encode({**MESSAGE, **change}))
        assert len(msgspec.json.encode(ready.take_error())) < 1_000


@pytest.mark.parametrize(
    "metadata", [None, {}, {"x-trace": [1, {"deep": True}]}, {"x-": 1, "priority": "low"}, {"timeout_ms": 1}]
)
def test_metadata_that_is_allowed(ready: Wire, metadata: object) -> None:
    assert isinstance(ready.send_command(metadata=metadata), CommandReceived)


@pytest.mark.parametrize("security", [None, {}, {"security_level": "standard"}, {"auth_token": None}])
def test_security_that_is_allowed(ready: Wire, security: object) -> None:
    received = ready.send_command(security=security)
    assert isinstance(received, CommandReceived)
    assert received.security_level is SecurityLevel.STANDARD


# Frames of the wrong kind

TEXT = MESSAGE | {"id": "t-1"}


@pytest.mark.parametrize(
    ("codec", "frame", "code"),
    [
        (JSON_CODEC, msgspec.json.encode(TEXT), "transport.frame_invalid"),
        (JSON_CODEC, b"\xff\xfe", "protocol.invalid_message"),
        (JSON_CODEC, "", "protocol.invalid_message"),
        (JSON_CODEC, b"", "transport.frame_invalid"),
        (JSON_CODEC, "\ud800", "protocol.invalid_message"),
        (JSON_CODEC, "[]", "protocol.feature_not_agreed"),
        (JSON_CODEC, ' \n\t[{"id": "a"}]', "protocol.feature_not_agreed"),
        (MESSAGEPACK_CODEC, msgspec.json.encode(TEXT).decode(), "transport.frame_invalid"),
        (MESSAGEPACK_CODEC, b"", "protocol.invalid_message"),
        (MESSAGEPACK_CODEC, b"\x90", "protocol.feature_not_agreed"),
        (MESSAGEPACK_CODEC, b"\xdc\x00\x00", "protocol.feature_not_agreed"),
        (MESSAGEPACK_CODEC, b"\xdd\xff\xff\xff\xff", "protocol.feature_not_agreed"),
    ],
)
def test_frames_of_the_wrong_kind(codec: Codec, frame: str | bytes, code: str) -> None:
    wire = make_ready(codec)
    assert wire.connection.receive(frame) is None
    assert wire.take_error()["code"] == code
    assert isinstance(wire.send_command(), CommandReceived)


def test_the_handshake_comes_alone_in_its_frame(wire: Wire) -> None:
    wire.connection.receive("[{}]")
    assert wire.take_error()["code"] == "protocol.unexpected_message"


# In flight


def test_the_window_is_bounded_and_opens_with_each_answer() -> None:
    wire = make_ready(max_in_flight=3)
    for number in range(3):
        assert isinstance(wire.send_command(message_id=f"c-{number}"), CommandReceived)
    assert wire.send_command(message_id="c-3") is None
    answer = wire.take_one()
    assert answer["metadata"]["correlation_id"] == "c-3"
    assert answer["payload"]["code"] == "system.overloaded"
    assert answer["payload"]["retryable"] is True
    assert answer["payload"]["retry_after_ms"] > 0
    wire.connection.fail("c-1", AccessDenied())
    wire.take()
    assert isinstance(wire.send_command(message_id="c-3"), CommandReceived)
    assert wire.send_command(message_id="c-4") is None


def test_heartbeats_pass_a_full_window() -> None:
    wire = make_ready(max_in_flight=1)
    wire.send_command(message_id="c-1")
    assert wire.send("heartbeat", {"ack": 7}, message_id="h-1") == HeartbeatReceived(ack=7)
    answer = wire.take_one()
    assert (answer["type"], answer["metadata"]) == ("heartbeat", {"correlation_id": "h-1"})
    assert answer["payload"]["ack"] == 0
    assert answer["payload"]["server_time"].startswith("2026-11-20T16:31:00")


@pytest.mark.parametrize("payload", [{"ack": -1}, {"ack": "1"}, {"ack": 1.5}, {"seen": 1}])
def test_bad_heartbeats_are_refused(ready: Wire, payload: dict[str, object]) -> None:
    assert ready.send("heartbeat", payload) is None
    assert ready.take_error()["code"] == "protocol.invalid_payload"


def test_an_id_in_flight_is_a_duplicate_and_its_command_goes_on(ready: Wire) -> None:
    ready.send_command("a", message_id="same")
    assert ready.send_command("b", message_id="same") is None
    assert ready.take_error()["code"] == "protocol.duplicate_id"
    assert ready.connection.activity.pending["same"].command == "a"
    ready.connection.respond("same", ResponsePayload("a", None))
    ready.take()
    assert isinstance(ready.send_command("b", message_id="same"), CommandReceived)


def test_the_same_command_sent_again_in_flight_is_answered_as_often(ready: Wire) -> None:
    ready.send_command("a", message_id="same")
    again = ready.send_command("a", message_id="same")
    assert isinstance(again, CommandReceived)
    assert again.is_repeated
    again.pending.repeats += 1
    body = msgspec.json.encode(ResponsePayload("a", {"n": 1}))
    ready.connection.deliver(MessageType.RESPONSE, body, correlation_id="same", sequence=1)
    first, second = ready.take()
    assert (first["metadata"]["sequence"], first["payload"]) == (1, {"command": "a", "result": {"n": 1}})
    assert second["metadata"] == {"correlation_id": "same"}
    assert second["payload"] == {"command": "a", "result": {"n": 1}, "duplicate": True}


def test_a_command_is_sent_again_only_so_often(ready: Wire) -> None:
    ready.send_command("a", message_id="same")
    for _ in range(MAX_REPEATS):
        again = ready.send_command("a", message_id="same")
        assert isinstance(again, CommandReceived)
        again.pending.repeats += 1
    assert ready.send_command("a", message_id="same") is None
    assert ready.take_error()["code"] == "protocol.duplicate_id"


def test_a_cancellation_is_taken_although_the_window_is_full(ready: Wire) -> None:
    for number in range(ready.connection.max_in_flight):
        ready.send_command("a", message_id=f"m-{number}")
    assert ready.send_command("a", message_id="more") is None
    assert ready.take_error()["code"] == "system.overloaded"
    assert isinstance(ready.send_command("command.cancel", message_id="stop"), CommandReceived)


def test_a_command_that_is_itself_a_duplicate_frees_its_place(ready: Wire) -> None:
    """The handler may find that an earlier command of the session had the id."""
    ready.send_command("a", message_id="again")
    ready.connection.fail("again", DuplicateId())
    assert ready.take_error()["code"] == "protocol.duplicate_id"
    assert ready.connection.activity.pending == {}


def test_an_answer_out_of_the_outbox_frees_its_place_too(ready: Wire) -> None:
    ready.send_command(message_id="c-1")
    body = msgspec.json.encode(ResponsePayload("tools.execute", {"n": 2**53}))
    ready.connection.deliver(MessageType.RESPONSE, body, correlation_id="c-1", sequence=1)
    answer = ready.take_one()
    assert answer["payload"] == {"command": "tools.execute", "result": {"n": 2**53}}
    assert answer["metadata"] == {"correlation_id": "c-1", "sequence": 1}
    assert ready.connection.activity.pending == {}


# Errors as they go out


def test_an_error_has_the_protocols_fields(ready: Wire) -> None:
    ready.send_command(message_id="c-1")
    ready.connection.fail("c-1", AccessDenied(details={"action": "tools.execute"}), trace_id="f" * 32)
    assert ready.take_error() == {
        "code": "security.access_denied",
        "category": "security",
        "message": AccessDenied.get_default_message(),
        "retryable": False,
        "retry_after_ms": None,
        "details": {"action": "tools.execute"},
        "trace_id": "f" * 32,
    }


# Events


def test_events_of_a_command_end_with_its_answer(ready: Wire) -> None:
    ready.send_command(message_id="c-1")
    assert ready.connection.emit("execution.progress", {"fraction": 0.5}, correlation_id="c-1")
    ready.connection.respond("c-1", ResponsePayload("text.say", None))
    assert not ready.connection.emit("execution.progress", {"fraction": 1.0}, correlation_id="c-1")
    event, answer = ready.take()
    assert (event["type"], event["payload"]) == (
        "event",
        {"event": "execution.progress", "data": {"fraction": 0.5}},
    )
    assert (event["metadata"], answer["type"]) == ({"correlation_id": "c-1"}, "response")


def test_events_without_a_command_go_out_at_any_time(ready: Wire) -> None:
    assert ready.connection.emit("session.draining", {})
    assert "metadata" not in ready.take_one()


def test_events_beyond_what_a_slow_reader_may_owe_are_dropped_and_announced(ready: Wire) -> None:
    emitted = [ready.connection.emit("tick", n) for n in range(MAX_UNSENT_EVENTS + 3)]
    assert emitted == [True] * MAX_UNSENT_EVENTS + [False] * 3
    ready.send_command(message_id="c-1")
    ready.connection.respond("c-1", ResponsePayload("ping", None))
    sent = ready.take()
    assert [message["payload"]["data"] for message in sent[:-1]] == list(range(MAX_UNSENT_EVENTS))
    assert sent[-1]["type"] == "response", "an answer was dropped"
    assert ready.take_one()["payload"] == {"event": "session.lagged", "data": {"dropped": 3}}
    assert ready.take() == []
    assert ready.connection.emit("tick", 0)


# The client's own limit


@both_codecs
def test_what_the_client_does_not_take_is_told_as_an_error_in_its_place(codec: Codec) -> None:
    wire = make_ready(codec, max_message_size=1024)
    wire.send_command(message_id="c-1")
    wire.connection.respond("c-1", ResponsePayload("files.read", {"text": "x" * 1024}), sequence=9)
    (frame,) = wire.connection.take_output()
    assert len(frame) <= 1024
    answer = wire.decode(frame)
    assert (answer["type"], answer["payload"]["code"]) == ("error", "protocol.message_too_large")
    assert answer["metadata"] == {"correlation_id": "c-1", "sequence": 9}
    assert wire.connection.activity.pending == {}


def test_events_that_the_client_does_not_take_are_left_out_and_hold_nothing_up() -> None:
    wire = make_ready(max_message_size=1024)
    for _ in range(MAX_UNSENT_EVENTS + 1):
        wire.connection.emit("big", "x" * 1024)
    assert not wire.connection.has_output()
    assert wire.connection.emit("small", 1)
    assert wire.take_one()["payload"]["event"] == "small"


def test_output_is_counted_until_it_is_taken(ready: Wire) -> None:
    ready.connection.emit("tick", "x" * 5000)
    assert 5000 < ready.connection.output_bytes < 5500
    ready.take()
    assert ready.connection.output_bytes == 0
    assert not ready.connection.has_output()


# Draining and closing


def test_a_draining_connection_answers_what_runs_and_takes_nothing_new(ready: Wire) -> None:
    ready.send_command(message_id="c-1")
    ready.connection.begin_drain()
    ready.connection.begin_drain()
    assert ready.send_command(message_id="c-2") is None
    answer = ready.take_one()
    assert answer["metadata"]["correlation_id"] == "c-2"
    assert answer["payload"]["code"] == "system.unavailable"
    assert answer["payload"]["retryable"] is True
    ready.connection.respond("c-1", ResponsePayload("ping", None))
    assert ready.take_one()["type"] == "response"


def test_the_first_reason_to_close_stands(ready: Wire) -> None:
    ready.connection.close(Close.RESTARTING)
    ready.connection.close(Close.DEADLINE_MISSED)
    assert ready.connection.closing is Close.RESTARTING
    ready.connection.begin_drain()
    assert ready.connection.state is State.CLOSED


# What it remembers of its traffic


def test_activity_counts_what_the_status_shows(ready: Wire) -> None:
    before = ready.connection.activity.message_count
    ready.advance(1)
    ready.send_command("a", message_id="c-1")
    ready.send_command("b", message_id="c-2")
    ready.connection.receive("nonsense")
    activity = ready.connection.activity
    assert activity.message_count == before + 3
    assert activity.error_count == 1
    assert activity.last_message_id == "c-2"
    assert activity.last_activity == START + timedelta(seconds=1)
    assert [(entry.message_id, entry.command) for entry in activity.pending.values()] == [("c-1", "a"), ("c-2", "b")]
    ready.connection.fail("c-1", InternalError())
    assert activity.error_count == 2


def test_latencies_are_counted_from_receipt_and_bounded(ready: Wire) -> None:
    activity = ready.connection.activity
    assert activity.get_latency_percentiles_ms() == {"p50": None, "p95": None, "p99": None}
    for number in range(1, 101):
        ready.send_command(message_id="c")
        ready.advance(number / 1000)
        ready.connection.respond("c", ResponsePayload("ping", None))
    assert activity.get_latency_percentiles_ms() == {"p50": 51.0, "p95": 95.0, "p99": 99.0}
    for _ in range(2 * LATENCIES_KEPT):
        ready.send_command(message_id="c")
        ready.connection.respond("c", ResponsePayload("ping", None))
    assert len(activity.latencies_seconds) == LATENCIES_KEPT
    assert activity.get_latency_percentiles_ms()["p99"] == 0


def test_the_server_window_bounds_what_the_client_asks_for() -> None:
    assert make_ready(max_in_flight=10_000).connection.max_in_flight == TERMS.limits.max_in_flight
