"""Showing an API key: who comes in, as what, and that a refusal says nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from protocol.domain.messages import ApiKeyCredentials, SecurityLevel
from protocol.errors import AuthenticationFailed, Misconfigured
from protocol.ports import Resource, get_authenticator, get_authorizer
from security import services
from security.domain.authorization import AccountPrincipal
from security.models import Account, ApiKey, Grant
from security.selectors import get_account_principal
from tests.factories import allow, create_person, create_role, create_service, deny, issue_key
from tests.queries import capture_queries

pytestmark = pytest.mark.django_db

TOOL = Resource(kind="tool", name="files.read")


def authenticate(key: str) -> AccountPrincipal:
    principal = get_authenticator().authenticate(credentials=ApiKeyCredentials(key=key), remote_address="127.0.0.1")
    assert isinstance(principal, AccountPrincipal)
    return principal


def make_unknown() -> str:
    return "mcp_" + "A" * 43


def make_altered() -> str:
    secret = issue_key().secret
    return secret[:-1] + ("A" if secret[-1] != "A" else "B")


def make_revoked() -> str:
    issued = issue_key()
    services.revoke_api_key(api_key=issued.api_key)
    return issued.secret


def make_expired() -> str:
    issued = issue_key()
    ApiKey.objects.filter(pk=issued.api_key.pk).update(
        created_at=timezone.now() - timedelta(days=2), expires_at=timezone.now() - timedelta(seconds=1)
    )
    return issued.secret


def make_inactive() -> str:
    account = create_service()
    issued = issue_key(account=account)
    account.is_active = False
    services.save_account(account=account)
    return issued.secret


def make_hash() -> str:
    return issue_key().api_key.key_hash


def make_padded() -> str:
    return f" {issue_key().secret}\n"


REFUSED = [make_unknown, make_altered, make_revoked, make_expired, make_inactive, make_hash, make_padded, str]


@pytest.mark.parametrize("make", REFUSED)
def test_every_refusal_is_the_same_to_the_peer(
    make: Callable[[], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = make()
    caplog.set_level(logging.DEBUG)
    with capture_queries() as queries, pytest.raises(AuthenticationFailed) as caught:
        authenticate(key)
    assert len(queries) == 2
    assert caught.value.message == AuthenticationFailed.get_default_message()
    assert not caught.value.details
    assert not key.strip() or key.strip() not in caplog.text


def test_a_key_that_was_used_before_costs_the_same_two_queries() -> None:
    secret = issue_key().secret
    authenticate(secret)
    with capture_queries() as queries:
        authenticate(secret)
    assert len(queries) == 2


def test_the_principal_is_the_account_with_its_roles_and_the_key() -> None:
    reader = create_role(name="reader", grants=[allow("tools.view", "tool:*"), deny("tools.view", "tool:x.*")])
    create_role(name="empty", grants=[])
    account = create_service(username="bot", roles=["agent", "empty", reader.name])
    expires_at = timezone.now() + timedelta(hours=1)
    issued = issue_key(account=account, scopes=["tools.*"], expires_at=expires_at)

    principal = authenticate(issued.secret)

    assert (principal.id, principal.name, principal.credential_id) == (account.id, "bot", issued.api_key.id)
    assert principal.roles == ("agent", "empty", "reader")
    assert principal.scopes == ("tools.*",)
    assert principal.expires_at == expires_at
    assert principal.security_level_max is SecurityLevel.HIGH
    assert set(principal.grants) == {
        allow("tools.view", "tool:*"),
        allow("tools.execute", "tool:*"),
        allow("executions.view", "execution:*@own"),
        allow("executions.cancel", "execution:*@own"),
        allow("executions.retry", "execution:*@own"),
        allow("ports.*", "port:*@own"),
        allow("sessions.view", "session:*@own"),
        allow("sessions.revoke", "session:*@own"),
        deny("tools.view", "tool:x.*"),
    }


@pytest.mark.parametrize(
    ("role", "action", "kind", "is_own", "expected"),
    [
        ("operator", "tools.execute", "tool", False, True),
        ("operator", "executions.view", "execution", False, True),
        ("operator", "anything.else", "session", False, True),
        ("agent", "tools.view", "tool", False, True),
        ("agent", "tools.execute", "tool", False, True),
        ("agent", "executions.view", "execution", True, True),
        ("agent", "executions.view", "execution", False, False),
        ("agent", "tools.register", "tool", False, False),
        ("viewer", "tools.view", "tool", False, True),
        ("viewer", "tools.execute", "tool", False, False),
        ("viewer", "executions.view", "execution", False, True),
        (None, "tools.view", "tool", False, False),
    ],
)
def test_what_the_built_in_roles_may(role: str | None, action: str, kind: str, is_own: bool, expected: bool) -> None:
    account = create_service(roles=[role] if role else [])
    principal = authenticate(issue_key(account=account).secret)
    resource = Resource(kind=kind, name="x", owner_id=account.id if is_own else create_person().id)
    assert get_authorizer().is_allowed(principal=principal, action=action, resource=resource) is expected


def test_a_keys_scopes_narrow_what_its_account_may() -> None:
    principal = authenticate(issue_key(scopes=["tools.view", "tools.register"]).secret)
    authorizer = get_authorizer()
    assert authorizer.is_allowed(principal=principal, action="tools.view", resource=TOOL)
    assert not authorizer.is_allowed(principal=principal, action="tools.execute", resource=TOOL)
    assert not authorizer.is_allowed(principal=principal, action="tools.register", resource=TOOL)


def test_an_account_without_a_credential_is_a_principal_too() -> None:
    account = create_service()
    principal = get_account_principal(account=account)
    assert (principal.id, principal.credential_id, principal.scopes) == (account.id, account.id, ())
    assert get_authorizer().is_allowed(principal=principal, action="tools.execute", resource=TOOL)


def test_last_use_is_recorded_at_most_once_a_minute() -> None:
    issued = issue_key()

    def get_last_use() -> object:
        return ApiKey.objects.values_list("last_used_at", flat=True).get(pk=issued.api_key.pk)

    assert get_last_use() is None
    authenticate(issued.secret)
    first = get_last_use()
    assert first is not None
    authenticate(issued.secret)
    assert get_last_use() == first
    an_hour_ago = timezone.now() - timedelta(hours=1)
    ApiKey.objects.filter(pk=issued.api_key.pk).update(last_used_at=an_hour_ago)
    authenticate(issued.secret)
    assert get_last_use() != an_hour_ago


def test_a_refused_key_is_not_recorded_as_used() -> None:
    issued = issue_key()
    services.revoke_api_key(api_key=issued.api_key)
    with pytest.raises(AuthenticationFailed):
        authenticate(issued.secret)
    issued.api_key.refresh_from_db()
    assert issued.api_key.last_used_at is None


def test_a_grant_that_does_not_parse_shuts_its_accounts_out() -> None:
    role = create_role(name="broken", grants=[allow("*")])
    Grant.objects.create(role=role, effect="deny", action_pattern="Tools.(", resource_pattern="*:*")
    issued = issue_key(account=create_service(roles=["broken"]))
    with pytest.raises(Misconfigured):
        authenticate(issued.secret)


def test_a_services_password_is_none() -> None:
    account = create_service()
    assert not account.has_usable_password()
    assert Account.objects.get(pk=account.pk).password.startswith("!")
