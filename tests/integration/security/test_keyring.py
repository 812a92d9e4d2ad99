"""The stored key ring: its constraints, the first keys, and how a process follows what others change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asgiref.sync import async_to_sync
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from protocol.ports import get_authenticator, get_vault
from security.domain.key_states import KeyPurpose, RingKeyState
from security.domain.keyring import KeyUnknown, NoActiveKey
from security.domain.master_keys import generate_master_key, parse_master_keys
from security.models import AuditEvent, EncryptionKey
from security.services import check_keys, ensure_first_keys, get_keyring, get_waits, keyring, move_revocation_mark
from security.services.key_making import make_key
from security.services.keyring import forget_keyring
from security.services.master_key import MasterKeyUnusable, forget_master_keys
from tests.services import wait_until
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_master_key(settings: Settings) -> Iterator[None]:
    """What a test sets as the master key is read, and forgotten after it."""
    forget_master_keys()
    yield
    forget_master_keys()


@pytest.fixture
def no_keys() -> None:
    """As before the first start."""
    EncryptionKey.objects.all().delete()
    forget_keyring()


def get_active(purpose: KeyPurpose) -> EncryptionKey:
    return EncryptionKey.objects.get(purpose=purpose.value, state="active")


def set_master_key(settings: Settings, **values: Any) -> None:
    fields = {"master_key": "", "master_key_file": None, "master_key_command": None, **values}
    settings.MCP = msgspec.structs.replace(settings.MCP, **fields)
    forget_master_keys()


def let_age(seconds: float) -> None:
    """As if the snapshot were so much older."""
    keyring._snapshots._read_at -= seconds


# Constraints


@pytest.mark.parametrize("state", ["active", "pending"])
def test_there_is_one_active_and_one_pending_key_a_purpose(state: str) -> None:
    new = make_key(purpose=KeyPurpose.JWT, state=RingKeyState(state))
    if state == "pending":
        new.save(force_insert=True)
        new = make_key(purpose=KeyPurpose.JWT, state=RingKeyState.PENDING)
    with pytest.raises(IntegrityError), transaction.atomic():
        new.save(force_insert=True)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "lost"},
        {"purpose": "other"},
        {"algorithm": "AES-256-GCM"},
        {"public_key": b""},
        {"state": "retiring"},
        {"state": "retiring", "replaced_at": timezone.now()},
        {"wrapped": b"x" * 28},
        {"activated_at": None},
        {"retired_at": timezone.now()},
    ],
)
def test_a_key_is_never_stored_as_what_it_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        EncryptionKey.objects.filter(purpose="jwt").update(**change)


# First keys


@pytest.mark.usefixtures("no_keys")
def test_the_first_start_makes_a_key_for_each_purpose_and_records_it() -> None:
    ensure_first_keys()
    assert {key.purpose: key.state for key in EncryptionKey.objects.all()} == dict.fromkeys(KeyPurpose, "active")
    assert AuditEvent.objects.filter(action="keys.create").count() == len(KeyPurpose)
    made = set(EncryptionKey.objects.values_list("id", flat=True))
    ensure_first_keys()
    assert set(EncryptionKey.objects.values_list("id", flat=True)) == made


@pytest.mark.django_db(transaction=True)
def test_nodes_that_start_at_once_agree() -> None:
    EncryptionKey.objects.all().delete()
    run_at_once(ensure_first_keys, times=4)
    assert sorted(EncryptionKey.objects.values_list("purpose", flat=True)) == sorted(KeyPurpose)
    assert AuditEvent.objects.filter(action="keys.create").count() == len(KeyPurpose)


def test_another_master_key_is_refused_by_name(settings: Settings) -> None:
    set_master_key(settings, master_key=generate_master_key())
    with pytest.raises(MasterKeyUnusable, match="not the one that wrapped"):
        ensure_first_keys()


def test_a_stored_key_that_was_changed_is_refused_by_its_id() -> None:
    key = get_active(KeyPurpose.AUDIT)
    EncryptionKey.objects.filter(id=key.id).update(public_key=bytes(32))
    with pytest.raises(MasterKeyUnusable, match=key.id):
        check_keys()


# Where the master key comes from


def test_a_file_and_a_command_give_the_master_key(settings: Settings, tmp_path: Path, no_keys: None) -> None:
    path = tmp_path / "master"
    path.write_text(f"{generate_master_key()}\n")
    set_master_key(settings, master_key_file=path)
    ensure_first_keys()
    set_master_key(settings, master_key_command=f"{sys.executable} -c 'print(open(\"{path}\").read())'")
    check_keys()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"master_key_file": Path("/nowhere/key")}, "MCP_MASTER_KEY_FILE"),
        ({"master_key_command": "/nowhere/kms"}, "MCP_MASTER_KEY_COMMAND"),
        ({"master_key_command": "'unclosed"}, "MCP_MASTER_KEY_COMMAND"),
        ({"master_key_command": f"{sys.executable} -c 'import sys; print(\"s3cret\"); sys.exit(3)'"}, "exit code 3"),
        ({"master_key_command": f"{sys.executable} -c 'print(\"s3cret\")'"}, "MCP_MASTER_KEY_COMMAND"),
    ],
)
def test_what_gives_no_master_key_is_one_line_that_names_it(
    settings: Settings, values: dict[str, Any], named: str
) -> None:
    set_master_key(settings, **values)
    with pytest.raises(MasterKeyUnusable, match=named) as refused:
        check_keys()
    assert "s3cret" not in refused.value.message
    assert "\n" not in refused.value.message


def test_a_master_key_that_is_changed_in_its_file_is_followed(
    settings: Settings, tmp_path: Path, no_keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("security.services.master_key.REREAD_SECONDS", 0.0)
    old, new, path = generate_master_key(), generate_master_key(), tmp_path / "master"
    path.write_text(old)
    set_master_key(settings, master_key_file=path)
    ensure_first_keys()
    get_keyring()
    path.write_text(f"{new}\n{old}")
    forget_keyring()
    wrap_by(new, get_active(KeyPurpose.JWT))
    get_keyring().get_signing_key(KeyPurpose.JWT)
    assert get_keyring().get_sealing_id()


def wrap_by(text: str, *keys: EncryptionKey) -> None:
    """Wrap keys that open here by this master key, as another node does."""
    [master_key] = parse_master_keys(text)
    for key in keys:
        wrapped = master_key.wrap(label=key.get_label(), secret=keyring.unwrap_key(key))
        EncryptionKey.objects.filter(id=key.id).update(wrapped=wrapped, master_key_id=master_key.id)


# A node that is behind, or ahead, while the master key is changed


@pytest.fixture
def two_master_keys(settings: Settings, no_keys: None) -> tuple[str, str]:
    """The new one and the old one, which wraps the ring and is all that this node has."""
    new, old = generate_master_key(), generate_master_key()
    set_master_key(settings, master_key=old)
    ensure_first_keys()
    get_keyring()
    return new, old


def test_a_node_that_is_ahead_makes_keys_that_those_behind_can_open(
    settings: Settings, two_master_keys: tuple[str, str]
) -> None:
    new, old = two_master_keys
    set_master_key(settings, master_key=f"{new},{old}")
    make_key(purpose=KeyPurpose.JWT, state=RingKeyState.PENDING).save(force_insert=True)
    set_master_key(settings, master_key=old)
    check_keys()


def test_a_node_that_is_behind_goes_on_makes_no_keys_and_does_not_start_again(
    settings: Settings, two_master_keys: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    new, _ = two_master_keys
    sealed = get_keyring().seal(plaintext=b"secret", aad=b"")
    wrap_by(new, *EncryptionKey.objects.all())
    let_age(seconds=60)
    assert get_keyring().open(key_id=sealed.key_id, data=sealed.data, aad=b"") == b"secret"
    assert get_keyring().get_signing_key(KeyPurpose.JWT).id == get_active(KeyPurpose.JWT).id
    assert not caplog.records
    with pytest.raises(MasterKeyUnusable, match="not the one that wrapped"):
        make_key(purpose=KeyPurpose.JWT, state=RingKeyState.PENDING)
    with pytest.raises(MasterKeyUnusable, match="not the one that wrapped"):
        check_keys()


def test_a_node_that_is_behind_names_a_key_that_it_cannot_open_once(
    settings: Settings, two_master_keys: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    new, old = two_master_keys
    wrap_by(new, *EncryptionKey.objects.all())
    set_master_key(settings, master_key=new)
    made = make_key(purpose=KeyPurpose.AUDIT, state=RingKeyState.PENDING)
    made.save(force_insert=True)
    set_master_key(settings, master_key=old)
    for _ in range(3):
        let_age(seconds=60)
        assert not get_keyring().has_key(made.id)
    assert [made.id in record.getMessage() for record in caplog.records] == [True]
    get_keyring().get_signing_key(KeyPurpose.AUDIT)


# The process's snapshot


def test_the_vault_seals_and_opens_without_a_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    vault = get_vault()
    with django_assert_num_queries(0):
        sealed = vault.seal(plaintext=b"secret", aad=b"place")
        assert vault.open(key_id=sealed.key_id, data=sealed.data, aad=b"place") == b"secret"
    assert sealed.key_id == get_active(KeyPurpose.AT_REST).id


def replace_jwt_key() -> str:
    """As another process does it; the new key's id."""
    EncryptionKey.objects.filter(purpose="jwt").delete()
    new = make_key(purpose=KeyPurpose.JWT, state=RingKeyState.ACTIVE)
    new.save(force_insert=True)
    return new.id


