"""What the database itself refuses, whoever writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone

from security import services
from security.models import Account, ApiKey, Grant, Role
from tests.factories import create_person, create_service

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "robot", "password": "!"},
        {"security_level_max": "extreme", "password": "!"},
        {"kind": "service", "password": "argon2$something"},
        {"kind": "service", "password": "!", "is_staff": True},
        {"kind": "service", "password": "!", "is_superuser": True},
    ],
)
def test_an_account_that_breaks_a_rule_is_not_stored(fields: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Account.objects.create(username="someone", **fields)


@pytest.mark.parametrize("second", ["Anna", "ANNA", "anna"])
def test_names_that_differ_only_in_case_are_one_name(second: str) -> None:
    Account.objects.create(username="anna", password="!")
    with pytest.raises(IntegrityError), transaction.atomic():
        Account.objects.create(username=second, password="!")


@pytest.mark.parametrize("username", ["a", "A.b_c@d+e-9", "x" * 150])
def test_a_username_is_taken(username: str) -> None:
    assert create_person(username=username).username == username


@pytest.mark.parametrize("username", ["", "a b", "ä", "a/b", "a\n", "x" * 151])
def test_what_is_no_username_is_refused(username: str) -> None:
    with pytest.raises(ValidationError) as caught:
        services.create_account(username=username)
    assert "username" in caught.value.message_dict


def test_an_effect_is_allow_or_deny() -> None:
    role = Role.objects.create(name="r")
    with pytest.raises(IntegrityError), transaction.atomic():
        Grant.objects.create(role=role, effect="maybe", action_pattern="*", resource_pattern="*:*")


def test_a_role_has_each_grant_once() -> None:
    role = Role.objects.create(name="r")
    Grant.objects.create(role=role, effect="allow", action_pattern="*", resource_pattern="*:*")
    with pytest.raises(IntegrityError), transaction.atomic():
        Grant.objects.create(role=role, effect="allow", action_pattern="*", resource_pattern="*:*")


@pytest.mark.parametrize(
    "fields",
    [
        {"key_hash": "ab" * 31},
        {"key_hash": "ab" * 32, "expires_at": timezone.now() - timedelta(days=1)},
    ],
)
def test_a_key_that_breaks_a_rule_is_not_stored(fields: dict[str, Any]) -> None:
    account = create_service()
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.create(account=account, name="k", prefix="mcp_12345678", **fields)


def test_a_hash_is_there_once() -> None:
    account = create_service()
    fields = {"account": account, "name": "k", "prefix": "mcp_12345678", "key_hash": "ab" * 32}
    ApiKey.objects.create(**fields)
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.create(**fields)


def test_django_makes_a_superuser_by_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "correct horse battery staple")
    call_command("createsuperuser", username="root", interactive=False, verbosity=0)
    account = Account.objects.get(username="root")
    assert (account.is_staff, account.is_superuser, account.kind) == (True, True, Account.Kind.PERSON)
    assert account.check_password("correct horse battery staple")
