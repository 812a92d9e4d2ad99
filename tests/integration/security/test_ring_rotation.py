"""Rotation of the ring's keys and of the master key: each step, interrupted after each, and by several at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import jwt
import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings
from uuid_utils.compat import uuid7

from protocol import ports
from protocol.domain.messages import SecurityLevel
from protocol.models import OutboxMessage, Session
from protocol.ports import Sealed
from protocol.sealed_fields import Plain, SealedValue
from security import services
from security.domain.key_states import SIGNATURES_COUNT_FOR, KeyPurpose, RingKeyState
from security.domain.keyring import Keyring
from security.domain.master_keys import generate_master_key, split_master_keys
from security.models import AuditEvent, AuthenticatorApp, EncryptionKey, IssuedToken
from security.selectors import find_key, get_revocation_mark
from security.services import get_keyring, get_waits, resealing
from security.services.keyring import forget_keyring
from security.services.master_key import forget_master_keys
from tests.factories import create_person, issue_tokens
from tests.keys import ensure_keys
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db


class Owed:
    """What a sealed session is owed: sealed values, with more of them than a batch has."""

    def __init__(self) -> None:
        self.session = Session.objects.create(
            account=create_person(), credential_id=uuid7(), channel="", security_level=SecurityLevel.HIGH.value
        )

    def add(self, number: int) -> None:
        OutboxMessage.objects.create(
            session=self.session,
            sequence=number + 1,
            correlation_id=f"m-{number}",
            kind="response",
            payload=b"%d" % number,
        )

    def read(self) -> list[bytes]:
        return [message.payload for message in OutboxMessage.objects.filter(session=self.session)]

    def count(self, *, key_id: str) -> int:
        return OutboxMessage.objects.filter(session=self.session, key_id=key_id).count()


@pytest.fixture
def owed(monkeypatch: pytest.MonkeyPatch) -> Owed:
    monkeypatch.setattr(resealing, "BATCH_SIZE", 3)
    owed = Owed()
    for number in range(10):
        owed.add(number)
    return owed


def pass_time(span: timedelta) -> None:
    """As if all that happened to the keys had happened so much earlier."""
    for key in EncryptionKey.objects.all():
        for name in ("created_at", "activates_at", "activated_at", "replaced_at", "retired_at"):
            if getattr(key, name) is not None:
                setattr(key, name, getattr(key, name) - span)
        key.save()
    IssuedToken.objects.update(issued_at=F("issued_at") - span)


def finish() -> None:
    """What the scheduler does until nothing is left to do."""
    for _ in range(4):
        pass_time(max(get_waits().published_for, get_waits().grace))
        services.advance_rotations(seconds=5)


def get_active_id(purpose: KeyPurpose) -> str:
    key = find_key(purpose=purpose, state=RingKeyState.ACTIVE)
    assert key is not None
    return key.id


def list_states(purpose: KeyPurpose) -> list[str]:
    return list(
        EncryptionKey.objects.filter(purpose=purpose.value).order_by("created_at").values_list("state", flat=True)
    )


def test_a_key_is_published_before_it_is_used_and_the_old_one_retired_when_it_holds_nothing(owed: Owed) -> None:
    old = get_active_id(KeyPurpose.AT_REST)
    new = services.begin_rotation(purpose=KeyPurpose.AT_REST)
    services.advance_rotations(seconds=5)
    assert (get_active_id(KeyPurpose.AT_REST), owed.count(key_id=old)) == (old, 10)
    pass_time(get_waits().published_for)
    services.advance_rotations(seconds=5)
    assert (get_active_id(KeyPurpose.AT_REST), owed.count(key_id=new.id)) == (new.id, 10)
    assert list_states(KeyPurpose.AT_REST) == ["retiring", "active"]
    pass_time(get_waits().grace)
    services.advance_rotations(seconds=5)
    assert list_states(KeyPurpose.AT_REST) == ["retired", "active"]
    assert sorted(owed.read()) == [b"%d" % number for number in range(10)]


def test_an_authenticator_apps_secret_is_sealed_anew_and_still_opens() -> None:
    person = create_person()
    app_id = services.begin_enrolment(account=person)
    before = services.get_enrolment(account=person, app_id=app_id)
    old = get_active_id(KeyPurpose.AT_REST)
    rotate()
    assert list_states(KeyPurpose.AT_REST) == ["retired", "active"]
    assert AuthenticatorApp.objects.get(id=app_id).secret_key_id == get_active_id(KeyPurpose.AT_REST) != old
    assert services.get_enrolment(account=person, app_id=app_id) == before


def test_what_is_stored_open_stays_as_it_is(owed: Owed) -> None:
    OutboxMessage.objects.create(
        session=owed.session, sequence=11, correlation_id="open", kind="response", payload=Plain(b"[]")
    )
    rotate()
    message = OutboxMessage.objects.get(correlation_id="open")
    assert (message.key_id, message.payload) == (None, b"[]")


class StaleVault(services.KeyringVault):
    """Of a process that has not read its keys again."""

    def __init__(self, ring: Keyring) -> None:
        self._ring = ring

    def seal(self, *, plaintext: bytes, aad: bytes) -> Sealed:
        return self._ring.seal(plaintext=plaintext, aad=aad)


def test_a_writer_who_had_not_heard_of_it_leaves_nothing_unreadable(owed: Owed) -> None:
    stale = get_keyring()
    services.begin_rotation(purpose=KeyPurpose.AT_REST)
    finish()
    assert list_states(KeyPurpose.AT_REST) == ["retired", "active"]
    ports.bind(vault=StaleVault(stale))
    try:
        owed.add(99)
    finally:
        ports.bind(vault=services.KeyringVault())
    assert owed.count(key_id=stale.get_sealing_id()) == 1
    assert b"99" in owed.read()
    services.reseal_stragglers(seconds=5)
    assert owed.count(key_id=get_active_id(KeyPurpose.AT_REST)) == 11
    assert b"99" in owed.read()


def rotate() -> None:
    """As the command does, which goes on with what is unfinished."""
    if not services.list_unfinished(now=timezone.now()):
        services.begin_rotation(purpose=KeyPurpose.AT_REST)
    finish()


def test_a_value_that_does_not_open_keeps_its_key(owed: Owed, caplog: pytest.LogCaptureFixture) -> None:
    old = get_active_id(KeyPurpose.AT_REST)
    OutboxMessage.objects.filter(sequence=5).update(payload=SealedValue(bytes(40)))
    services.begin_rotation(purpose=KeyPurpose.AT_REST)
    finish()
    assert list_states(KeyPurpose.AT_REST) == ["retiring", "active"]
    assert owed.count(key_id=old) == 1


@pytest.mark.parametrize("purpose", [KeyPurpose.JWT, KeyPurpose.IDENTITY, KeyPurpose.AUDIT])
def test_a_signing_key_that_is_replaced_loses_its_secret_half(purpose: KeyPurpose) -> None:
    old = get_active_id(purpose)
    services.begin_rotation(purpose=purpose)
    pass_time(get_waits().published_for)
    services.advance_rotations(seconds=1)
    assert services.keyring.unwrap_key(EncryptionKey.objects.get(id=old)) == b""
    assert get_keyring().get_verifying_key(purpose, old) is not None
    pass_time(SIGNATURES_COUNT_FOR)
    services.advance_rotations(seconds=1)
    assert list_states(purpose) == ["retired", "active"]
    assert (get_keyring().get_verifying_key(purpose, old) is not None) == (purpose is KeyPurpose.AUDIT)


def test_a_rotation_of_the_tokens_key_logs_nobody_out() -> None:
    before = issue_tokens()
    old = get_active_id(KeyPurpose.JWT)
    services.begin_rotation(purpose=KeyPurpose.JWT)
    finish()
    assert list_states(KeyPurpose.JWT) == ["retiring", "active"], "a token of it lasts"
    after = services.refresh_tokens(refresh_token=before.refresh, remote_address=None, trace_id="")
    assert jwt.get_unverified_header(before.access)["kid"] == old
    assert jwt.get_unverified_header(after.access)["kid"] == get_active_id(KeyPurpose.JWT)


@pytest.mark.django_db(transaction=True)
def test_several_at_once_make_one_rotation() -> None:
    keys = run_at_once(lambda: services.begin_rotation(purpose=KeyPurpose.AUDIT).id, times=3)
    assert len(set(keys)) == 1
    pass_time(get_waits().published_for)
    run_at_once(lambda: services.advance_rotations(seconds=1), times=3)
    assert list_states(KeyPurpose.AUDIT) == ["retiring", "active"]
    events = AuditEvent.objects.filter(resource_name__in=keys).values_list("action", flat=True)
    assert sorted(events) == ["keys.activate", "keys.publish"]


def test_each_act_is_recorded_and_moves_the_mark(owed: Owed) -> None:
    mark = get_revocation_mark()
    services.begin_rotation(purpose=KeyPurpose.AT_REST)
    finish()
    actions = AuditEvent.objects.filter(resource_kind="key").order_by("at").values_list("action", flat=True)
    assert list(actions) == ["keys.publish", "keys.replace", "keys.activate", "keys.retire"]
    assert get_revocation_mark() == mark + 3


def test_a_key_may_be_published_long_before() -> None:
    call_command("rotate_keys", "--purpose", "identity", "--publish-days", "14")
    finish()
    assert list_states(KeyPurpose.IDENTITY) == ["active", "pending"]
    pass_time(timedelta(days=14))
    services.advance_rotations(seconds=1)
    assert list_states(KeyPurpose.IDENTITY) == ["retiring", "active"]


def test_one_that_was_published_for_later_can_be_had_now() -> None:
    call_command("rotate_keys", "--purpose", "identity", "--publish-days", "14")
    call_command("rotate_keys", "--purpose", "identity", "--publish-days", "20")
    pass_time(get_waits().published_for)
    services.begin_rotation(purpose=KeyPurpose.IDENTITY)
    pass_time(get_waits().published_for)
    services.advance_rotations(seconds=1)
    assert list_states(KeyPurpose.IDENTITY) == ["retiring", "active"]
    outcomes = AuditEvent.objects.filter(action="keys.publish").order_by("at").values_list("outcome", flat=True)
    assert list(outcomes) == ["pending", "sooner"]


# The master key


@pytest.fixture
def own_file(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A data folder with a master key of its own, and keys that it wrapped."""
    path = tmp_path / "secrets" / "master_key"
    path.parent.mkdir()
    path.write_text(generate_master_key())
    settings.MCP = msgspec.structs.replace(settings.MCP, data_dir=tmp_path, master_key="", master_key_file=path)
    forget_master_keys()
    EncryptionKey.objects.all().delete()
    ensure_keys()
    yield path
    forget_master_keys()