def by_age() -> None:
    let_age(seconds=60)


def by_mark() -> None:
    move_revocation_mark()
    get_authenticator().get_mark()


@pytest.mark.parametrize("become_due", [by_age, by_mark])
def test_a_change_is_followed(become_due: Callable[[], None]) -> None:
    new = replace_jwt_key()
    assert get_keyring().get_signing_key(KeyPurpose.JWT).id != new
    become_due()
    assert get_keyring().get_signing_key(KeyPurpose.JWT).id == new


def test_an_unknown_key_is_looked_for_but_not_for_each_message_of_a_stranger() -> None:
    let_age(seconds=keyring.UNKNOWN_KEY_SECONDS)
    with CaptureQueriesContext(connection) as queries:
        for number in range(100):
            assert get_keyring(key_id=f"{number:016}").get_verifying_key(KeyPurpose.JWT, f"{number:016}") is None
    assert len(queries) == 2
    new = replace_jwt_key()
    let_age(seconds=keyring.UNKNOWN_KEY_SECONDS)
    assert get_keyring(key_id=new).get_verifying_key(KeyPurpose.JWT, new) is not None


def test_a_key_that_does_not_unwrap_stops_nobody_but_who_needs_it() -> None:
    EncryptionKey.objects.filter(purpose="at_rest").update(wrapped=bytes(60))
    forget_keyring()
    get_keyring().get_signing_key(KeyPurpose.JWT)
    with pytest.raises(NoActiveKey):
        get_keyring().seal(plaintext=b"", aad=b"")
    with pytest.raises(KeyUnknown):
        get_vault().open(key_id=get_active(KeyPurpose.AT_REST).id, data=b"", aad=b"")


def peek() -> str:
    """The JWT key of the snapshot at hand."""
    ring = keyring._snapshots.ring
    assert ring is not None
    return ring.get_signing_key(KeyPurpose.JWT).id


@pytest.mark.django_db(transaction=True)
def test_on_an_event_loop_nobody_waits_for_the_database() -> None:
    new = replace_jwt_key()

    async def look() -> None:
        let_age(seconds=get_waits().snapshot_age.total_seconds())
        assert get_keyring().get_signing_key(KeyPurpose.JWT).id != new
        await asyncio.to_thread(wait_until, lambda: peek() == new)
        forget_keyring()
        assert get_keyring().get_signing_key(KeyPurpose.JWT).id == new

    async_to_sync(look)()


@pytest.mark.django_db(transaction=True)
def test_a_process_that_was_idle_signs_with_no_key_of_long_ago() -> None:
    new = replace_jwt_key()

    async def look() -> str:
        let_age(seconds=get_waits().published_for.total_seconds())
        return get_keyring().get_signing_key(KeyPurpose.JWT).id

    assert async_to_sync(look)() == new
