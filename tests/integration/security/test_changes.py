"""Who changed accounts, roles, grants and keys, by whichever way: one event an act, with what was and what is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client

from security import services
from security.models import Account, AuditEvent, Grant, Role
from tests.factories import create_operator, ensure_builtin_roles
from tests.unrecorded import unrecorded

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def builtin_roles(db: None) -> None:
    """A test with real transactions may have left none."""
    with unrecorded():
        ensure_builtin_roles()


def read_events(prefix: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Action, the resource's name and the data of the events whose action begins so."""
    found = AuditEvent.objects.filter(action__startswith=prefix).order_by("id")
    return [(event.action, event.resource_name, json.loads(event.data_json)) for event in found]


def test_a_new_account_with_a_role() -> None:
    services.create_account(username="ada", password="correct horse battery", roles=["agent"])  # a test's
    made, given = read_events("accounts.")
    assert made[:2] == ("accounts.create", "ada")
    assert made[2]["fields"]["password"] == "(secret)"
    assert (given[0], given[2]["roles"]) == ("accounts.change", {"added": ["agent"]})
    assert "argon2" not in repr(AuditEvent.objects.values())


def test_a_change_says_what_was_and_what_is() -> None:
    account = services.create_account(username="ada")
    account.is_active = False
    services.save_account(account=account)
    services.save_account(account=account)
    *_, changed = read_events("accounts.")
    assert (changed[0], changed[2]["changed"]) == ("accounts.change", {"is_active": [True, False]})
    assert len(read_events("accounts.")) == 2


def test_a_password_is_told_of_and_not_told() -> None:
    account = services.create_account(username="ada")
    services.reset_password(account=account)
    assert read_events("accounts.change")[-1][2]["changed"] == {"password": ["(secret)", "(secret)"]}


def test_use_is_no_change() -> None:
    account = services.create_account(username="ada")
    before = AuditEvent.objects.count()
    account.save(update_fields=["last_login"])
    assert AuditEvent.objects.count() == before


def test_roles_and_grants() -> None:
    role = Role(name="readers")
    services.save_role(role=role)
    grant = Grant(role=role, action_pattern="tools.view", resource_pattern="*:*")
    services.save_grant(grant=grant)
    grant.effect = Grant.Effect.DENY
    services.save_grant(grant=grant)
    services.delete_role(role=role)
    assert [action for action, _, _ in read_events("roles.")] == ["roles.create", "roles.delete"]
    actions = read_events("grants.")
    assert [action for action, _, _ in actions] == ["grants.create", "grants.change", "grants.delete"]
    assert actions[1][2]["changed"] == {"effect": ["allow", "deny"]}


def test_memberships_from_either_side() -> None:
    account = services.create_account(username="ada", roles=["agent"])
    role = Role.objects.get(name="operator")
    role.accounts.add(account)
    account.roles.remove(role)
    account.roles.clear()
    role.accounts.add(account)
    role.accounts.clear()
    assert [data["roles"] for _, name, data in read_events("accounts.change") if name == "ada"] == [
        {"added": ["agent"]},
        {"added": ["operator"]},
        {"removed": ["operator"]},
        {"removed": ["agent"]},
        {"added": ["operator"]},
        {"removed": ["operator"]},
    ]


def test_keys() -> None:
    account = services.create_account(username="ada")
    issued = services.issue_api_key(account=account, name="laptop", scopes=["tools.*"])
    services.rename_api_key(api_key=issued.api_key, name="desk")
    services.revoke_api_key(api_key=issued.api_key)
    services.revoke_api_key(api_key=issued.api_key)
    made, renamed, revoked = read_events("api_keys.")
    assert (made[0], made[2]["fields"]["scopes"]) == ("api_keys.create", ["tools.*"])
    assert renamed[2]["changed"] == {"name": ["laptop", "desk"]}
    assert revoked[0] == "api_keys.revoke"
    stored = repr(AuditEvent.objects.values())
    assert issued.secret not in stored
    assert issued.api_key.key_hash not in stored


def test_groups_of_the_console() -> None:
    group = Group.objects.create(name="watchers")
    group.permissions.add(Permission.objects.get(codename="view_auditevent"))
    assert read_events("groups.")[-1][2]["permissions"] == {"added": ["security.view_auditevent"]}


def test_what_is_undone_leaves_no_event() -> None:
    with pytest.raises(Exception, match="role"):
        services.create_account(username="ada", roles=["none-such"])
    assert read_events("accounts.") == []


def test_the_console_says_who_did_it(console: Client, operator: Account) -> None:
    console.post("/admin/security/role/add/", {"name": "readers", "grants-TOTAL_FORMS": 0, "grants-INITIAL_FORMS": 0})
    event = AuditEvent.objects.get(action="roles.create")
    assert (event.actor_id, event.resource_name) == (operator.id, "readers")
    assert len(event.trace_id) == 32


def test_what_the_console_refuses(client: Client) -> None:
    watcher = services.create_account(username="watcher", is_staff=True, password="correct horse battery")  # a test's
    client.force_login(watcher)
    assert client.get("/admin/security/role/").status_code == 403
    event = AuditEvent.objects.get(action="access.deny")
    assert (event.actor_id, event.resource_name) == (watcher.id, "GET /admin/security/role/")


def test_signing_in_to_the_console_and_out(client: Client) -> None:
    operator = create_operator(password="correct horse battery")
    client.post("/admin/login/", {"username": operator.username, "password": "correct horse battery"})
    client.post("/admin/logout/")
    events = AuditEvent.objects.filter(action__startswith="console.").order_by("id")
    assert [(event.action, event.actor_id) for event in events] == [
        ("console.sign_in", operator.id),
        ("console.sign_out", operator.id),
    ]
