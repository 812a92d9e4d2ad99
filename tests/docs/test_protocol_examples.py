"""Every message that the protocol's page shows is one, in the types that the server decodes and encodes."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import msgspec
import pytest

from protocol.domain.codec import JSON_CODEC, decode_metadata
from protocol.domain.messages import (
    Authentication,
    AuthenticationAnswer,
    CommandPayload,
    ErrorPayload,
    EventPayload,
    HandshakeAnswer,
    HandshakeRequest,
    Heartbeat,
    HeartbeatAnswer,
    MessageType,
    OutgoingMessage,
    ResponsePayload,
)
from protocol.errors import get_error_table
from protocol.registry import get_command
from tests.docs.pages import DOCS, Block, list_blocks, list_pages

FROM_CLIENT: dict[MessageType, Any] = {
    MessageType.HANDSHAKE: HandshakeRequest,
    MessageType.AUTHENTICATION: Authentication,
    MessageType.COMMAND: CommandPayload,
    MessageType.HEARTBEAT: Heartbeat,
}
FROM_SERVER: dict[MessageType, Any] = {
    MessageType.HANDSHAKE: HandshakeAnswer,
    MessageType.AUTHENTICATION: AuthenticationAnswer,
    MessageType.RESPONSE: ResponsePayload,
    MessageType.ERROR: ErrorPayload,
    MessageType.EVENT: EventPayload,
    MessageType.HEARTBEAT: HeartbeatAnswer,
}
BLOCKS = [block for page in list_pages() for block in list_blocks(page) if block.language == "json"]


def select(note: str) -> Any:
    chosen = [block for block in BLOCKS if block.note == note]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.place)


def assert_same_keys(shown: Any, decoded: Any) -> None:
    """Nothing is shown that the type does not have; ``decoded`` is what the type made of it."""
    if isinstance(shown, dict):
        assert isinstance(decoded, dict)
        assert shown.keys() <= decoded.keys()
        for key, value in shown.items():
            assert_same_keys(value, decoded[key])


def test_there_is_one_of_every_kind() -> None:
    shown = {(block.note, MessageType(msgspec.json.decode(block.text)["type"])) for block in BLOCKS if block.note != ""}
    assert {kind for note, kind in shown if note == "client"} == set(FROM_CLIENT)
    assert {kind for note, kind in shown if note == "server"} == set(FROM_SERVER)
    assert {block.page for block in BLOCKS if block.note} == {DOCS / "reference" / "protocol.md"}


@select("client")
def test_what_a_client_sends_is_decoded(block: Block) -> None:
    envelope = JSON_CODEC.decode_envelope(block.text.encode())
    decode_metadata(JSON_CODEC, envelope.metadata)
    payload = JSON_CODEC.decode(envelope.payload, FROM_CLIENT[envelope.type])
    if isinstance(payload, CommandPayload):
        command = get_command(payload.command)
        assert command is not None, payload.command
        if not JSON_CODEC.is_null(payload.arguments):
            JSON_CODEC.decode(payload.arguments, command.arguments_type)


@select("server")
def test_what_the_server_sends_is_of_its_types(block: Block) -> None:
    shown = msgspec.json.decode(block.text)
    message = msgspec.json.decode(block.text, type=OutgoingMessage)
    assert_same_keys(shown, msgspec.to_builtins(message))
    payload = msgspec.convert(message.payload, FROM_SERVER[message.type])
    assert_same_keys(shown["payload"], msgspec.to_builtins(payload))
    if isinstance(payload, ErrorPayload):
        error = get_error_table()[payload.code]
        assert payload.category == error.category
    if isinstance(payload, ResponsePayload):
        command = get_command(payload.command)
        assert command is not None, payload.command
        result_type = typing.get_type_hints(command.handler)["return"]
        if inspect.isclass(result_type) and issubclass(result_type, msgspec.Struct):
            decoded = msgspec.json.decode(msgspec.json.encode(payload.result), type=result_type)
            assert_same_keys(payload.result, msgspec.json.decode(msgspec.json.encode(decoded)))


@select("")
def test_other_json_is_json(block: Block) -> None:
    msgspec.json.decode(block.text)
