"""Makes what tests start from: accounts, keys, roles, principals. Through the services wherever one makes it.

What a test is about does not belong here, nor does anything of the apps above ``security``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime

from uuid_utils.compat import uuid7

from protocol.domain.messages import ApiKeyCredentials, PasswordCredentials, SecurityLevel
from protocol.ports import get_authenticator
from security import services
from security.domain.authorization import AccountPrincipal
from security.domain.policy import Effect, GrantRule
from security.models import Account, Role
from security.services import IssuedKey, IssuedTokens
from tests.unrecorded import unrecorded

_numbers = itertools.count(1)


@unrecorded()
def ensure_builtin_roles() -> None:
    """Make missing built-in roles again: a test with real transactions ends by emptying every table."""
    services.synchronise_builtin_roles()


@unrecorded()
def create_person(
    *, username: str | None = None, roles: Sequence[str] = (), password: str | None = None, is_staff: bool = False
) -> Account:
    """A person; without a password, which takes a quarter of a second to hash. Sign in with ``client.force_login``."""
    if roles:
        ensure_builtin_roles()
    return services.create_account(
        username=username or f"person-{next(_numbers)}", password=password, roles=roles, is_staff=is_staff
    )


@unrecorded()
def create_operator(*, username: str = "operator", password: str | None = None) -> Account:
    """A superuser of the console who has the role ``operator``."""
    ensure_builtin_roles()
    return services.create_account(
        username=username, password=password, roles=["operator"], is_staff=True, is_superuser=True
    )


@unrecorded()
def create_service(*, username: str | None = None, roles: Sequence[str] = ("agent",)) -> Account:
    """A service account, by default one that may run tools."""
    ensure_builtin_roles()
    return services.create_account(
        username=username or f"service-{next(_numbers)}", kind=Account.Kind.SERVICE, roles=roles
    )


@unrecorded()
def create_role(*, grants: Sequence[GrantRule], name: str | None = None) -> Role:
    """A role with these grants."""
    role = Role.objects.create(name=name or f"role-{next(_numbers)}")
    for grant in grants:
        role.grants.create(
            effect=grant.effect.value, action_pattern=grant.action_pattern, resource_pattern=grant.resource_pattern
        )
    return role


@unrecorded()
def issue_key(
    *,
    account: Account | None = None,
    scopes: Sequence[str] = (),
    networks: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> IssuedKey:
    """A key of the account, or of a new agent; ``.secret`` is its text."""
    return services.issue_api_key(
        account=account or create_service(), name="test", scopes=scopes, networks=networks, expires_at=expires_at
    )


def issue_tokens(*, key: IssuedKey | None = None) -> IssuedTokens:
    """A pair obtained with the key, or with one of a new agent."""
    credentials = ApiKeyCredentials((key or issue_key()).secret)
    principal = get_authenticator().authenticate(credentials=credentials, remote_address="127.0.0.1")
    return services.issue_tokens(principal=principal, remote_address="127.0.0.1", trace_id=uuid7().hex)


PASSWORD = "correct horse battery"  # of the tests' persons


def sign_in() -> tuple[Account, IssuedTokens]:
    """A new person whose password is ``PASSWORD``, and a pair obtained with it."""
    person = create_person(password=PASSWORD)
    credentials = PasswordCredentials(username=person.username, password=PASSWORD)
    principal = get_authenticator().authenticate(credentials=credentials, remote_address="127.0.0.1")
    return person, services.issue_tokens(principal=principal, remote_address="127.0.0.1", trace_id=uuid7().hex)


def allow(action: str, resource: str = "*:*") -> GrantRule:
    """A rule that allows."""
    return GrantRule(effect=Effect.ALLOW, action_pattern=action, resource_pattern=resource)


def deny(action: str, resource: str = "*:*") -> GrantRule:
    """A rule that denies."""
    return GrantRule(effect=Effect.DENY, action_pattern=action, resource_pattern=resource)


def make_principal(
    *, grants: Sequence[GrantRule] = (), scopes: Sequence[str] = (), name: str = "agent"
) -> AccountPrincipal:
    """A principal that is in no database."""
    return AccountPrincipal(
        id=uuid7(),
        name=name,
        roles=(),
        security_level_max=SecurityLevel.HIGH,
        credential_id=uuid7(),
        expires_at=None,
        grants=tuple(grants),
        scopes=tuple(scopes),
    )
