"""Bytes to messages and back: JSON and MessagePack, one class each behind one port (protocol.md section 1).

Decoding goes by cost: nesting is counted before any object is built, the envelope is typed at once, payload and
metadata stay encoded until someone needs them. What fields mean is ``messages``; their order is ``connection``.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw

from protocol.domain.base64url import decode_base64url, encode_base64url
from protocol.domain.messages import (
    Envelope,
    Identified,
    Metadata,
    Opened,
    OutgoingContent,
    OutgoingMessage,
    OutgoingSealed,
    SealedEnvelope,
    describe_field_error,
)
from protocol.errors import FrameInvalid, InvalidMessage, InvalidMetadata

MAX_NESTING = 64
"""Arrays and objects within each other, the message itself included."""

T = TypeVar("T")

# The last branch takes an unterminated string to the end, so that a hostile frame cannot make every quote a new start.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_DEPTH_STEPS = bytes.maketrans(b"[]{}", b"\0\1\0\1")
_STEP_VALUES = (1, -1)
_COLON = 2
_NAME_STEPS = bytes.maketrans(b"[]{}:", b"\0\1\0\1\2")
_NAME_VALUES = (1, -1, 0)
_NOT_NAMES = bytes(set(range(256)) - set(b"[]{}:"))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_MSGPACK_CONTAINERS = bytes(set(range(256)) - set(range(0x80, 0xA0)) - set(range(0xDC, 0xE0)))
_METADATA_FIELDS = frozenset(Metadata.__struct_fields__)


class Codec(Protocol):
    """One encoding of the wire."""

    subprotocol: str
    is_text: bool

    def decode_envelope(self, frame: bytes) -> Envelope:
        """One message.

        Raises:
            InvalidMessage: not of this encoding, nested too deep, or no envelope; ``details.path`` where it is known.
        """

    def decode(self, raw: Raw, target: type[T]) -> T:
        """A part of a message. Raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``."""

    def encode(self, message: OutgoingMessage | list[OutgoingMessage] | OutgoingContent) -> bytes:
        """The message, the array of them, or what of one will be sealed, on the wire. A ``Raw`` in it is JSON."""

    def decode_sealed(self, frame: bytes) -> SealedEnvelope:
        """One message of a connection whose messages are sealed. Raises as ``decode_envelope``."""

    def decode_opened(self, plaintext: bytes) -> Opened:
        """What was inside a sealed message. Raises as ``decode_envelope``."""

    def read_ciphertext(self, raw: Raw) -> bytes | None:
        """The bytes that a sealed message's payload writes; ``None`` where it writes none."""

    def encode_sealed(self, message: OutgoingSealed) -> bytes:
        """The sealed message on the wire; its payload is bytes."""

    def measure_ciphertext(self, size_bytes: int) -> int:
        """How many bytes a ciphertext of this size takes on the wire."""

    def is_null(self, raw: Raw) -> bool:
        """Whether the part is missing or null, which the protocol holds to be the same."""

    def is_array(self, frame: bytes) -> bool:
        """Whether the frame is an array of messages; judged by its first bytes only."""

    def find_id(self, frame: bytes) -> str | None:
        """The id of a frame that is refused, so that its sender knows which it was; ``None`` where it has none."""


def has_deep_json(frame: bytes) -> bool:
    """Whether a JSON text nests deeper than ``MAX_NESTING``; linear time, brackets inside strings do not count."""
    if frame.count(b"[") + frame.count(b"{") <= MAX_NESTING:
        return False
    brackets = _JSON_STRING.sub(b"", frame).translate(_DEPTH_STEPS, _NOT_BRACKETS)
    # Openers are 1 and closers -1; unbalanced text is the decoder's to refuse.
    return max(itertools.accumulate(map(_STEP_VALUES.__getitem__, brackets)), default=0) > MAX_NESTING


def count_names(text: bytes) -> int:
    """How many names the outermost object of a JSON text has, doubled ones counted; linear time."""
    steps = _JSON_STRING.sub(b"", text).translate(_NAME_STEPS, _NOT_NAMES)
    depth = itertools.accumulate(map(_NAME_VALUES.__getitem__, steps))
    # A colon does not change the depth.
    return sum(step == _COLON and level == 1 for step, level in zip(steps, depth, strict=True))


