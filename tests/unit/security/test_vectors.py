"""The product against ``tests/vectors``: made by a script that shares nothing with it, agreed with byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.domain.base64url import decode_base64url, encode_base64url
from protocol.domain.codec import CODECS
from protocol.domain.messages import MessageType, SecurityLevel
from protocol.domain.sealed import SealedWire, Unsealed
from security.domain import signatures
from security.domain.connection_keys import ConnectionKeys, agree_on_secret, derive_keys, hash_transcript
from security.domain.identity import get_fingerprint
from security.domain.sealing import SealedChannel, make_aad

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "sealing.json").read_text())
AGREEMENTS = {"handshake": VECTORS["handshake"], "rekey": VECTORS["rekey"]}


def test_the_file_is_what_the_script_makes() -> None:
    made = subprocess.run([sys.executable, FOLDER / "make_vectors.py"], capture_output=True, check=True, timeout=60)
    assert json.loads(made.stdout) == VECTORS


def test_the_script_knows_nothing_of_the_product() -> None:
    text = (FOLDER / "make_vectors.py").read_text()
    assert not [line for line in text.splitlines() if "import" in line and ("protocol" in line or "security" in line)]


def derive(vector: dict[str, Any]) -> ConnectionKeys:
    """The product's keys for a vector's inputs, seen from the server."""
    previous = vector["previous_hash"]
    transcript_hash = hash_transcript(
        client_frame=bytes.fromhex(vector["client_frame"]),
        public_key=vector["server_public_key"],
        connection_id=vector["connection_id"],
        protocol_version=vector["protocol_version"],
        security_level=vector["security_level"],
        key_id=vector["key_id"],
        previous_hash=None if previous is None else bytes.fromhex(previous),
    )
    secret = agree_on_secret(
        private_key=X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["server_private_key"])),
        public_key=decode_base64url(vector["client_public_key"]),
    )
    assert secret.hex() == vector["shared_secret"]
    return derive_keys(shared_secret=secret, transcript_hash=transcript_hash, key_id=vector["key_id"])


@pytest.mark.parametrize("name", AGREEMENTS)
def test_a_key_agreement(name: str) -> None:
    vector = AGREEMENTS[name]
    keys = derive(vector)
    assert keys.transcript_hash.hex() == vector["transcript_hash"]
    assert {
        "c2s_key": keys.client_to_server.key.hex(),
        "c2s_iv": keys.client_to_server.iv.hex(),
        "s2c_key": keys.server_to_client.key.hex(),
        "s2c_iv": keys.server_to_client.iv.hex(),
    } == {part: vector[part] for part in ("c2s_key", "c2s_iv", "s2c_key", "s2c_iv")}
    identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["identity"]["private_key"]))
    signed = signatures.sign(data=keys.transcript_hash, key_id=VECTORS["identity"]["key_id"], private_key=identity)
    assert signed == vector["signature"]
    assert get_fingerprint(public_key=identity.public_key().public_bytes_raw()) == VECTORS["identity"]["fingerprint"]


def make_wire(encoding: str, keys: ConnectionKeys) -> SealedWire:
    codec = next(codec for codec in CODECS if codec.subprotocol == encoding)
    return SealedWire(codec=codec, level=SecurityLevel.CRITICAL, channel=SealedChannel(keys), tick=0.0)


def check_message(wire: SealedWire, vector: dict[str, Any]) -> None:
    parts = (vector["id"], vector["type"], vector["timestamp"], vector["security_level"])
    assert make_aad(*parts, vector["key_id"], vector["sequence"]).decode() == vector["aad"]
    frame, plaintext = bytes.fromhex(vector["frame"]), bytes.fromhex(vector["plaintext"])
    if vector["direction"] == "server to client":
        sealed = wire.seal(
            Unsealed(
                id=vector["id"], type=MessageType(vector["type"]), timestamp=vector["timestamp"], plaintext=plaintext
            )
        )
        assert sealed.hex() == vector["frame"]
        return
    opened = wire.open(frame)
    assert (opened.id, opened.type, opened.written_at) == (vector["id"], vector["type"], vector["timestamp"])
    assert opened.timestamp == datetime(2026, 11, 20, 16, 31, 0, 123_000, tzinfo=UTC)
    assert bytes(opened.payload) in plaintext
    assert opened.security is not None
    assert (opened.security.signature is not None) == (vector["type"] == "command")


@pytest.mark.parametrize("encoding", ["mcp.v1.json", "mcp.v1.msgpack"])
def test_sealed_messages_in_both_directions(encoding: str) -> None:
    wire = make_wire(encoding, derive(VECTORS["handshake"]))
    vectors = [vector for vector in VECTORS["messages"] if vector["encoding"] == encoding]
    assert {vector["direction"] for vector in vectors} == {"client to server", "server to client"}
    for vector in vectors:
        check_message(wire, vector)


def test_a_rekey_and_the_first_message_after_it() -> None:
    wire = make_wire("mcp.v1.json", derive(VECTORS["handshake"]))
    for vector in VECTORS["messages"]:
        if vector["encoding"] == "mcp.v1.json" and vector["direction"] == "client to server":
            check_message(wire, vector)
    check_message(wire, VECTORS["rekey"]["request"])
    assert VECTORS["rekey"]["client_frame"] == VECTORS["rekey"]["request"]["frame"]
    assert wire.transcript_hash.hex() == VECTORS["rekey"]["previous_hash"]
    wire.expect(SealedChannel(derive(VECTORS["rekey"])), tick=1.0)
    check_message(wire, VECTORS["rekey"]["first_message_after"])


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=lambda vector: f"{vector['id']}-{vector['encoding']}")
def test_signatures(vector: dict[str, Any]) -> None:
    lines = signatures.make_lines(
        session_id=vector["session_id"],
        message_id=vector["id"],
        message_type=vector["type"],
        timestamp=vector["timestamp"],
        security_level=vector["security_level"],
        payload=bytes.fromhex(vector["payload"]),
        metadata=bytes.fromhex(vector["metadata"]),
    )
    assert lines.encode().decode() == vector["lines"]
    private_key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["private_key"]))
    public_key = private_key.public_key().public_bytes_raw()
    assert (encode_base64url(public_key), signatures.make_key_id(public_key)) == (
        vector["public_key"],
        vector["key_id"],
    )
    made = signatures.sign(data=lines.encode(), key_id=vector["key_id"], private_key=private_key)
    assert made == vector["signature"]
    assert signatures.verify_evidence(
        evidence=signatures.make_evidence(lines=lines, signature=made), public_key=public_key
    )
