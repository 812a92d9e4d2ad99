"""Signed lines: what is taken once, which public keys can be registered, and base64url, which is written in one way."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.base64url import decode_base64url, encode_base64url
from security.domain.signatures import (
    FRESH_FOR,
    PublicKeyInvalid,
    SignedOnce,
    is_fresh,
    make_evidence,
    make_key_id,
    make_lines,
    parse_public_key,
    sign,
    verify_evidence,
)

NOW = datetime(2026, 11, 20, 16, 31, tzinfo=UTC)


@given(moves=st.lists(st.tuples(st.integers(0, 30), st.integers(-60, 60), st.integers(0, 40)), max_size=60))
def test_nothing_is_ever_taken_twice(moves: list[tuple[int, int, int]]) -> None:
    """Whatever the timestamps, the passing of time and the room: a window of four."""
    memory = SignedOnce(capacity=4)
    taken: set[tuple[int, datetime]] = set()
    now = NOW
    for name, offset, passed in moves:
        now += timedelta(seconds=passed)
        for signed_at in (now + timedelta(seconds=offset), *(at for known, at in list(taken) if known == name)):
            lines = f"{name} {signed_at}".encode()
            if not is_fresh(signed_at=signed_at, now=now):
                continue
            if memory.take(lines=lines, signed_at=signed_at, now=now):
                assert (name, signed_at) not in taken
                taken.add((name, signed_at))
            assert len(memory) <= 4


def test_while_there_is_room_everything_fresh_is_taken_in_any_order() -> None:
    memory = SignedOnce(capacity=200)
    for seconds in (0, 60, -60, 59, -59, 1):
        at = NOW + timedelta(seconds=seconds)
        assert memory.take(lines=str(seconds).encode(), signed_at=at, now=NOW)
        assert not memory.take(lines=str(seconds).encode(), signed_at=at, now=NOW)
    memory.take(lines=b"later", signed_at=NOW + timedelta(seconds=200), now=NOW + timedelta(seconds=200))
    assert len(memory) == 1


@pytest.mark.parametrize(("seconds", "fresh"), [(0, True), (60, True), (-60, True), (60.001, False), (-60.001, False)])
def test_a_timestamp_is_fresh_for_a_minute_either_way(seconds: float, fresh: bool) -> None:
    assert is_fresh(signed_at=NOW + timedelta(seconds=seconds), now=NOW) is fresh
    assert timedelta(seconds=60) == FRESH_FOR


def test_a_key_is_read_as_people_have_it() -> None:
    public_key = Ed25519PrivateKey.generate().public_key()
    raw = public_key.public_bytes_raw()
    text = encode_base64url(raw)
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    line = public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for written in (text, f" {text}=\n", pem, line, f"{line} me@laptop\n"):
        assert parse_public_key(written) == raw
    assert len(make_key_id(raw)) == 43


_P256 = generate_private_key(SECP256R1()).public_key()
NO_KEYS = {
    "nothing": "",
    "too short": "AAAA",
    "too long": "A" * 46,
    "another alphabet": "/" * 43,
    "order 1": encode_base64url(b"\x01" + bytes(31)),
    "order 2": encode_base64url(b"\xec" + b"\xff" * 30 + b"\x7f"),
    "order 4": encode_base64url(bytes(32)),
    "order 4, with a sign": encode_base64url(bytes(31) + b"\x80"),
    "order 8": encode_base64url(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85")),
    "a P-256 key": _P256.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "a P-256 line": _P256.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    "half a line": "ssh-ed25519",
    "a torn PEM": "-----BEGIN PUBLIC KEY-----\nMCow!\n-----END PUBLIC KEY-----",
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_nobody_should_sign_with_is_no_key(name: str) -> None:
    with pytest.raises(PublicKeyInvalid):
        parse_public_key(NO_KEYS[name])


@given(st.binary(max_size=70))
def test_base64url_comes_back(data: bytes) -> None:
    text = encode_base64url(data)
    assert decode_base64url(text) == data
    assert "=" not in text


@given(st.binary(min_size=1, max_size=40), st.data())
def test_base64url_is_written_in_one_way_only(data: bytes, draw: st.DataObject) -> None:
    text = encode_base64url(data)
    place = draw.draw(st.integers(0, len(text) - 1))
    other = draw.draw(st.characters().filter(lambda character: character != text[place]))
    changed = text[:place] + other + text[place + 1 :]
    try:
        decoded = decode_base64url(changed)
    except ValueError:
        return
    assert decoded != data


@pytest.mark.parametrize("text", ["A", "AA==", "AA=", "AAA=", "AB", "AAB", "A A", "A+AA", "A/AA", "====", "AA\n", "é"])
def test_what_is_no_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        decode_base64url(text)


@pytest.mark.parametrize(
    "field", ["session_id", "id", "type", "timestamp", "security_level", "payload_sha256", "metadata_sha256"]
)
def test_evidence_verifies_as_a_whole(field: str) -> None:
    private_key = Ed25519PrivateKey.generate()
    public_key = private_key.public_key().public_bytes_raw()
    lines = make_lines(
        session_id="s", message_id="m", message_type="command", timestamp="t", security_level="critical",
        payload=os.urandom(8), metadata=b"",
    )  # fmt: skip
    signature = sign(data=lines.encode(), key_id=make_key_id(public_key), private_key=private_key)
    evidence = make_evidence(lines=lines, signature=signature)
    assert evidence["metadata_sha256"] == hashlib.sha256(b"").hexdigest()
    assert verify_evidence(evidence=evidence, public_key=public_key)
    assert not verify_evidence(evidence={**evidence, field: "other"}, public_key=public_key)
    assert not verify_evidence(evidence={**evidence, "signature": "ed25519:k:AA"}, public_key=public_key)