def has_deep_msgpack(frame: bytes) -> bool:
    """Whether a MessagePack value nests deeper than ``MAX_NESTING``.

    Each container has a head byte, so few such bytes prove it shallow. Where there are many, the exact answer comes by
    way of JSON: both steps are linear and in C, and the decoder's own recursion limit bounds what they build.

    Raises:
        msgspec.DecodeError: it is no MessagePack.
        TypeError: it holds a value that JSON cannot name (an extension type).
    """
    if len(frame.translate(None, _NOT_MSGPACK_CONTAINERS)) <= MAX_NESTING:
        return False
    try:
        return has_deep_json(msgspec.json.encode(msgspec.msgpack.decode(frame)))
    except RecursionError:
        return True


class JSONCodec:
    """Text frames, JSON."""

    subprotocol = "mcp.v1.json"
    is_text = True

    def __init__(self) -> None:
        self._envelope = msgspec.json.Decoder(Envelope)
        self._sealed = msgspec.json.Decoder(SealedEnvelope)
        self._opened = msgspec.json.Decoder(Opened)
        self._identified = msgspec.json.Decoder(Identified)
        self._encoder = msgspec.json.Encoder()

    def decode_envelope(self, frame: bytes) -> Envelope:
        envelope: Envelope = self._decode_whole(self._envelope, frame)
        return envelope

    def _decode_whole(self, decoder: Any, frame: bytes) -> Any:
        if has_deep_json(frame):
            raise InvalidMessage("The message is nested too deep.", details={"max_nesting": MAX_NESTING})
        return _decode_envelope(decoder, frame)

    def decode_sealed(self, frame: bytes) -> SealedEnvelope:
        sealed: SealedEnvelope = self._decode_whole(self._sealed, frame)
        return sealed

    def decode_opened(self, plaintext: bytes) -> Opened:
        opened: Opened = self._decode_whole(self._opened, plaintext)
        return opened

    def read_ciphertext(self, raw: Raw) -> bytes | None:
        # No letter of base64url is ever written as an escape by an encoder, so that the text is what stands there.
        text = bytes(raw)
        if text[:1] != b'"':
            return None
        try:
            return decode_base64url(text[1:-1])
        except ValueError:
            return None

    def encode_sealed(self, message: OutgoingSealed) -> bytes:
        return self._encoder.encode(msgspec.structs.replace(message, payload=encode_base64url(message.payload)))

    def measure_ciphertext(self, size_bytes: int) -> int:
        return (size_bytes * 4 + 2) // 3

    def decode(self, raw: Raw, target: type[T]) -> T:
        return msgspec.json.decode(raw, type=target)

    def encode(self, message: OutgoingMessage | list[OutgoingMessage] | OutgoingContent) -> bytes:
        return self._encoder.encode(message)

    def is_null(self, raw: Raw) -> bool:
        # Length first: it is two C calls on the path of every message.
        return len(bytes(raw)) == 0 or bytes(raw) == b"null"

    def is_array(self, frame: bytes) -> bool:
        return frame.lstrip()[:1] == b"["

    def find_id(self, frame: bytes) -> str | None:
        return _find_id(self._identified, frame)


