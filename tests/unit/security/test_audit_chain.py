"""The chain's arithmetic: forms that others must be able to compute too."""

from __future__ import annotations

import base64
import hashlib

import msgspec
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from security.domain import audit_chain
from security.domain.audit_chain import EVENT_FIELDS, ORIGIN, Head

TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
HEAD = audit_chain.sign_head(
    Head(number=3, position=70, hash="a" * 64, signed_at="2026-11-26T05:00:00.000000Z", key_id="k1"), private_key=KEY
)


@given(values=st.fixed_dictionaries(dict.fromkeys(EVENT_FIELDS, TEXTS)))
def test_the_canonical_form_is_rfc_8785s(values: dict[str, str | None]) -> None:
    assert audit_chain.encode_event(values) == rfc8785.dumps(values)


def test_the_hash_is_what_the_reference_says() -> None:
    event = dict.fromkeys(EVENT_FIELDS, "ü\n")
    lines = b"mcp1.1-audit-seal\n" + ORIGIN.encode() + b"\n1\n" + rfc8785.dumps(event) + b"\n"
    expected = hashlib.sha256(lines).hexdigest()
    assert audit_chain.compute_hash(previous=ORIGIN, position=1, event=event) == expected


def test_the_statement_is_what_the_reference_says() -> None:
    expected = f"mcp1.1-audit-head\n3\n70\n{'a' * 64}\n2026-11-26T05:00:00.000000Z\nk1\n"
    assert audit_chain.make_statement(HEAD) == expected.encode()
    assert audit_chain.is_signature_valid(HEAD, public_key=KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"number": 4},
        {"position": 71},
        {"hash": "b" * 64},
        {"signed_at": "2026-11-26T05:00:00.000001Z"},
        {"key_id": "k2"},
        {"signature": ""},
        {"signature": HEAD.signature + "A"},
        {"signature": HEAD.signature + "=="},
        {"signature": "not base64"},
    ],
)
def test_a_changed_head_has_no_signature(change: dict[str, object]) -> None:
    assert not audit_chain.is_signature_valid(msgspec.structs.replace(HEAD, **change), public_key=KEY.public_key())


@given(bit=st.integers(0, 511))
def test_any_bit_of_the_signature(bit: int) -> None:
    data = bytearray(base64.urlsafe_b64decode(HEAD.signature + "=="))
    data[bit // 8] ^= 1 << bit % 8
    signature = base64.urlsafe_b64encode(data).decode().rstrip("=")
    changed = msgspec.structs.replace(HEAD, signature=signature)
    assert not audit_chain.is_signature_valid(changed, public_key=KEY.public_key())