def assert_whole(path: Path) -> None:
    """As after a start: what was sealed opens, and the file has one master key, that of all keys."""
    forget_master_keys()
    forget_keyring()
    services.check_keys()
    assert len(split_master_keys(path.read_text())) == 1
    assert EncryptionKey.objects.values("master_key_id").distinct().count() == 1


def test_the_data_folders_master_key_is_changed(own_file: Path) -> None:
    before, sealed = own_file.read_text(), get_keyring().seal(plaintext=b"secret", aad=b"")
    assert services.rotate_master_key().count == len(KeyPurpose)
    assert own_file.read_text() != before
    assert_whole(own_file)
    assert get_keyring().open(key_id=sealed.key_id, data=sealed.data, aad=b"") == b"secret"
    assert AuditEvent.objects.filter(action="keys.rewrap").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_change_it_at_once_lose_nothing(own_file: Path) -> None:
    run_at_once(services.rotate_master_key, times=2)
    assert_whole(own_file)


def test_a_master_key_from_elsewhere_is_changed_there_first(settings: Settings, own_file: Path) -> None:
    old, new = own_file.read_text(), generate_master_key()
    settings.MCP = msgspec.structs.replace(settings.MCP, master_key=old, master_key_file=None)
    with pytest.raises(CommandError, match="NEW,OLD"):
        call_command("rotate_master_key")
    settings.MCP = msgspec.structs.replace(settings.MCP, master_key=f"{new},{old}")
    call_command("rotate_master_key")
    settings.MCP = msgspec.structs.replace(settings.MCP, master_key=new)
    forget_master_keys()
    services.check_keys()
    assert own_file.read_text() == old