class MessagePackCodec:
    """Binary frames, MessagePack."""

    subprotocol = "mcp.v1.msgpack"
    is_text = False

    def __init__(self) -> None:
        self._envelope = msgspec.msgpack.Decoder(Envelope)
        self._sealed = msgspec.msgpack.Decoder(SealedEnvelope)
        self._opened = msgspec.msgpack.Decoder(Opened)
        self._identified = msgspec.msgpack.Decoder(Identified)
        self._encoder = msgspec.msgpack.Encoder()

    def decode_envelope(self, frame: bytes) -> Envelope:
        envelope: Envelope = self._decode_whole(self._envelope, frame)
        return envelope

    def _decode_whole(self, decoder: Any, frame: bytes) -> Any:
        try:
            is_deep = has_deep_msgpack(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            raise InvalidMessage("The frame is not MessagePack of JSON's types.") from error
        if is_deep:
            raise InvalidMessage("The message is nested too deep.", details={"max_nesting": MAX_NESTING})
        return _decode_envelope(decoder, frame)

    def decode_sealed(self, frame: bytes) -> SealedEnvelope:
        # No count of nesting: ciphertext is full of bytes that look like containers. What can nest is opened first,
        # but where a frame is not sealed at all, and there the decoder's own limit holds.
        sealed: SealedEnvelope = _decode_envelope(self._sealed, frame)
        return sealed

    def decode_opened(self, plaintext: bytes) -> Opened:
        opened: Opened = self._decode_whole(self._opened, plaintext)
        return opened

    def read_ciphertext(self, raw: Raw) -> bytes | None:
        try:
            return msgspec.msgpack.decode(raw, type=bytes)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def encode_sealed(self, message: OutgoingSealed) -> bytes:
        return self._encoder.encode(message)

    def measure_ciphertext(self, size_bytes: int) -> int:
        return size_bytes

    def decode(self, raw: Raw, target: type[T]) -> T:
        return msgspec.msgpack.decode(raw, type=target)

    def encode(self, message: OutgoingMessage | list[OutgoingMessage] | OutgoingContent) -> bytes:
        # By way of JSON: results may hold stored JSON as it is (``Raw``), and times are text in both encodings.
        return self._encoder.encode(msgspec.json.decode(msgspec.json.encode(message)))

    def is_null(self, raw: Raw) -> bool:
        return bytes(raw) in (b"", b"\xc0")

    def is_array(self, frame: bytes) -> bool:
        head = frame[0] if frame else 0
        return 0x90 <= head <= 0x9F or head in (0xDC, 0xDD)

    def find_id(self, frame: bytes) -> str | None:
        return _find_id(self._identified, frame)


def _decode_envelope(decoder: Any, frame: bytes) -> Any:
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        reason, path = describe_field_error(error)
        raise InvalidMessage(reason, details={"path": path}) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage("The frame cannot be decoded.") from error


def _find_id(decoder: Any, frame: bytes) -> str | None:
    try:
        found: Identified = decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.id


JSON_CODEC = JSONCodec()
MESSAGEPACK_CODEC = MessagePackCodec()
CODECS: tuple[Codec, ...] = (MESSAGEPACK_CODEC, JSON_CODEC)
"""In the server's order of preference."""

DEFAULT_METADATA = Metadata()


def choose_codec(offered: list[str]) -> Codec | None:
    """The codec for a client's subprotocols: JSON where it offers none, ``None`` where it offers only unknown ones."""
    if not offered:
        return JSON_CODEC
    for codec in CODECS:
        if codec.subprotocol in offered:
            return codec
    return None


def get_frame_bytes(codec: Codec, frame: str | bytes) -> bytes:
    """The bytes of a frame as it came off the socket.

    Raises:
        InvalidMessage: text that is not UTF-8, which a server may also hand over as bytes.
        FrameInvalid: it is not of the codec's kind.
    """
    if isinstance(frame, str):
        if not codec.is_text:
            raise FrameInvalid("This subprotocol takes binary frames.")
        try:
            return frame.encode()
        except UnicodeEncodeError as error:
            raise InvalidMessage("The frame is not UTF-8.") from error
    if codec.is_text:
        try:
            frame.decode()
        except UnicodeDecodeError as error:
            raise InvalidMessage("The frame is not UTF-8.") from error
        raise FrameInvalid("This subprotocol takes text frames.")
    return frame


def decode_metadata(codec: Codec, raw: Raw) -> Metadata:
    """A message's metadata; keys that begin with ``x-`` are passed over.

    Raises:
        InvalidMetadata: an unknown key or a wrong value; ``details.path``.
    """
    if codec.is_null(raw):
        return DEFAULT_METADATA
    try:
        return codec.decode(raw, Metadata)
    except msgspec.ValidationError:
        # Most often a foreign x- key: rare enough to be decoded twice.
        return _decode_extended_metadata(codec, raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMetadata("The metadata cannot be decoded.") from error


def _decode_extended_metadata(codec: Codec, raw: Raw) -> Metadata:
    try:
        values = codec.decode(raw, dict[str, Any])
        known = {key: value for key, value in values.items() if not key.startswith("x-")}
        unknown = next((key for key in known if key not in _METADATA_FIELDS), None)
        if unknown is not None:
            raise InvalidMetadata("The metadata has an unknown key.", details={"path": f"metadata.{unknown[:64]}"})
        return msgspec.convert(known, Metadata)
    except msgspec.ValidationError as error:
        reason, path = describe_field_error(error)
        raise InvalidMetadata(reason, details={"path": f"metadata.{path}".rstrip(".")}) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMetadata("The metadata cannot be decoded.") from error
