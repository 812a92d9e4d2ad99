"""Issuing, renaming and revoking keys; making accounts and changing passwords; roles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from protocol.errors import Misconfigured
from protocol.ports import get_authenticator
from security import services
from security.models import Account, ApiKey, AuditEvent, Grant, Role
from security.selectors import get_account
from tests.factories import create_operator, create_person, create_service, issue_key

pytestmark = pytest.mark.django_db


def get_code(error: ValidationError) -> str | None:
    return error.error_list[0].code if hasattr(error, "error_list") else None


def test_of_a_key_only_its_hash_and_prefix_are_stored() -> None:
    issued = issue_key()
    row = ApiKey.objects.filter(pk=issued.api_key.pk).values().get()
    assert issued.secret.startswith("mcp_")
    assert row["prefix"] == issued.secret[:12]
    assert all(issued.secret not in str(value) for value in row.values())
    assert all(issued.secret[12:] not in str(value) for value in row.values())
    assert issued.secret not in repr(issued)
    assert issued.secret not in str(issued.api_key)


def test_keys_differ() -> None:
    account = create_service()
    assert len({issue_key(account=account).secret for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "scopes", [["Tools"], ["tools.*", "a b"], [""], ["tools.view"] * 51], ids=["case", "space", "empty", "many"]
)
def test_a_key_with_a_wrong_scope_is_not_issued(scopes: list[str]) -> None:
    account = create_service()
    with pytest.raises(ValidationError):
        services.issue_api_key(account=account, name="k", scopes=scopes)
    assert not ApiKey.objects.exists()


def test_a_key_that_would_have_expired_already_is_not_issued() -> None:
    with pytest.raises(ValidationError):
        issue_key(expires_at=timezone.now() - timedelta(seconds=1))
    assert not ApiKey.objects.exists()


def test_an_inactive_account_gets_no_key() -> None:
    account = create_service()
    account.is_active = False
    services.save_account(account=account)
    with pytest.raises(ValidationError) as caught:
        issue_key(account=account)
    assert get_code(caught.value) == "account_inactive"


def test_revoking_again_changes_nothing_and_says_so() -> None:
    api_key = issue_key().api_key
    assert services.revoke_api_key(api_key=api_key)
    first = api_key.revoked_at
    assert first is not None
    assert not services.revoke_api_key(api_key=ApiKey.objects.get(pk=api_key.pk))
    api_key.refresh_from_db()
    assert api_key.revoked_at == first


def test_renaming_changes_the_name_and_nothing_else() -> None:
    issued = issue_key(scopes=["tools.view"])
    before = ApiKey.objects.filter(pk=issued.api_key.pk).values().get()
    services.rename_api_key(api_key=issued.api_key, name="laptop")
    after = ApiKey.objects.filter(pk=issued.api_key.pk).values().get()
    assert after == {**before, "name": "laptop"}


def test_an_expired_key_can_be_renamed() -> None:
    api_key = issue_key().api_key
    ApiKey.objects.filter(pk=api_key.pk).update(
        created_at=timezone.now() - timedelta(days=2), expires_at=timezone.now() - timedelta(days=1)
    )
    api_key.refresh_from_db()
    services.rename_api_key(api_key=api_key, name="old")
    api_key.refresh_from_db()
    assert api_key.name == "old"


def test_a_service_gets_no_password() -> None:
    with pytest.raises(ValidationError) as caught:
        services.create_account(username="bot", kind=Account.Kind.SERVICE, password="correct horse battery")
    assert get_code(caught.value) == "service_has_no_password"
    account = create_service()
    for change in (
        lambda: services.reset_password(account=account),
        lambda: services.set_password(account=account, password="correct horse battery"),
    ):
        with pytest.raises(ValidationError):
            change()
    account.refresh_from_db()
    assert not account.has_usable_password()


def test_an_account_with_an_unknown_role_is_not_made() -> None:
    with pytest.raises(ValidationError) as caught:
        services.create_account(username="x", roles=["nobody"])
    assert get_code(caught.value) == "role_unknown"
    assert not Account.objects.exists()


def test_an_account_is_found_in_whatever_case() -> None:
    account = create_person(username="Anna")
    assert get_account(username="anna") == account
    with pytest.raises(Account.DoesNotExist):
        get_account(username="ann")


def test_a_reset_password_works_and_ends_the_accounts_sessions(client: Client) -> None:
    operator = create_operator()
    client.force_login(operator)
    assert client.get(reverse("admin:index")).status_code == 200
    password = services.reset_password(account=operator)
    assert len(password) >= 24
    assert client.get(reverse("admin:index")).status_code == 302
    assert client.login(username="operator", password=password)
    assert client.get(reverse("admin:index")).status_code == 200


def test_a_weak_password_is_refused() -> None:
    account = create_person()
    with pytest.raises(ValidationError):
        services.set_password(account=account, password="password")
    account.refresh_from_db()
    assert not account.has_usable_password()


def test_the_built_in_roles_are_there_marked_and_kept() -> None:
    create_operator()
    roles = Role.objects.filter(is_builtin=True)
    assert {role.name for role in roles} == {"operator", "agent", "viewer"}
    for role in roles:
        with pytest.raises(ValidationError):
            services.delete_role(role=role)
        with pytest.raises(ValidationError):
            services.save_role(role=role)
        with pytest.raises(ValidationError):
            services.save_grant(grant=Grant(role=role, effect="deny", action_pattern="*", resource_pattern="*:*"))
        for grant in role.grants.all():
            with pytest.raises(ValidationError):
                services.delete_grant(grant=grant)


def test_the_database_follows_what_the_code_says_of_built_in_roles() -> None:
    services.synchronise_builtin_roles()
    agent = Role.objects.get(name="agent")
    before = sorted(agent.grants.values_list("action_pattern", "resource_pattern", "effect"))
    agent.grants.filter(action_pattern="tools.execute").delete()
    Grant.objects.filter(role=agent, action_pattern="tools.view").update(effect="deny")
    agent.grants.create(action_pattern="*", resource_pattern="*:*")
    Role.objects.filter(name="viewer").delete()
    mark = get_authenticator().get_mark()
    call_command("migrate", verbosity=0)
    assert sorted(agent.grants.values_list("action_pattern", "resource_pattern", "effect")) == before
    assert Role.objects.get(name="viewer").grants.exists()
    assert get_authenticator().get_mark() > mark


def test_nothing_is_written_where_built_in_roles_are_as_they_should_be() -> None:
    services.synchronise_builtin_roles()
    mark, events = get_authenticator().get_mark(), AuditEvent.objects.count()
    with CaptureQueriesContext(connection) as queries:
        services.synchronise_builtin_roles()
    assert all(query["sql"].startswith("SELECT") for query in queries)
    assert (get_authenticator().get_mark(), AuditEvent.objects.count()) == (mark, events)


def test_a_role_made_by_hand_is_not_taken_over() -> None:
    Role.objects.filter(name="viewer").delete()
    mine = Role.objects.create(name="viewer")
    with pytest.raises(Misconfigured):
        services.synchronise_builtin_roles()
    assert not mine.grants.exists()