# The published set and the console


def test_the_public_halves_are_published(client: Client) -> None:
    answer = client.get("/.well-known/mcp-keys.json")
    keys = {key["purpose"]: key for key in answer.json()["keys"]}
    assert set(keys) == {"identity", "jwt", "audit"}
    assert keys["jwt"] == {
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "purpose": "jwt", "state": "active",
        "kid": get_active_id(KeyPurpose.JWT), "x": keys["jwt"]["x"],
    }  # fmt: skip
    assert "public" in answer["Cache-Control"]
    assert client.get("/.well-known/mcp-keys.json", headers={"If-None-Match": answer["ETag"]}).status_code == 304
    assert client.post("/.well-known/mcp-keys.json").status_code == 405


def test_an_operator_sees_the_keys_and_rotates_one(console: Client) -> None:
    key = get_active_id(KeyPurpose.AUDIT)
    page = console.get("/admin/security/encryptionkey/")
    assert key in page.content.decode()
    detail = console.get(f"/admin/security/encryptionkey/{key}/change/")
    assert detail.status_code == 200
    assert "wrapped" not in detail.content.decode().replace("wrapped by", "")
    address = reverse("admin:security_encryptionkey_rotate_key", args=[key])
    answer = console.post(address, {"_form_submitted": "on"})
    assert "HX-Redirect" in answer.headers
    assert list_states(KeyPurpose.AUDIT) == ["active", "pending"]
    event = AuditEvent.objects.get(action="keys.publish")
    assert event.actor_name


