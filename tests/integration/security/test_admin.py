"""The console's pages of accounts, roles and keys, as a browser uses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from protocol.domain.messages import ApiKeyCredentials
from protocol.errors import AuthenticationFailed
from protocol.ports import get_authenticator
from security import services
from security.models import Account, ApiKey, Role
from tests.factories import allow, create_person, create_role, create_service, issue_key

pytestmark = pytest.mark.django_db

KEY = re.compile(r"mcp_[A-Za-z0-9_-]{43}")


def get_page(client: Client, name: str, *arguments: object) -> str:
    response = client.get(reverse(f"admin:security_{name}", args=arguments))
    assert response.status_code == 200, response.headers
    return response.content.decode()


def get_errors(response: Any) -> dict[str, Any]:
    assert response.status_code == 200
    errors = response.context["adminform"].form.errors
    return dict(errors)


def add_key(client: Client, owner: Account, **fields: str) -> Any:
    data = {
        "account": str(owner.pk),
        "name": "laptop",
        "scopes": "",
        "expires_at_0": "",
        "expires_at_1": "",
        **fields,
    }
    return client.post(reverse("admin:security_apikey_add"), data)


def allow_in_console(account: Account, *codenames: str) -> None:
    account.user_permissions.set(Permission.objects.filter(codename__in=codenames))


@pytest.mark.parametrize("model", ["account", "role", "apikey"])
def test_lists_search_and_forms_open(console: Client, model: str) -> None:
    create_service(username="bot")
    issue_key()
    get_page(console, f"{model}_changelist")
    get_page(console, f"{model}_add")
    assert console.get(reverse(f"admin:security_{model}_changelist"), {"q": "bot"}).status_code == 200


def test_pages_of_every_kind_open(console: Client, operator: Account) -> None:
    for account in (operator, create_person(), create_service()):
        get_page(console, "account_change", account.pk)
    for role in (Role.objects.get(name="agent"), create_role(grants=[allow("tools.view", "tool:x")])):
        assert role.grants.all()[0].resource_pattern in get_page(console, "role_change", role.pk)
    get_page(console, "apikey_change", issue_key().api_key.pk)
    assert console.get(reverse("admin:auth_group_changelist")).status_code == 200
    assert console.get(reverse("admin:auth_group_add")).status_code == 200
    assert console.get(reverse("admin:auth_group_change", args=[Group.objects.create(name="g").pk])).status_code == 200


def test_a_new_keys_text_is_shown_once_and_works(console: Client, operator: Account) -> None:
    account = create_service(username="bot")
    response = add_key(console, account, scopes="tools.view\ntools.execute")
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    (secret,) = set(KEY.findall(response.content.decode()))

    api_key = ApiKey.objects.get()
    assert (api_key.account, api_key.name, api_key.created_by) == (account, "laptop", operator)
    assert api_key.scopes == ["tools.view", "tools.execute"]
    principal = get_authenticator().authenticate(credentials=ApiKeyCredentials(key=secret), remote_address=None)
    assert principal.name == "bot"

    rest = secret.removeprefix(api_key.prefix)
    for page in (
        get_page(console, "apikey_changelist"),
        get_page(console, "apikey_add"),
        get_page(console, "apikey_change", api_key.pk),
        get_page(console, "account_change", account.pk),
        get_page(console, "apikey_history", api_key.pk),
    ):
        assert rest not in page
        assert api_key.key_hash not in page
    assert api_key.prefix in get_page(console, "apikey_changelist")
    assert LogEntry.objects.count() == 1
    assert all(rest not in str(value) for row in LogEntry.objects.values() for value in row.values())
    assert all(rest not in str(session.get_decoded()) for session in Session.objects.all())
    assert all(rest not in cookie.value for cookie in console.cookies.values())


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"scopes": "Tools.*"}, "scopes"),
        ({"scopes": "tools.view tools(view)"}, "scopes"),
        ({"name": ""}, "name"),
        ({"account": ""}, "account"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "expires_at"),
    ],
)
def test_a_key_that_is_not_valid_is_not_made(console: Client, fields: dict[str, str], wrong: str) -> None:
    response = add_key(console, create_service(), **fields)
    assert set(get_errors(response)) == {wrong}
    assert not ApiKey.objects.exists()


def test_a_keys_expiry_is_taken(console: Client) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    add_key(console, create_service(), expires_at_0=f"{tomorrow:%Y-%m-%d}", expires_at_1=f"{tomorrow:%H:%M:%S}")
    assert ApiKey.objects.get().expires_at == tomorrow.replace(microsecond=0)


def test_of_a_key_only_the_name_can_be_changed(console: Client) -> None:
    issued = issue_key(scopes=["tools.view"])
    before = ApiKey.objects.filter(pk=issued.api_key.pk).values().get()
    response = console.post(
        reverse("admin:security_apikey_change", args=[issued.api_key.pk]),
        {
            "name": "server",
            "account": str(create_service().pk),
            "scopes": "",
            "key_hash": "0" * 64,
            "prefix": "mcp_00000000",
            "revoked_at": "",
        },
    )
    assert response.status_code == 302
    assert ApiKey.objects.filter(pk=issued.api_key.pk).values().get() == {**before, "name": "server"}


def revoke_in_the_list(console: Client, api_key: ApiKey) -> None:
    console.post(
        reverse("admin:security_apikey_changelist"), {"action": "revoke_selected", "_selected_action": [api_key.pk]}
    )


def revoke_on_its_page(console: Client, api_key: ApiKey) -> None:
    address = reverse("admin:security_apikey_revoke_key", args=[api_key.pk])
    assert console.get(address).status_code == 200
    api_key.refresh_from_db()
    assert api_key.revoked_at is None
    response = console.post(address, {"_form_submitted": "on"})
    assert response.headers["HX-Redirect"] == reverse("admin:security_apikey_change", args=[api_key.pk])


@pytest.mark.parametrize("revoke", [revoke_in_the_list, revoke_on_its_page])
def test_a_revoked_key_is_out(console: Client, revoke: Callable[[Client, ApiKey], None]) -> None:
    issued, other = issue_key(), issue_key()
    revoke(console, issued.api_key)
    with pytest.raises(AuthenticationFailed):
        get_authenticator().authenticate(credentials=ApiKeyCredentials(key=issued.secret), remote_address=None)
    get_authenticator().authenticate(credentials=ApiKeyCredentials(key=other.secret), remote_address=None)
    assert LogEntry.objects.get().object_id == str(issued.api_key.pk)
    page = get_page(console, "apikey_changelist")
    assert "revoked" in page


@pytest.mark.parametrize("state", ["active", "expired", "revoked"])
def test_keys_are_filtered_by_state(console: Client, state: str) -> None:
    account = create_service()
    active, expired, revoked = (issue_key(account=account).api_key for _ in range(3))
    services.revoke_api_key(api_key=revoked)
    ApiKey.objects.filter(pk=expired.pk).update(
        created_at=timezone.now() - timedelta(days=2), expires_at=timezone.now() - timedelta(days=1)
    )
    response = console.get(reverse("admin:security_apikey_changelist"), {"state": state})
    shown = {api_key.pk for api_key in response.context["cl"].result_list}
    assert shown == {{"active": active, "expired": expired, "revoked": revoked}[state].pk}


@pytest.mark.parametrize("model", ["account", "apikey"])
def test_accounts_and_keys_are_never_deleted(console: Client, operator: Account, model: str) -> None:
    row = operator if model == "account" else issue_key().api_key
    assert console.post(reverse(f"admin:security_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    console.post(
        reverse(f"admin:security_{model}_changelist"),
        {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"},
    )
    assert type(row).objects.filter(pk=row.pk).exists()


def test_a_service_is_made_without_a_password(console: Client) -> None:
    agent = Role.objects.get(name="agent")
    response = console.post(
        reverse("admin:security_account_add"),
        {"username": "bot", "kind": "service", "roles": [agent.pk], "password1": "", "password2": "",
         "usable_password": "true"},
    )  # fmt: skip
    assert response.status_code == 302, get_errors(response)
    account = Account.objects.get(username="bot")
    assert (account.is_service, account.has_usable_password()) == (True, False)
    assert list(account.roles.all()) == [agent]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"kind": "service", "password1": "correct horse", "password2": "correct horse"}, {"password1"}),
        ({"kind": "person", "password1": "correct horse", "password2": "other horse"}, {"password2"}),
        ({"kind": "person", "password1": "12345678", "password2": "12345678"}, {"password2"}),
        ({"kind": "person", "password1": "", "password2": ""}, {"password1", "password2"}),
        ({"kind": "robot", "usable_password": "false"}, {"kind"}),
        ({"kind": "person", "usable_password": "false", "username": "OPERATOR"}, {"username"}),
    ],
)
def test_an_account_that_is_not_valid_is_not_made(console: Client, fields: dict[str, str], wrong: set[str]) -> None:
    response = console.post(
        reverse("admin:security_account_add"), {"username": "x", "usable_password": "true", **fields}
    )
    assert set(get_errors(response)) == wrong
    assert Account.objects.count() == 1


def test_a_person_is_made_changed_and_shut_out(console: Client) -> None:
    password = "correct horse battery staple"
    console.post(
        reverse("admin:security_account_add"),
        {"username": "anna", "kind": "person", "usable_password": "true", "password1": password, "password2": password},
    )
    anna = Account.objects.get(username="anna")
    assert authenticate(username="anna", password=password) == anna
    page = reverse("admin:security_account_change", args=[anna.pk])
    fields = {"username": "anna", "display_name": "Anna", "security_level_max": "standard", "kind": "service"}
    response = console.post(page, fields)
    assert response.status_code == 302, get_errors(response)
    anna.refresh_from_db()
    assert (anna.display_name, anna.security_level_max, anna.is_active) == ("Anna", "standard", False)
    assert anna.kind == Account.Kind.PERSON
    assert authenticate(username="anna", password=password) is None
    assert anna.has_usable_password()


def test_a_password_is_changed_and_taken_away(console: Client) -> None:
    anna = create_person(username="anna")
    page = reverse("admin:auth_user_password_change", args=[anna.pk])
    assert console.get(page).status_code == 200
    password = "correct horse battery staple"
    set_fields = {"usable_password": "true", "password1": password, "password2": password, "set-password": "1"}
    assert console.post(page, set_fields).status_code == 302
    assert authenticate(username="anna", password=password) == anna
    unset_fields = {"usable_password": "false", "password1": "", "password2": "", "unset-password": "1"}
    assert console.post(page, unset_fields).status_code == 302
    assert authenticate(username="anna", password=password) is None
    assert all(password not in str(row) for row in LogEntry.objects.values())


def test_a_services_password_is_not_set(console: Client) -> None:
    bot = create_service()
    password = "correct horse battery staple"
    response = console.post(
        reverse("admin:auth_user_password_change", args=[bot.pk]),
        {"usable_password": "true", "password1": password, "password2": password, "set-password": "1"},
    )
    assert response.status_code == 200
    bot.refresh_from_db()
    assert not bot.has_usable_password()


def post_role(console: Client, address: str, *, name: str, grants: list[dict[str, str]], initial: int = 0) -> Any:
    fields = {
        "name": name,
        "description": "",
        "grants-TOTAL_FORMS": str(len(grants)),
        "grants-INITIAL_FORMS": str(initial),
    }
    for number, grant in enumerate(grants):
        fields |= {f"grants-{number}-{field}": value for field, value in grant.items()}
    return console.post(address, fields)


def test_a_role_is_made_changed_and_deleted(console: Client) -> None:
    first = {"effect": "allow", "action_pattern": "tools.*", "resource_pattern": "tool:text.*"}
    second = {"effect": "deny", "action_pattern": "*", "resource_pattern": "tool:text.search"}
    response = post_role(console, reverse("admin:security_role_add"), name="reader", grants=[first, second])
    assert response.status_code == 302
    role = Role.objects.get(name="reader")
    assert {str(grant) for grant in role.grants.all()} == {
        "allow tools.* on tool:text.*",
        "deny * on tool:text.search",
    }
    kept, dropped = role.grants.get(effect="allow"), role.grants.get(effect="deny")
    response = post_role(
        console,
        reverse("admin:security_role_change", args=[role.pk]),
        name="reader",
        grants=[
            {"id": str(kept.pk), "role": str(role.pk), **first, "action_pattern": "tools.view"},
            {"id": str(dropped.pk), "role": str(role.pk), **second, "DELETE": "on"},
        ],
        initial=2,
    )
    assert response.status_code == 302
    assert [str(grant) for grant in role.grants.all()] == ["allow tools.view on tool:text.*"]
    console.post(reverse("admin:security_role_delete", args=[role.pk]), {"post": "yes"})
    assert not Role.objects.filter(name="reader").exists()


@pytest.mark.parametrize(
    "grants",
    [
        [{"effect": "allow", "action_pattern": "Tools", "resource_pattern": "*:*"}],
        [{"effect": "allow", "action_pattern": "*", "resource_pattern": "everything"}],
        [{"effect": "allow", "action_pattern": "*", "resource_pattern": "*:*"}] * 2,
    ],
    ids=["action", "resource", "twice"],
)
def test_a_role_with_a_wrong_grant_is_not_made(console: Client, grants: list[dict[str, str]]) -> None:
    response = post_role(console, reverse("admin:security_role_add"), name="reader", grants=grants)
    assert response.status_code == 200
    assert not Role.objects.filter(name="reader").exists()


def test_a_built_in_role_is_only_looked_at(console: Client) -> None:
    role = Role.objects.get(name="agent")
    page = reverse("admin:security_role_change", args=[role.pk])
    assert post_role(console, page, name="other", grants=[]).status_code == 403
    assert console.post(reverse("admin:security_role_delete", args=[role.pk]), {"post": "yes"}).status_code == 403
    console.post(
        reverse("admin:security_role_changelist"),
        {"action": "delete_selected", "_selected_action": [role.pk], "post": "yes"},
    )
    role.refresh_from_db()
    assert (role.name, role.grants.count()) == ("agent", 8)


def test_staff_who_are_no_superusers_make_nobody_mightier(client: Client, operator: Account) -> None:
    clerk = create_person(is_staff=True)
    allow_in_console(
        clerk, *(f"{verb}_{model}" for verb in ("view", "add", "change", "delete") for model in ("account", "role"))
    )
    client.force_login(clerk)
    assert "operator" in get_page(client, "account_changelist")
    for address in (
        reverse("admin:security_account_add"),
        reverse("admin:security_account_change", args=[clerk.pk]),
        reverse("admin:auth_user_password_change", args=[operator.pk]),
        reverse("admin:security_role_add"),
        reverse("admin:security_role_delete", args=[create_role(grants=[]).pk]),
    ):
        assert client.post(address, {"username": "x", "is_superuser": "on"}).status_code == 403
    clerk.refresh_from_db()
    assert not clerk.is_superuser


def test_staff_who_are_no_superusers_issue_keys_for_themselves_only(client: Client, operator: Account) -> None:
    clerk = create_person(is_staff=True)
    allow_in_console(clerk, "view_account", "view_apikey", "add_apikey")
    client.force_login(clerk)
    assert set(get_errors(add_key(client, operator))) == {"account"}
    assert not ApiKey.objects.exists()
    assert KEY.search(add_key(client, clerk).content.decode())


def test_revoking_needs_the_permission(client: Client) -> None:
    clerk = create_person(is_staff=True)
    allow_in_console(clerk, "view_apikey")
    client.force_login(clerk)
    api_key = issue_key().api_key
    get_page(client, "apikey_change", api_key.pk)
    client.post(
        reverse("admin:security_apikey_changelist"), {"action": "revoke_selected", "_selected_action": [api_key.pk]}
    )
    client.post(reverse("admin:security_apikey_revoke_key", args=[api_key.pk]), {"_form_submitted": "on"})
    api_key.refresh_from_db()
    assert api_key.revoked_at is None


def test_revoking_a_key_that_there_is_not_finds_nothing(console: Client) -> None:
    address = reverse("admin:security_apikey_revoke_key", args=["01a215c1-83da-743d-b57f-58c885d20b1a"])
    assert console.post(address, {"_form_submitted": "on"}).status_code == 404
