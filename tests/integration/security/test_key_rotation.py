"""API keys that are bound to networks, and rotated with an overlap."""

from __future__ import annotations

import io
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from protocol.domain.messages import ApiKeyCredentials, JwtCredentials
from protocol.errors import AuthenticationFailed, IpDenied
from protocol.ports import Principal, get_authenticator
from security import services
from security.models import ApiKey, AuditEvent
from tests.factories import create_person, create_service, issue_key, issue_tokens

pytestmark = pytest.mark.django_db

HOME, AWAY = "192.0.2.7", "198.51.100.9"
KEY = re.compile(r"mcp_[A-Za-z0-9_-]{43}")


def show(secret: str, address: str | None = HOME) -> Principal:
    return get_authenticator().authenticate(credentials=ApiKeyCredentials(secret), remote_address=address)


@pytest.mark.parametrize("address", [AWAY, "192.0.20.7", "2001:db8::1", None])
def test_a_key_is_taken_from_its_networks_only(address: str | None) -> None:
    key = issue_key(networks=["192.0.2.0/24", "2001:db8:1::/48"])
    pair = issue_tokens(key=issue_key(networks=["127.0.0.0/8"]))
    for inside in (HOME, f"::ffff:{HOME}", "2001:db8:1::7"):
        assert show(key.secret, inside).name
    with pytest.raises(IpDenied):
        show(key.secret, address)
    with pytest.raises(IpDenied):
        get_authenticator().authenticate(credentials=JwtCredentials(pair.access), remote_address=address)


@pytest.mark.parametrize("networks", [["nonsense"], ["10.0.0.1/8"], ["10.0.0.0/8"] * 51])
def test_a_key_with_networks_that_are_none_is_not_issued(networks: list[str]) -> None:
    with pytest.raises(ValidationError):
        issue_key(networks=networks)


def test_from_where_a_key_was_used_is_kept() -> None:
    key = issue_key()
    show(key.secret)
    key.api_key.refresh_from_db()
    assert key.api_key.last_used_from == HOME


def test_both_keys_count_during_the_overlap_and_the_old_one_ends() -> None:
    key = issue_key(scopes=["tools.view"], networks=["192.0.2.0/24"])
    issued = services.rotate_api_key(api_key=key.api_key, overlap=timedelta(hours=2))
    successor = issued.api_key
    assert (successor.scopes, successor.networks, successor.account) == (
        ["tools.view"],
        ["192.0.2.0/24"],
        key.api_key.account,
    )
    assert successor.replaces == key.api_key
    assert successor.expires_at is None
    assert show(key.secret).name
    assert show(issued.secret).name
    ends_at = key.api_key.expires_at
    assert ends_at is not None
    assert abs(ends_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    ApiKey.objects.filter(pk=key.api_key.pk).update(
        created_at=timezone.now() - timedelta(days=1), expires_at=timezone.now() - timedelta(seconds=1)
    )
    with pytest.raises(AuthenticationFailed):
        show(key.secret)
    events = AuditEvent.objects.filter(data_json__contains=str(successor.pk))
    assert [event.action for event in events] == ["api_keys.rotate"], "one act, one event"


def test_an_expiry_moves_only_nearer_and_the_successor_lives_as_long() -> None:
    soon = timezone.now() + timedelta(hours=1)
    key = issue_key(expires_at=soon)
    issued = services.rotate_api_key(api_key=key.api_key)
    key.api_key.refresh_from_db()
    assert key.api_key.expires_at == soon
    assert issued.api_key.expires_at is not None
    assert abs(issued.api_key.expires_at - soon) < timedelta(minutes=1)


def test_open_connections_learn_when_the_old_key_ends() -> None:
    key = issue_key()
    principal = show(key.secret)
    assert principal.expires_at is None
    services.rotate_api_key(api_key=key.api_key)
    (renewed,) = get_authenticator().renew([principal])
    assert renewed is not None
    assert renewed.expires_at == key.api_key.expires_at


def test_what_does_not_count_or_was_rotated_is_not_rotated() -> None:
    key, revoked = issue_key(), issue_key()
    services.rotate_api_key(api_key=key.api_key)
    services.revoke_api_key(api_key=revoked.api_key)
    for api_key in (key.api_key, revoked.api_key):
        with pytest.raises(ValidationError):
            services.rotate_api_key(api_key=api_key)
    assert ApiKey.objects.count() == 3


def test_the_command_line_rotates() -> None:
    key = issue_key(account=create_service(username="bot"))
    output = io.StringIO()
    call_command("rotate_key", "bot", key.api_key.prefix, "--overlap-hours", "1", "--quiet", stdout=output)
    assert show(KEY.findall(output.getvalue())[0]).name
    for arguments in (("bot", "mcp_none"), ("bot", key.api_key.prefix), ("nobody", "x")):
        with pytest.raises(CommandError):
            call_command("rotate_key", *arguments)


def test_the_console_rotates_and_shows_the_successor_once(console: Client) -> None:
    key = issue_key()
    page = reverse("admin:security_apikey_rotate_key", args=[key.api_key.pk])
    assert console.get(page).status_code == 200
    assert ApiKey.objects.count() == 1
    answer = console.post(page, {"overlap_hours": "24"})
    assert "no-store" in answer.headers["Cache-Control"]
    assert show(KEY.findall(answer.content.decode())[0]).name
    assert console.post(page, {"overlap_hours": "24"}).status_code == 200
    assert ApiKey.objects.count() == 2


def test_nobody_rotates_anothers_key(client: Client) -> None:
    clerk = create_person(is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_apikey", "add_apikey", "change_apikey"]))
    client.force_login(clerk)
    theirs = issue_key()
    page = reverse("admin:security_apikey_rotate_key", args=[theirs.api_key.pk])
    assert client.post(page, {"overlap_hours": "24"}).status_code == 403
    assert ApiKey.objects.count() == 1