def test_who_is_no_superuser_does_not_see_them(client: Client) -> None:
    client.force_login(create_person(is_staff=True))
    assert client.get("/admin/security/encryptionkey/").status_code == 403


# Age


def test_a_key_that_is_in_use_for_long_is_told_of_in_the_log_and_the_console(
    console: Client, caplog: pytest.LogCaptureFixture
) -> None:
    key = get_active_id(KeyPurpose.IDENTITY)

    def read_pages() -> list[str]:
        return [console.get(page).content.decode() for page in ("/admin/", "/admin/security/encryptionkey/")]

    assert services.warn_of_aged_keys() == []
    assert "aged-keys" not in read_pages()[0]
    EncryptionKey.objects.filter(id=key).update(activated_at=timezone.now() - timedelta(days=365))
    assert [aged.id for aged in services.warn_of_aged_keys()] == [key]
    [line] = [record.getMessage() for record in caplog.records]
    assert key in line
    assert "--purpose identity" in line
    overview, keys = read_pages()
    assert key in overview[overview.index("aged-keys") :]
    assert "is in use for 365 days" in keys
    services.begin_rotation(purpose=KeyPurpose.IDENTITY)
    finish()
    assert services.warn_of_aged_keys() == []
    assert "aged-keys" not in read_pages()[0]


def test_who_is_no_superuser_is_told_of_no_key(client: Client) -> None:
    EncryptionKey.objects.update(activated_at=timezone.now() - timedelta(days=3650))
    client.force_login(create_person(is_staff=True))
    assert "aged-keys" not in client.get("/admin/").content.decode()


def test_the_age_may_be_set_or_be_none_at_all(settings: Settings) -> None:
    EncryptionKey.objects.update(activated_at=timezone.now() - timedelta(days=10))
    for days, count in ((0, 0), (10, len(KeyPurpose)), (11, 0)):
        settings.MCP = msgspec.structs.replace(settings.MCP, key_warning_days=days)
        assert len(services.warn_of_aged_keys()) == count
