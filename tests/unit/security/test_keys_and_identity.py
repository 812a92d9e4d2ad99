"""API keys' form and states, and the identity key's fingerprint."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.domain.api_keys import KeyState, get_key_state, hash_key, make_key
from security.domain.identity import get_fingerprint

NOW = datetime(2026, 11, 20, 16, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_carries_all_its_entropy_and_is_stored_as_a_hash(entropy: bytes) -> None:
    material = make_key(entropy=entropy)
    assert material.secret.startswith("mcp_")
    assert base64.urlsafe_b64decode(material.secret.removeprefix("mcp_") + "=") == entropy
    assert material.prefix == material.secret[:12]
    assert material.key_hash == hash_key(material.secret) == hashlib.sha256(material.secret.encode()).hexdigest()
    assert material.secret not in repr(material)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_is_made_of_256_bits(size: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        make_key(entropy=bytes(size))


@given(st.text(st.characters()))
def test_any_text_can_be_hashed(text: str) -> None:
    assert len(hash_key(text)) == 64


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "state"),
    [
        (None, None, KeyState.ACTIVE),
        (NOW + SECOND, None, KeyState.ACTIVE),
        (NOW, None, KeyState.EXPIRED),
        (NOW - SECOND, None, KeyState.EXPIRED),
        (None, NOW - SECOND, KeyState.REVOKED),
        (NOW - SECOND, NOW - SECOND, KeyState.REVOKED),
    ],
)
def test_states(expires_at: datetime | None, revoked_at: datetime | None, state: KeyState) -> None:
    assert get_key_state(expires_at=expires_at, revoked_at=revoked_at, now=NOW) is state


def test_the_fingerprint_is_that_of_the_public_key() -> None:
    # RFC 8032, section 7.1, test 1.
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    expected = base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")
    assert get_fingerprint(public_key=public) == f"SHA256:{expected}"
