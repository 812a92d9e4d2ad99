"""Accounts by name, their second factors, and whom an account may issue keys for."""

from __future__ import annotations

import uuid

from django.db.models import QuerySet

from security.models import Account, AuthenticatorApp, Passkey, ProviderLink, RecoveryCode


def has_accounts() -> bool:
    return Account.objects.exists()


def get_account(*, username: str) -> Account:
    """The account of this name, whatever the case in which it is written.

    Raises:
        Account.DoesNotExist: there is none.
    """
    return Account.objects.get(username__iexact=username)


def find_account_id(*, username: str) -> uuid.UUID | None:
    """The id of the account of this name, whatever the case in which it is written; ``None``: there is none."""
    return Account.objects.filter(username__iexact=username).values_list("id", flat=True).first()


def list_accounts_keyed_by(*, actor: Account) -> QuerySet[Account]:
    """The accounts for which the actor may issue keys: a superuser for any, another for itself alone.

    A key is all that its account may do, so that issuing one for another account would be taking its place.
    """
    accounts = Account.objects.filter(is_active=True)
    return accounts if actor.is_superuser else accounts.filter(pk=actor.pk)


def get_authenticator_app(*, account: Account) -> AuthenticatorApp | None:
    """The account's authenticator app, if it has one that counts."""
    return AuthenticatorApp.objects.filter(account=account, confirmed_at__isnull=False).first()


def has_authenticator_app(*, account: Account) -> bool:
    return AuthenticatorApp.objects.filter(account=account, confirmed_at__isnull=False).exists()


def list_passkeys(*, account: Account) -> list[Passkey]:
    """The account's passkeys, oldest first."""
    return list(Passkey.objects.filter(account=account))


def count_recovery_codes(*, account: Account) -> int:
    """How many of the account's recovery codes were not used yet."""
    return RecoveryCode.objects.filter(account=account).count()


def get_provider_link(*, account: Account, issuer: str) -> ProviderLink | None:
    """Who the account is at the issuer, if it is linked there."""
    return ProviderLink.objects.filter(account=account, issuer=issuer).first()
