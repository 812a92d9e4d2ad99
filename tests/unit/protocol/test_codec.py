"""Both encodings: what is decoded, what is refused and how, nesting counted without being built."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from protocol.domain.codec import (
    CODECS,
    JSON_CODEC,
    MAX_NESTING,
    MESSAGEPACK_CODEC,
    Codec,
    choose_codec,
    count_names,
    decode_metadata,
    has_deep_json,
    has_deep_msgpack,
)
from protocol.domain.messages import MessageType, Metadata, OutgoingMessage, OutgoingMetadata, Priority
from protocol.errors import InvalidMessage, InvalidMetadata

both_codecs = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)

# Integers as far as JSON's readers agree on them, text that UTF-8 can hold.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def encode(codec: Codec, value: Any) -> bytes:
    return msgspec.json.encode(value) if codec.is_text else msgspec.msgpack.encode(value)


def decode(codec: Codec, frame: bytes) -> Any:
    return msgspec.json.decode(frame) if codec.is_text else msgspec.msgpack.decode(frame)


def make_message(**fields: Any) -> dict[str, Any]:
    return {"id": "m-1", "type": "command", "payload": {}, "timestamp": "2026-11-20T16:31:00.123Z", **fields}


# Round trips


@both_codecs
@given(payload=json_values, metadata=st.none() | st.dictionaries(st.text(max_size=8), json_values, max_size=3))
def test_what_comes_in_keeps_its_values(codec: Codec, payload: Any, metadata: Any) -> None:
    envelope = codec.decode_envelope(encode(codec, make_message(payload=payload, metadata=metadata)))
    assert (envelope.id, envelope.type) == ("m-1", MessageType.COMMAND)
    assert codec.decode(envelope.payload, object) == payload
    assert codec.is_null(envelope.payload) == (payload is None)
    assert codec.is_null(envelope.metadata) == (metadata is None)
    assert codec.is_null(codec.decode_envelope(encode(codec, make_message())).metadata)


@both_codecs
@given(result=json_values)
def test_what_goes_out_keeps_its_values_and_stored_json_too(codec: Codec, result: Any) -> None:
    stored = Raw(msgspec.json.encode(result))
    message = OutgoingMessage(
        id="s-1",
        type=MessageType.RESPONSE,
        payload={"fresh": result, "stored": stored},
        timestamp="2026-11-20T16:31:00.123Z",
        metadata=OutgoingMetadata(correlation_id="m-1", sequence=2**40),
    )
    assert decode(codec, codec.encode(message)) == {
        "id": "s-1",
        "type": "response",
        "payload": {"fresh": result, "stored": result},
        "timestamp": "2026-11-20T16:31:00.123Z",
        "metadata": {"correlation_id": "m-1", "sequence": 2**40},
    }


@both_codecs
def test_null_and_absence_are_the_same(codec: Codec) -> None:
    envelope = codec.decode_envelope(encode(codec, make_message(metadata=None, security=None)))
    assert envelope.security is None
    assert decode_metadata(codec, envelope.metadata) == Metadata()


def test_white_space_around_a_null_is_no_part_of_it() -> None:
    text = b'{"id":"m","type":"event","payload":{},"timestamp":"2026-11-20T16:31:00Z","metadata" : \n null }'
    assert JSON_CODEC.is_null(JSON_CODEC.decode_envelope(text).metadata)


# What is no message

BAD_JSON: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n",
    "not JSON": b"hello",
    "single quotes": b"{'id': 1}",
    "cut off": b'{"id": "m-1", "type": "comm',
    "more behind it": msgspec.json.encode(make_message()) + b"{}",
    "a byte order mark": b"\xef\xbb\xbf" + msgspec.json.encode(make_message()),
    "a number": b"1",
    "a text": b'"command"',
    "null": b"null",
    "NaN": msgspec.json.encode(make_message()).replace(b"{}", b"NaN"),
    "bad UTF-8 in a key": b'{"\xff": 1}',
    "bad UTF-8 in a value": b'{"id": "\xff"}',
    "a lone surrogate": rb'{"id": "\ud800"}',
    "a control character": b'{"id": "a\x00"}',
    "an empty object": b"{}",
}
BAD_MSGPACK: dict[str, bytes] = {
    "nothing": b"",
    "cut off": b"\x82\xa2id",
    "more behind it": msgspec.msgpack.encode(make_message()) + b"\xc0",
    "the byte that is never used": b"\xc1",
    "a number": b"\x01",
    "nil": b"\xc0",
    "an empty map": b"\x80",
    "bad UTF-8 in a key": b"\x81\xa1\xff\x01",
    "bad UTF-8 in a value": b"\x81\xa2id\xa1\xff",
    "a map of four milliard entries": b"\xdf\xff\xff\xff\xff",
    "a text of four milliard bytes": b"\xdb\xff\xff\xff\xff",
    "keys that are bytes": msgspec.msgpack.encode({b"id": "m-1"}),
    "keys that are maps": b"\x81\x80\x01",
    "bad UTF-8 among many containers": msgspec.msgpack.encode([[]] * 100)[:-1] + b"\xa1\xff",
    "an extension type among many containers": msgspec.msgpack.encode(
        make_message(payload=[[]] * 100 + [msgspec.msgpack.Ext(5, b"x")])
    ),
    "keys that are nil among many containers": msgspec.msgpack.encode(make_message(payload=[[]] * 100))[:-1]
    + b"\x81\xc0\x01",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_an_invalid_message(name: str) -> None:
    with pytest.raises(InvalidMessage):
        JSON_CODEC.decode_envelope(BAD_JSON[name])


@pytest.mark.parametrize("name", BAD_MSGPACK)
def test_bad_messagepack_is_an_invalid_message(name: str) -> None:
    with pytest.raises(InvalidMessage):
        MESSAGEPACK_CODEC.decode_envelope(BAD_MSGPACK[name])


@both_codecs
@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": 1}, "id"),
        ({"id": ""}, "id"),
        ({"type": "order"}, "type"),
        ({"type": 3}, "type"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": "16:31"}, "timestamp"),
        ({"timestamp": "2026-11-20T16:31:00"}, "timestamp"),
        ({"security": []}, "security"),
        ({"security": {"security_level": "none"}}, "security.security_level"),
        ({"security": {"signature": 1}}, "security.signature"),
        ({"security": {"x": 1}}, "security"),
        ({"colour": "red"}, ""),
    ],
)
def test_what_is_wrong_with_a_message_is_told_with_its_place(codec: Codec, change: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        codec.decode_envelope(encode(codec, make_message(**change)))
    assert refused.value.details == {"path": path}


@both_codecs
@pytest.mark.parametrize("field", ["id", "type", "payload", "timestamp"])
def test_no_field_may_be_missing(codec: Codec, field: str) -> None:
    message = make_message()
    del message[field]
    with pytest.raises(InvalidMessage):
        codec.decode_envelope(encode(codec, message))


@given(frame=st.binary(max_size=200))
@both_codecs
def test_no_frame_raises_anything_else(codec: Codec, frame: bytes) -> None:
    codec.is_array(frame)
    codec.find_id(frame)
    with contextlib.suppress(InvalidMessage):
        codec.decode_envelope(frame)


@given(cut=st.integers(0, 200), noise=st.binary(min_size=1, max_size=3))
@both_codecs
def test_no_damaged_message_raises_anything_else(codec: Codec, cut: int, noise: bytes) -> None:
    frame = encode(codec, make_message(payload={"command": "a", "arguments": [1.5, "é", {"x": None}]}, metadata={}))
    frame = frame[:cut] + noise + frame[cut + len(noise) :]
    try:
        envelope = codec.decode_envelope(frame)
        decode_metadata(codec, envelope.metadata)
        codec.decode(envelope.payload, object)
    except (InvalidMessage, InvalidMetadata, msgspec.DecodeError, UnicodeDecodeError):
        pass


# Finding whose a refused message was


@both_codecs
@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({"id": "m-1"}, "m-1"),
        ({"colour": ["red"], "id": "m-1", "type": 7}, "m-1"),
        ({"id": "a b"}, None),
        ({"id": 1}, None),
        ({}, None),
        (["m-1"], None),
        (None, None),
    ],
)
def test_the_id_of_a_refused_message_is_found(codec: Codec, message: object, found: str | None) -> None:
    assert codec.find_id(encode(codec, message)) == found


def test_no_id_is_looked_for_in_the_depth() -> None:
    assert JSON_CODEC.find_id(b'{"a":' + b"[" * 100_000) is None
    assert MESSAGEPACK_CODEC.find_id(b"\x81\xa1a" + b"\x91" * 100_000) is None


# Arrays of messages


@pytest.mark.parametrize("size", [0, 1, 15, 16, 65_536])
def test_an_array_is_known_by_its_first_bytes(size: int) -> None:
    assert JSON_CODEC.is_array(b" \t\r\n" + msgspec.json.encode([0] * size))
    assert MESSAGEPACK_CODEC.is_array(msgspec.msgpack.encode([0] * size))


@both_codecs
@pytest.mark.parametrize("value", [{}, {"a": []}, "[", 1, None, -100, 2**40, 1.5])
def test_what_is_no_array(codec: Codec, value: object) -> None:
    assert not codec.is_array(encode(codec, value))


# Nesting


def nest(depth: int) -> Any:
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@both_codecs
def test_nesting_is_counted_from_the_message_on(codec: Codec) -> None:
    codec.decode_envelope(encode(codec, make_message(payload=nest(MAX_NESTING - 1))))
    with pytest.raises(InvalidMessage) as refused:
        codec.decode_envelope(encode(codec, make_message(payload=nest(MAX_NESTING))))
    assert refused.value.details == {"max_nesting": MAX_NESTING}


@both_codecs
@pytest.mark.parametrize("depth", [1_000, 10_000])
def test_any_depth_is_refused_alike(codec: Codec, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth if codec.is_text else b"\x91" * depth + b"\x00"
    frame = encode(codec, make_message(payload="here")).replace(b'"here"' if codec.is_text else b"\xa4here", deep)
    with pytest.raises(InvalidMessage) as refused:
        codec.decode_envelope(frame)
    assert refused.value.details == {"max_nesting": MAX_NESTING}


def measure_depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(measure_depth, parts), default=0)


@given(
    value=st.recursive(
        st.text(st.sampled_from('[]{}"\\')) | st.integers(0, 9),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3)
            | st.dictionaries(st.text(st.sampled_from('[{"\\')), inner, max_size=2)
        ),
        max_leaves=40,
    ),
    wrapped=st.integers(0, 70),
)
def test_depth_is_right_for_every_value(value: Any, wrapped: int) -> None:
    for _ in range(wrapped):
        value = [value]
    is_deep = measure_depth(value) > MAX_NESTING
    assert has_deep_json(msgspec.json.encode(value)) == is_deep
    assert has_deep_msgpack(msgspec.msgpack.encode(value)) == is_deep


def scan_depth(frame: bytes) -> bool:
    """The same question, answered byte by byte."""
    depth = deepest = 0
    is_in_string = False
    frame_bytes = iter(frame)
    for byte in frame_bytes:
        if is_in_string:
            if byte == ord("\\"):
                next(frame_bytes, None)
            is_in_string = byte != ord('"')
        elif byte == ord('"'):
            is_in_string = True
        else:
            depth += (byte in b"[{") - (byte in b"]}")
            deepest = max(deepest, depth)
    return deepest > MAX_NESTING


pieces = st.sampled_from(
    [b"[", b"]", b"{", b"}", b'"', b"\\", b'\\"', b'"[[["', b'"\\\\"', b"\n", b"[" * 63, b"[" * 64, b"]" * 64, b"\xff"]
)


@given(st.lists(pieces, max_size=30).map(b"".join))
def test_depth_of_any_bytes_is_what_a_scan_finds(frame: bytes) -> None:
    assert has_deep_json(frame) == scan_depth(frame)


def count_seconds(work: Callable[[], object]) -> float:
    def run_once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(run_once() for _ in range(5))


HOSTILE: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "openers": (has_deep_json, b"["),
    "keys": (has_deep_json, b'{"a":'),
    "quotes": (has_deep_json, b'[""'),
    "openers in open strings": (has_deep_json, b'["['),
    "escapes": (has_deep_json, b'"[\\'),
    "backslashes": (has_deep_json, b"[\\\\"),
    "escaped quotes": (has_deep_json, b'[\\"'),
    "flat": (has_deep_json, b"[],"),
    "MessagePack openers": (JSON_CODEC.find_id, b"\x91"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_work_grows_no_faster_than_the_frame(name: str) -> None:
    """Eight times the bytes may cost eight times the work; what grows with the square costs sixty-four."""
    judge, piece = HOSTILE[name]
    small, large = (piece * (size // len(piece)) for size in (1 << 17, 1 << 20))
    base = max(count_seconds(lambda: judge(small)), 1e-4)
    assert count_seconds(lambda: judge(large)) < 24 * base


@pytest.mark.parametrize(
    "frame",
    [
        b"\x91" * (1 << 20),
        b"\x81\xa1a" * (1 << 18),
        b"\xdd\xff\xff\xff\xff" * (1 << 17),
        b"\xdc\xff\xff" + b"\x90" * 65_535,
        b"\xdf\x00\x00\x00\x01\xa1a" * (1 << 17),
    ],
    ids=["arrays", "maps", "arrays that promise too much", "a flat array", "long heads"],
)
def test_hostile_messagepack_is_refused_at_once(frame: bytes) -> None:
    def judge() -> None:
        with pytest.raises(InvalidMessage):
            MESSAGEPACK_CODEC.decode_envelope(frame)

    assert count_seconds(judge) < 0.5


# Metadata


@both_codecs
@given(extra=st.dictionaries(st.text(max_size=8).map("x-{}".format), json_values, max_size=3))
def test_foreign_keys_pass_and_known_ones_keep_their_meaning(codec: Codec, extra: dict[str, Any]) -> None:
    raw = Raw(encode(codec, {**extra, "priority": "urgent", "timeout_ms": 5}))
    assert decode_metadata(codec, raw) == Metadata(priority=Priority.URGENT, timeout_ms=5)


@both_codecs
@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"hurry": 1}, "metadata.hurry"),
        ({"X-upper": 1}, "metadata.X-upper"),
        ({"priority": "NOW"}, "metadata.priority"),
        ({"x-a": 1, "sequence": 0}, "metadata.sequence"),
        ({"timeout_ms": 86_400_001}, "metadata.timeout_ms"),
        ({"timeout_ms": 1.5}, "metadata.timeout_ms"),
        ({"correlation_id": "a b"}, "metadata.correlation_id"),
        ({"idempotency_key": ""}, "metadata.idempotency_key"),
        ({"idempotency_key": "k" * 256}, "metadata.idempotency_key"),
        ([], "metadata"),
        ("x", "metadata"),
    ],
)
def test_wrong_metadata_is_told_with_its_place(codec: Codec, metadata: object, path: str) -> None:
    with pytest.raises(InvalidMetadata) as refused:
        decode_metadata(codec, Raw(encode(codec, metadata)))
    assert refused.value.details == {"path": path}


@pytest.mark.parametrize("raw", [b"\x81\xa1\xff\x01", b"\x81\xa3x-a\xa1\xff", b"\x81\xa8priority\xa1\xff"])
def test_bad_text_in_metadata_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidMetadata):
        decode_metadata(MESSAGEPACK_CODEC, Raw(raw))


# Choosing


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], JSON_CODEC),
        (["mcp.v1.json"], JSON_CODEC),
        (["mcp.v1.json", "mcp.v1.msgpack"], MESSAGEPACK_CODEC),
        (["chat", "mcp.v1.json"], JSON_CODEC),
        (["chat"], None),
        (["MCP.V1.JSON"], None),
        ([""], None),
    ],
)
def test_the_server_prefers_messagepack_of_what_is_offered(offered: list[str], chosen: Codec | None) -> None:
    assert choose_codec(offered) is chosen


def test_every_order_of_offers_is_chosen_from_alike() -> None:
    for offered in itertools.permutations([codec.subprotocol for codec in CODECS]):
        assert choose_codec(list(offered)) is MESSAGEPACK_CODEC


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"{}", 0),
        (b'{"a":1}', 1),
        (b'{"a":1,"a":2}', 2),
        (b'{"a:b":":","c":{"d":1,"e":[{"f":2}]}}', 2),
        (b'{"a\\":":1, "b" : [":"]}', 2),
    ],
)
def test_names_of_the_outermost_object_are_counted(text: bytes, names: int) -> None:
    assert count_names(text) == names
