"""What is done to a valid message: to its value, to its bytes, and to the frames that carry it. Pure and repeatable."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from tests.client import Encoding
from tests.faults.fuzz.raw_socket import Opcode, encode_frame
from tests.faults.fuzz.seeds import Seed, Value

EXTREMES: tuple[Value, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**400, 0.1, -0.0,
    1e308, float("inf"), float("nan"), "", " ", "\x00", "\ud800", "😀" * 40, "a" * 65, "a" * 300,
    "a" * 5_000, "../" * 20,
    "' OR 1=1 --", "{{7*7}}", "<script>alert(1)</script>", "%s%n%x", "*", "$ref", "__class__", "0", "-1", "1e9", "true",
    "2026-02-30T00:00:00Z", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999999+23:59", "2026-11-20T16:31:00",
    [], [[]], {}, {"": None}, {"a": {"$ref": "file:///etc/passwd"}}, ["x"] * 300, {str(n): n for n in range(300)},
)  # fmt: skip
"""Values that are often forgotten."""
MAX_PLACES = 500
"""Of a value that is mutated again: what repeats what was repeated would keep the client busy for seconds."""
MAX_DATA_BYTES = 60_000
"""Beyond it a mutation leaves the frame as it is: larger ones are cut off by their size and teach nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is sent, and what may be said of its answer."""

    kind: str
    mutation: str
    wire: bytes
    """The bytes of one WebSocket frame or several."""
    data: bytes = b""
    """What they carry, for people."""
    is_message: bool = True
    """Whether it brings the server one whole message, which deserves an answer, and leaves the connection as it is."""


# The value


def list_places(value: Value, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in it, its own first."""
    places = [path]
    if isinstance(value, dict):
        for key, part in value.items():
            places += list_places(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            places += list_places(part, (*path, number))
    return places


def nest(depth: int, *, is_object: bool) -> Value:
    value: Value = None
    for _ in range(depth):
        value = {"a": value} if is_object else [value]
    return value


def mutate_value(value: Value, chance: random.Random, others: tuple[Seed, ...]) -> tuple[str, Value]:
    """The value with one thing changed somewhere; what was done, and the value."""
    places = list_places(value)
    if len(places) > MAX_PLACES:
        return "as it is", value
    # What lies deep is where the envelope's own checks do not end the matter.
    path = max(chance.sample(places, min(len(places), 2)), key=len)
    if not path:
        return "replace", chance.choice(EXTREMES)
    changed = copy.deepcopy(value)
    parent = get_part(changed, path[:-1])
    what = chance.choice(
        ("replace", "replace", "replace", "delete", "nest", "swap", "graft", "rename", "add", "repeat")
    )
    if what == "delete":
        del parent[path[-1]]
    elif what in ("rename", "add", "repeat"):
        change_members(parent, path[-1], what, chance)
    else:
        parent[path[-1]] = make_replacement(what, value, chance, others)
    return what, changed


def make_replacement(what: str, value: Value, chance: random.Random, others: tuple[Seed, ...]) -> Value:
    """What takes the place of a part: an extreme, something deep, another part of the message or of another."""
    match what:
        case "nest":
            return nest(chance.choice((3, 55, 62, 63, 64, 65, 100)), is_object=chance.random() < 0.5)
        case "swap":
            return copy.deepcopy(get_part(value, chance.choice(list_places(value))))
        case "graft":
            other = chance.choice(others).value
            return copy.deepcopy(get_part(other, chance.choice(list_places(other))))
    return chance.choice(EXTREMES)


def change_members(parent: Value, last: Any, what: str, chance: random.Random) -> None:
    """Give a member another name, a neighbour, or many of itself."""
    if isinstance(parent, list):
        parent[last:last] = [parent[last]] * chance.choice((1, 70))
    elif what == "rename":
        parent[f"{last}{chance.choice(('', '_', 'X', ' ', chr(0)))}"[chance.randint(0, 1) :]] = parent.pop(last)
    elif what == "add":
        parent[chance.choice(("more", "x-more", "", "__proto__", "type_", "$ref"))] = chance.choice(EXTREMES)
    else:
        parent[last] = [parent[last]] * chance.choice((2, 70, 1_000))


def get_part(value: Value, path: tuple[Any, ...]) -> Value:
    """What is at a path."""
    for step in path:
        value = value[step]
    return value


# The bytes


def encode(value: Value, encoding: Encoding, *, twin: tuple[str, Value] | None = None) -> bytes:
    """The value on the wire; ``twin`` is a key that is then there twice. What MessagePack lacks is sent in JSON."""
    if encoding is Encoding.MESSAGEPACK:
        try:
            data = msgspec.msgpack.encode(value)
            if twin is not None and isinstance(value, dict) and len(value) < 15:
                pair = msgspec.msgpack.encode(twin[0]) + msgspec.msgpack.encode(twin[1])
                data = bytes([data[0] + 1]) + pair + data[1:]
        except (OverflowError, UnicodeEncodeError, RecursionError, ValueError, msgspec.EncodeError):
            return encode(value, Encoding.JSON)
        return data
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        data = json.dumps(value, default=str).encode()
    except RecursionError:
        data = b"[" * 5_000
    if twin is not None and data[:1] == b"{":
        data = b"{" + json.dumps(twin[0]).encode() + b":" + json.dumps(twin[1]).encode() + b"," + data[1:]
    return data


def flip_bits(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def insert_bytes(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    at = chance.randint(0, len(data))
    junk = chance.choice(
        (
            chance.randbytes(chance.randint(1, 9)),
            b"\xff\xfe",
            b"\xc3\x28",
            b"\xed\xa0\x80",
            b"\x00",
            b'"',
            b"{[" * 40,
            b"\\u",
        )
    )
    return data[:at] + junk + data[at:]


def delete_bytes(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + data[at + chance.choice((1, 1, 2, 9)) :]


def duplicate_bytes(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    begin = chance.randint(0, len(data))
    end = min(len(data), begin + chance.choice((1, 8, 64)))
    return data[:end] + data[begin:end] * chance.choice((1, 2, 50)) + data[end:]


def truncate(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    return data[: chance.randint(0, len(data))]


def splice(data: bytes, chance: random.Random, other: bytes) -> bytes:
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def swell_numbers(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    huge = chance.choice((b"1" * 25, b"9" * 5_000, b"-0", b"1e999", b"0x1", b"1.", b"00", b"-"))
    return re.sub(rb"\d+", lambda match: huge if chance.random() < 0.3 else match.group(), data)


def nest_deep(data: bytes, chance: random.Random, _other: bytes) -> bytes:
    """Something far too deep in the place of a part."""
    depth = chance.choice((200, 990, 5_000, 25_000))
    text = chance.choice((b"[" * depth + b"]" * depth, b"[" * depth, b'{"a":' * depth + b"1" + b"}" * depth))
    packed = chance.choice((b"\x91" * depth + b"\xc0", b"\x81\xa1a" * depth + b"\xc0", b"\xdc\x00\x01" * depth))
    if data[:1] in b"{[":
        return re.sub(rb"null|true|\d+|\{\}", lambda _: text, data, count=1)
    at = data.rfind(b"\xa7payload") + 8
    return data[:at] + packed + data[at + 1 :]


def use_extension(_data: bytes, chance: random.Random, _other: bytes) -> bytes:
    """MessagePack's own types: extensions, times, bytes, keys that are no text, and heads that promise too much."""
    parts: tuple[Value, ...] = (
        msgspec.msgpack.Ext(5, b"x" * 9), datetime.now(UTC), b"bytes", {1: 2}, {b"id": "m-1"}, {None: 1}, {(1, 2): 3}
    )  # fmt: skip
    heads = (
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc1",
        b"\xc9\xff\xff\xff\xff\x01",
    )
    if chance.random() < 0.3:
        return chance.choice(heads)
    message = {
        "id": "m-1",
        "type": "command",
        "payload": {"command": "session.ping"},
        "timestamp": "2026-11-20T16:31:00Z",
    }
    message[chance.choice(list(message))] = chance.choice(parts)
    return msgspec.msgpack.encode(message)


OF_BYTES: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    flip_bits,
    insert_bytes,
    delete_bytes,
    duplicate_bytes,
    truncate,
    splice,
    swell_numbers,
    nest_deep,
)


def mutate_data(seed: Seed, chance: random.Random, seeds: tuple[Seed, ...], encoding: Encoding) -> tuple[str, bytes]:
    """A message's bytes with one thing changed, or several; what was done, and the bytes."""
    draw = chance.random()
    if draw < 0.04:
        return "as it is", encode(seed.value, encoding)
    if draw < 0.6:
        value, names = seed.value, []
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            name, value = mutate_value(value, chance, seeds)
            names.append(name)
        return " ".join(dict.fromkeys(names)), encode(value, encoding)[:MAX_DATA_BYTES]
    if draw < 0.65:
        key = chance.choice(list(seed.value) or ["id"])
        twin = (key, chance.choice(seeds).value.get(key, chance.choice(EXTREMES)))
        return "twin key", encode(seed.value, encoding, twin=twin)
    if draw < 0.67:
        return "array", encode([seed.value] * chance.choice((0, 1, 2, 65)), encoding)
    if draw < 0.7 and encoding is Encoding.MESSAGEPACK:
        return "extension", use_extension(b"", chance, b"")
    data = encode(seed.value, encoding)
    other = encode(chance.choice(seeds).value, encoding)
    names = []
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        mutation = chance.choice(OF_BYTES)
        names.append(mutation.__name__)
        data = mutation(data, chance, other)[:MAX_DATA_BYTES]
    return " ".join(dict.fromkeys(names)), data


# The frames


def make_frame(seed: Seed, chance: random.Random, seeds: tuple[Seed, ...], encoding: Encoding) -> Frame:
    """A mutated message in a frame of its own, or in several, or in one that breaks RFC 6455."""
    mutation, data = mutate_data(seed, chance, seeds, encoding)
    own, foreign = (Opcode.TEXT, Opcode.BINARY) if encoding is Encoding.JSON else (Opcode.BINARY, Opcode.TEXT)
    draw = chance.random()
    if draw < 0.9:
        return Frame(kind=seed.kind, mutation=mutation, wire=encode_frame(own, data), data=data)
    if draw < 0.92:
        return Frame(kind=seed.kind, mutation="foreign kind", wire=encode_frame(foreign, data), data=data)
    if draw < 0.98:
        return Frame(kind=seed.kind, mutation=f"fragmented {mutation}", wire=fragment(own, data, chance), data=data)
    return break_frame(seed.kind, own, data, chance)


def fragment(opcode: int, data: bytes, chance: random.Random) -> bytes:
    """The message in several frames, with pings between them."""
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.choice((1, 2, 7))))
    parts = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    wire = b""
    for number, part in enumerate(parts):
        wire += encode_frame(opcode if number == 0 else Opcode.CONTINUATION, part, is_final=number == len(parts) - 1)
        if number < len(parts) - 1 and chance.random() < 0.5:
            wire += encode_frame(Opcode.PING, b"between")
    return wire


def break_frame(kind: str, opcode: int, data: bytes, chance: random.Random) -> Frame:
    """A control frame, or one that RFC 6455 forbids: the server may close, and has nothing to answer."""
    forms: dict[str, Callable[[], bytes]] = {
        "ping": lambda: encode_frame(Opcode.PING, chance.randbytes(chance.randint(0, 125))),
        "pong": lambda: encode_frame(Opcode.PONG, chance.randbytes(chance.randint(0, 125))),
        "long ping": lambda: encode_frame(Opcode.PING, b"x" * 126),
        "split ping": lambda: encode_frame(Opcode.PING, b"x", is_final=False),
        "close": lambda: encode_frame(Opcode.CLOSE, b"\x03\xe8"),
        "close of a wrong code": lambda: encode_frame(
            Opcode.CLOSE, chance.choice((b"\x00", b"\x03\xed", b"\xff\xff", b"\x03\xe8\xff\xfe"))
        ),
        "close that is no closing": lambda: encode_frame(Opcode.CLOSE, data[:125]),
        "reserved bits": lambda: encode_frame(opcode, data, reserved=chance.randint(1, 7)),
        "unknown opcode": lambda: encode_frame(chance.choice((3, 7, 11, 15)), data),
        "unmasked": lambda: encode_frame(opcode, data, is_masked=False),
        "lone continuation": lambda: encode_frame(Opcode.CONTINUATION, data),
        "two beginnings": lambda: encode_frame(opcode, data, is_final=False) * 2,
        "huge": lambda: encode_frame(opcode, data, length=1 << 62),
        "beyond the top bit": lambda: encode_frame(opcode, data, length=(1 << 64) - 1),
        "cut": lambda: encode_frame(opcode, data)[: chance.randint(1, 20)],
        "garbage": lambda: chance.randbytes(chance.randint(1, 300)),
    }
    name = chance.choice(list(forms))
    return Frame(kind=kind, mutation=f"frame: {name}", wire=forms[name](), data=data, is_message=False)
