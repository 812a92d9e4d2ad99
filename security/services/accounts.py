"""Making accounts and changing them. Their keys are ``api_keys``', what the first start makes is ``first_run``'s."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from security.models import Account, Role

_PASSWORD_ENTROPY_BYTES: Final = 24


def generate_password() -> str:
    """A random password of 32 characters that needs no quoting in a shell or URL."""
    return secrets.token_urlsafe(_PASSWORD_ENTROPY_BYTES)


def create_account(
    *,
    username: str,
    kind: Account.Kind = Account.Kind.PERSON,
    password: str | None = None,
    display_name: str = "",
    email: str = "",
    is_staff: bool = False,
    is_superuser: bool = False,
    roles: Sequence[str] = (),
) -> Account:
    """A new account with the roles of these names; without a password it cannot sign in.

    Raises:
        ValidationError: the account would not be valid, or there is no role of a name.
    """
    if kind == Account.Kind.SERVICE and password is not None:
        raise ValidationError("A service account has keys, no password.", code="service_has_no_password")
    account = Account(
        username=username,
        kind=kind,
        display_name=display_name,
        email=email,
        is_staff=is_staff,
        is_superuser=is_superuser,
    )
    # Hashing takes a quarter of a second, and is done before the transaction holds the database.
    account.set_password(password)
    with transaction.atomic():
        account.full_clean()
        account.save(force_insert=True)
        account.roles.set(_get_roles(roles))
    return account


def set_password(*, account: Account, password: str) -> None:
    """Give the account this password; its console sessions end.

    Raises:
        ValidationError: the account is a service, or the password is too weak.
    """
    _refuse_service(account)
    validate_password(password, account)
    account.set_password(password)
    _store_password(account)


def remove_password(*, account: Account) -> None:
    """Take the account's password away, so that it cannot sign in with one; its console sessions end."""
    account.set_unusable_password()
    _store_password(account)


def reset_password(*, account: Account) -> str:
    """Give the account a new random password and return it; it is kept nowhere else.

    Raises:
        ValidationError: the account is a service.
    """
    _refuse_service(account)
    password = generate_password()
    account.set_password(password)
    _store_password(account)
    return password


def save_account(*, account: Account) -> None:
    """Store an account that was edited, with all but its password and roles.

    Raises:
        ValidationError: it would not be valid.
    """
    account.full_clean()
    # One transaction: a receiver moves the mark that open connections are watched by.
    with transaction.atomic():
        account.save()


def _store_password(account: Account) -> None:
    with transaction.atomic():
        account.save(update_fields=["password"])


def _get_roles(names: Sequence[str]) -> list[Role]:
    roles = list(Role.objects.filter(name__in=names))
    unknown = sorted(set(names) - {role.name for role in roles})
    if unknown:
        raise ValidationError(f"There is no role {', '.join(unknown)}.", code="role_unknown")
    return roles


def _refuse_service(account: Account) -> None:
    if account.is_service:
        raise ValidationError(
            f"{account.username} is a service account: it has keys, no password.", code="service_has_no_password"
        )
