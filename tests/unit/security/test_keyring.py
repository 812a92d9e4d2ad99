"""The key ring's pure parts: states, wrapping, sealing, and what each key may do in each state."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st

from security.domain.key_states import (
    ALGORITHMS,
    TRANSITIONS,
    KeyAlgorithm,
    KeyEvent,
    KeyPurpose,
    RingKeyState,
    TransitionRefused,
    get_next_state,
    has_secret,
    make_waits,
)
from security.domain.keyring import (
    Keyring,
    KeyUnknown,
    NoActiveKey,
    NotOpened,
    RingKey,
    make_label,
    make_secret,
)
from security.domain.master_keys import (
    KeyLabel,
    MasterKeyInvalid,
    NotUnwrapped,
    generate_master_key,
    make_master_key,
    parse_master_keys,
)

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SIGNING = [purpose for purpose in KeyPurpose if ALGORITHMS[purpose] is KeyAlgorithm.ED25519]
MASTER = make_master_key(secret=bytes(range(32)))


def make_key(purpose: KeyPurpose, state: RingKeyState = RingKeyState.ACTIVE) -> RingKey:
    secret = make_secret()
    label = make_label(purpose=purpose, algorithm=ALGORITHMS[purpose], secret=secret)
    kept = secret if has_secret(purpose=purpose, state=state) else b""
    return RingKey(label=label, state=state, since=NOW, secret=kept)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# States


@pytest.mark.parametrize(("state", "event"), list(itertools.product(RingKeyState, KeyEvent)))
def test_a_key_goes_one_way_and_leaves_out_no_state(state: RingKeyState, event: KeyEvent) -> None:
    if (state, event) not in TRANSITIONS:
        with pytest.raises(TransitionRefused):
            get_next_state(state=state, event=event)
        return
    order = list(RingKeyState)
    assert order.index(get_next_state(state=state, event=event)) == order.index(state) + 1


def test_a_key_is_used_only_after_every_process_has_read_it() -> None:
    waits = make_waits(seconds=10)
    assert waits.published_for > 2 * waits.snapshot_age
    assert waits.grace > 2 * waits.snapshot_age


# Master keys


def test_a_text_may_hold_several_master_keys_and_the_first_one_wraps() -> None:
    first, second = generate_master_key(), generate_master_key()
    keys = parse_master_keys(f" {first},\n{second}=\n")
    assert [key.id for key in keys] == [parse_master_keys(text)[0].id for text in (first, second)]


@pytest.mark.parametrize("text", ["", " ", "x", "ä" * 43, "A" * 42, "A" * 44, "A" * 86, f"{'A' * 43},{'A' * 43}"])
def test_other_texts_are_no_master_key_and_are_not_repeated(text: str) -> None:
    with pytest.raises(MasterKeyInvalid) as refused:
        parse_master_keys(text)
    assert not refused.value.args


def test_neither_the_id_nor_the_repr_of_a_key_tells_its_secret() -> None:
    text = generate_master_key()
    (key,) = parse_master_keys(text)
    raw = base64.urlsafe_b64decode(text + "=")
    assert text not in repr(key)
    assert key.id not in raw.hex()
    ring_key = make_key(KeyPurpose.AT_REST)
    assert repr(ring_key.secret) not in repr(ring_key)


@pytest.mark.parametrize("purpose", KeyPurpose)
@pytest.mark.parametrize("has_half", [True, False])
def test_what_was_wrapped_unwraps(purpose: KeyPurpose, has_half: bool) -> None:
    key = make_key(purpose)
    secret = key.secret if has_half else b""
    wrapped = MASTER.wrap(label=key.label, secret=secret)
    assert MASTER.unwrap(label=key.label, wrapped=wrapped) == secret
    assert MASTER.wrap(label=key.label, secret=secret) != wrapped


WRAPPED_KEY = make_key(KeyPurpose.AUDIT)
WRAPPED = MASTER.wrap(label=WRAPPED_KEY.label, secret=WRAPPED_KEY.secret)
WIPED = MASTER.wrap(label=WRAPPED_KEY.label, secret=b"")


@given(data=st.data(), wrapped=st.sampled_from([WRAPPED, WIPED]))
def test_any_bit_flipped_in_a_wrapping_is_refused(data: st.DataObject, wrapped: bytes) -> None:
    changed = flip(wrapped, data.draw(st.integers(0, 8 * len(wrapped) - 1)))
    with pytest.raises(NotUnwrapped):
        MASTER.unwrap(label=WRAPPED_KEY.label, wrapped=changed)


@pytest.mark.parametrize(
    "label",
    [
        KeyLabel(id="0" * 16, purpose=KeyPurpose.AUDIT, algorithm=KeyAlgorithm.ED25519),
        KeyLabel(id=WRAPPED_KEY.id, purpose=KeyPurpose.JWT, algorithm=KeyAlgorithm.ED25519),
        KeyLabel(id=WRAPPED_KEY.id, purpose=KeyPurpose.AUDIT, algorithm=KeyAlgorithm.AES_256_GCM),
    ],
)
def test_a_wrapping_is_bound_to_what_the_key_is(label: KeyLabel) -> None:
    public_key = WRAPPED_KEY.label.public_key
    moved = KeyLabel(id=label.id, purpose=label.purpose, algorithm=label.algorithm, public_key=public_key)
    with pytest.raises(NotUnwrapped):
        MASTER.unwrap(label=moved, wrapped=WIPED)


def test_a_wiped_key_still_proves_its_public_half() -> None:
    label = WRAPPED_KEY.label
    other = make_key(KeyPurpose.AUDIT).label.public_key
    forged = KeyLabel(id=label.id, purpose=label.purpose, algorithm=label.algorithm, public_key=other)
    with pytest.raises(NotUnwrapped):
        MASTER.unwrap(label=forged, wrapped=WIPED)


def test_another_master_key_opens_nothing() -> None:
    other = make_master_key(secret=bytes(32))
    assert other.id != MASTER.id
    with pytest.raises(NotUnwrapped):
        other.unwrap(label=WRAPPED_KEY.label, wrapped=WRAPPED)


@pytest.mark.parametrize(
    "wrapped", [b"", b"short", WRAPPED[:-1], WRAPPED + b"\0"], ids=["empty", "short", "less", "more"]
)
def test_a_wrapping_of_another_length_is_refused(wrapped: bytes) -> None:
    with pytest.raises(NotUnwrapped):
        MASTER.unwrap(label=WRAPPED_KEY.label, wrapped=wrapped)


# Sealing


@given(plaintext=st.binary(max_size=200), aad=st.binary(max_size=50))
def test_what_was_sealed_opens_in_its_place(plaintext: bytes, aad: bytes) -> None:
    ring = Keyring([make_key(KeyPurpose.AT_REST)])
    sealed = ring.seal(plaintext=plaintext, aad=aad)
    assert ring.open(key_id=sealed.key_id, data=sealed.data, aad=aad) == plaintext
    assert ring.seal(plaintext=plaintext, aad=aad).data != sealed.data


RING = Keyring([make_key(KeyPurpose.AT_REST), make_key(KeyPurpose.AT_REST, RingKeyState.RETIRING)])
SEALED = RING.seal(plaintext=b"secret", aad=b"place")


@given(st.data())
def test_any_bit_flipped_in_what_was_sealed_is_refused(data: st.DataObject) -> None:
    changed = flip(SEALED.data, data.draw(st.integers(0, 8 * len(SEALED.data) - 1)))
    with pytest.raises(NotOpened):
        RING.open(key_id=SEALED.key_id, data=changed, aad=b"place")


@given(st.data())
def test_any_bit_flipped_in_its_place_is_refused(data: st.DataObject) -> None:
    with pytest.raises(NotOpened):
        RING.open(key_id=SEALED.key_id, data=SEALED.data, aad=flip(b"place", data.draw(st.integers(0, 39))))


def test_another_key_does_not_open_it_and_an_unknown_one_is_named() -> None:
    other = next(key.id for key in RING.keys if key.id != SEALED.key_id)
    with pytest.raises(NotOpened):
        RING.open(key_id=other, data=SEALED.data, aad=b"place")
    with pytest.raises(KeyUnknown):
        RING.open(key_id="0" * 16, data=SEALED.data, aad=b"place")


# What each key may do in each state


@pytest.mark.parametrize("state", RingKeyState)
def test_at_rest_keys_open_in_every_state_and_seal_when_active(state: RingKeyState) -> None:
    key = make_key(KeyPurpose.AT_REST, state)
    as_active = Keyring([RingKey(label=key.label, state=RingKeyState.ACTIVE, since=NOW, secret=key.secret)])
    sealed = as_active.seal(plaintext=b"secret", aad=b"")
    ring = Keyring([key])
    assert ring.open(key_id=key.id, data=sealed.data, aad=b"") == b"secret"
    if state is not RingKeyState.ACTIVE:
        with pytest.raises(NoActiveKey):
            ring.seal(plaintext=b"secret", aad=b"")


@pytest.mark.parametrize(("purpose", "state"), list(itertools.product(SIGNING, RingKeyState)))
def test_signing_keys_sign_when_active_and_verify_until_retired(purpose: KeyPurpose, state: RingKeyState) -> None:
    key = make_key(purpose, state)
    ring = Keyring([key])
    verifies = state is not RingKeyState.RETIRED or purpose is KeyPurpose.AUDIT
    assert (ring.get_verifying_key(purpose, key.id) is not None) == verifies
    if state is not RingKeyState.ACTIVE:
        with pytest.raises(NoActiveKey):
            ring.get_signing_key(purpose)
        return
    signing = ring.get_signing_key(purpose)
    public_key = ring.get_verifying_key(purpose, signing.id)
    assert public_key is not None
    public_key.verify(signing.private_key.sign(b"text"), b"text")
    with pytest.raises(InvalidSignature):
        public_key.verify(signing.private_key.sign(b"text"), b"other")


def test_a_key_is_found_for_its_own_purpose_only() -> None:
    key = make_key(KeyPurpose.JWT)
    ring = Keyring([key])
    assert ring.get_verifying_key(KeyPurpose.AUDIT, key.id) is None
    with pytest.raises(KeyUnknown):
        ring.open(key_id=key.id, data=b"", aad=b"")
