"""Keys with which accounts sign commands: registered and revoked by command line and console, and never lost."""

from __future__ import annotations

import io

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from protocol.domain.messages import ApiKeyCredentials, SecurityLevel
from protocol.ports import get_authenticator
from security import services
from security.domain.authorization import AccountPrincipal
from security.models import Account, AuditEvent, CommandKey, CommandKeyKept
from security.selectors import get_revocation_mark
from tests.factories import create_service, issue_key
from tests.sealing import SigningKey

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def authenticate(account: Account) -> AccountPrincipal:
    credentials = ApiKeyCredentials(issue_key(account=account).secret)
    principal = get_authenticator().authenticate(credentials=credentials, remote_address="127.0.0.1")
    assert isinstance(principal, AccountPrincipal)
    return principal


def test_a_key_is_registered_and_revoked_by_the_command_line() -> None:
    account, key = create_service(), SigningKey()
    mark = get_revocation_mark()
    assert run("register_command_key", account.username, "--quiet", "--", key.public_key).strip() == key.key_id
    assert get_revocation_mark() > mark
    row = CommandKey.objects.get()
    assert (row.account, row.key_id, row.public_key, row.revoked_at) == (account, key.key_id, key.public_key, None)
    mark = get_revocation_mark()
    run("revoke_command_key", account.username, "--", key.key_id[:6])
    row.refresh_from_db()
    assert row.revoked_at is not None
    assert get_revocation_mark() > mark
    assert "already" in run("revoke_command_key", account.username, "--", key.key_id)
    actions = list(AuditEvent.objects.order_by("at").values_list("action", flat=True))
    assert [action for action in actions if action.startswith("command_keys.")] == [
        "command_keys.register",
        "command_keys.revoke",
    ]


@pytest.mark.parametrize("text", ["no key", "AAAA", ""])
def test_what_is_no_key_is_refused(text: str) -> None:
    account = create_service()
    with pytest.raises(CommandError):
        run("register_command_key", account.username, "--", text)
    with pytest.raises(CommandError):
        run("revoke_command_key", account.username, "--", text)
    assert not CommandKey.objects.exists()


def test_a_key_is_one_accounts_for_ever() -> None:
    key = SigningKey()
    row = services.register_command_key(account=create_service(), public_key=key.public_key, label="a")
    services.revoke_command_key(command_key=row)
    for account in (row.account, create_service()):
        with pytest.raises(ValidationError):
            services.register_command_key(account=account, public_key=key.public_key, label="b")
    with pytest.raises(IntegrityError), transaction.atomic():
        CommandKey.objects.create(account=row.account, label="c", key_id=row.key_id, public_key=row.public_key)
    with pytest.raises(CommandKeyKept):
        row.delete()


@pytest.mark.parametrize(
    ("level", "has_key", "effective"),
    [("high", True, "high"), ("critical", False, "high"), ("critical", True, "critical"), ("low", True, "low")],
)
def test_an_accounts_level_needs_its_key(level: str, has_key: bool, effective: str) -> None:
    account, key = create_service(), SigningKey()
    account.security_level_max = level
    services.save_account(account=account)
    if has_key:
        services.register_command_key(account=account, public_key=key.public_key, label="a")
    principal = authenticate(account)
    assert principal.security_level_max is SecurityLevel(effective)
    assert [found.key_id for found in principal.command_keys] == ([key.key_id] if effective == "critical" else [])
    assert get_authenticator().renew([principal]) == [principal]
    if effective == "critical":
        services.revoke_command_key(command_key=CommandKey.objects.get())
        (renewed,) = get_authenticator().renew([principal])
        assert renewed is not None
        assert renewed.security_level_max is SecurityLevel.HIGH


def test_a_key_is_registered_and_revoked_in_the_console(console: Client) -> None:
    account, key = create_service(), SigningKey()
    address = reverse("admin:security_commandkey_add")
    bad = console.post(address, {"account": account.pk, "label": "laptop", "written_key": "no key"})
    assert bad.status_code == 200
    assert not CommandKey.objects.exists()
    answer = console.post(address, {"account": account.pk, "label": "laptop", "written_key": key.public_key})
    assert answer.status_code == 302
    row = CommandKey.objects.get()
    assert (row.key_id, row.label) == (key.key_id, "laptop")
    assert row.created_by is not None
    page = console.get(reverse("admin:security_commandkey_change", args=[row.pk]))
    assert key.public_key in page.content.decode()
    actions = {"action": "revoke_selected", "_selected_action": [str(row.pk)]}
    console.post(reverse("admin:security_commandkey_changelist"), actions)
    row.refresh_from_db()
    assert row.revoked_at is not None
    assert console.post(reverse("admin:security_commandkey_delete", args=[row.pk])).status_code == 403
