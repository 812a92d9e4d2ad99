"""Turning credentials into a principal, and looking at principals again. What one may do is ``domain.policy``'s.

A failure never tells its cause to the peer, not by its time either: whatever is wrong, the same queries run and one
error is raised. The log has the cause, never the key, token or password.
"""

from __future__ import annotations

import enum
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Model, Q
from django.utils import timezone
from uuid_utils.compat import NIL

from protocol.domain.messages import (
    ApiKeyCredentials,
    Authentication,
    JwtCredentials,
    PasswordCredentials,
    SecurityLevel,
)
from protocol.errors import AuthenticationFailed
from protocol.ports import Principal
from security import selectors
from security.domain import api_keys
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal, CredentialKind, limit_level
from security.domain.tokens import TokenInvalid, TokenKind, TokenState
from security.models import Account, ApiKey, IssuedToken
from security.selectors import RolesAndGrants, get_roles_and_grants, has_standing
from security.services.addresses import require_address
from security.services.keyring import note_revocation_mark
from security.services.passwords import check_password
from security.services.renewal import renew_principals
from security.services.token_signing import verify_token

logger = logging.getLogger(__name__)

LAST_USE_RESOLUTION: Final = timedelta(minutes=1)
"""How old a recorded last use gets before it is written again: a write a minute for each key, not one a connection."""


class _Refusal(enum.StrEnum):
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    ACCOUNT_INACTIVE = "account_inactive"
    GROUND_GONE = "its key, password or account no longer counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """From where and how credentials came."""

    remote_address: str | None
    security_level: SecurityLevel


class CredentialsAuthenticator:
    """``protocol.ports.Authenticator``: each kind of credentials by its own method."""

    def authenticate(
        self,
        *,
        credentials: Authentication,
        remote_address: str | None,
        security_level: SecurityLevel = SecurityLevel.STANDARD,
    ) -> AccountPrincipal:
        """The principal, with the grants of now, as it speaks from this address at this level.

        Raises:
            AuthenticationFailed: whatever is wrong.
            IpDenied: the credentials are right, and are not taken from this address.
            LockedOut: too many wrong passwords came for this account, or from this address.
        """
        origin = Origin(remote_address=remote_address, security_level=security_level)
        match credentials:
            case ApiKeyCredentials():
                return ApiKeyMethod().authenticate(credentials, origin=origin)
            case JwtCredentials():
                return TokenMethod().authenticate(credentials, origin=origin)
            case PasswordCredentials():
                return PasswordMethod().authenticate(credentials, origin=origin)

    def get_mark(self) -> int:
        """Where the mark stands that every revocation and change of rights moves on."""
        mark = selectors.get_revocation_mark()
        note_revocation_mark(mark)
        return mark

    def renew(self, principals: Sequence[Principal]) -> list[Principal | None]:
        """The principals as they are now, in the same order; ``None`` for one whose credential no longer counts."""
        return renew_principals(principals=principals)


class ApiKeyMethod:
    """An API key. Two queries, and at most one write a minute."""

    def authenticate(self, credentials: ApiKeyCredentials, *, origin: Origin) -> AccountPrincipal:
        now = timezone.now()
        key_hash = api_keys.hash_key(credentials.key)
        api_key = ApiKey.objects.select_related("account").filter(key_hash=key_hash).first()
        held = get_roles_and_grants(account_id=api_key.account_id if api_key else NIL)
        refusal = self._judge(api_key, now)
        if api_key is None or refusal is not None:
            logger.info(
                "API key %s from %s refused: %s", api_key.id if api_key else "(unknown)", origin.remote_address, refusal
            )
            raise AuthenticationFailed
        require_address(origin.remote_address, account_id=api_key.account_id, api_key=api_key)
        _record_use(api_key, now, remote_address=origin.remote_address)
        return make_principal(
            account=api_key.account,
            origin=origin,
            held=held,
            credential=CredentialKind.API_KEY,
            credential_id=api_key.id,
            expires_at=api_key.expires_at,
            scopes=tuple(api_key.scopes),
            api_key_id=api_key.id,
        )

    def _judge(self, api_key: ApiKey | None, now: datetime) -> _Refusal | None:
        if api_key is None:
            return _Refusal.UNKNOWN
        state = api_key.get_state(now=now)
        if state is not KeyState.ACTIVE:
            return _Refusal(state.value)
        return None if api_key.account.is_active else _Refusal.ACCOUNT_INACTIVE


class TokenMethod:
    """An access token. A signature that was not seen before, two queries, and at most one write a minute."""

    def authenticate(self, credentials: JwtCredentials, *, origin: Origin) -> AccountPrincipal:
        now = timezone.now()
        row = self._find(credentials.token, now)
        held = get_roles_and_grants(account_id=row.account_id if row else NIL)
        refusal = self._judge(row, now)
        if row is None or refusal is not None:
            logger.info("Token %s from %s refused: %s", row.id if row else "(unknown)", origin.remote_address, refusal)
            raise AuthenticationFailed
        require_address(origin.remote_address, account_id=row.account_id, api_key=row.api_key)
        _record_use(row, now, remote_address=origin.remote_address)
        return make_principal(
            account=row.account,
            origin=origin,
            held=held,
            credential=CredentialKind.TOKEN,
            credential_id=row.id,
            expires_at=row.expires_at,
            scopes=tuple(row.scopes),
            api_key_id=row.api_key_id,
        )

    def _find(self, token: str, now: datetime) -> IssuedToken | None:
        try:
            claims = verify_token(token=token, now=now)
        except TokenInvalid:
            token_id, account_id = NIL, NIL
        else:
            token_id, account_id = claims.token_id, claims.account_id
        return (
            IssuedToken.objects.select_related("account", "api_key")
            .filter(id=token_id, account=account_id, kind=TokenKind.ACCESS.value)
            .first()
        )

    def _judge(self, row: IssuedToken | None, now: datetime) -> _Refusal | None:
        if row is None:
            return _Refusal.UNKNOWN
        state = row.get_state(now=now)
        if state is not TokenState.ACTIVE:
            return _Refusal(state.value)
        return None if has_standing(row, now=now) else _Refusal.GROUND_GONE


class PasswordMethod:
    """A person's name and password, and a code where the account needs one."""

    def authenticate(self, credentials: PasswordCredentials, *, origin: Origin) -> AccountPrincipal:
        account = check_password(
            username=credentials.username,
            password=credentials.password,
            code=credentials.code,
            remote_address=origin.remote_address,
        )
        require_address(origin.remote_address, account_id=account.id, api_key=None)
        return make_principal(
            account=account,
            origin=origin,
            held=get_roles_and_grants(account_id=account.id),
            credential=CredentialKind.PASSWORD,
            credential_id=make_password_id(account_id=account.id),
            expires_at=None,
            password_stamp=selectors.get_password_stamp(account=account),
        )


def make_password_id(*, account_id: uuid.UUID) -> uuid.UUID:
    """What stands for the account's password where a credential is named: always the same, and no other's."""
    return uuid.uuid5(account_id, "password")


def make_principal(
    *,
    account: Account,
    origin: Origin,
    held: RolesAndGrants,
    credential: CredentialKind,
    credential_id: uuid.UUID,
    expires_at: datetime | None,
    scopes: tuple[str, ...] = (),
    api_key_id: uuid.UUID | None = None,
    password_stamp: str = "",
) -> AccountPrincipal:
    """The account as who showed this credential. A query, where the account may use level critical."""
    command_keys = selectors.get_command_keys(account=account)
    return AccountPrincipal(
        id=account.id,
        name=account.username,
        roles=held.roles,
        security_level_max=limit_level(SecurityLevel(account.security_level_max), has_command_key=bool(command_keys)),
        command_keys=command_keys,
        credential_id=credential_id,
        expires_at=expires_at,
        grants=held.grants,
        scopes=scopes,
        credential=credential,
        api_key_id=api_key_id,
        limits=selectors.select_rules(
            selectors.get_rules(), account_id=account.id, roles=held.roles, api_key_id=api_key_id
        ),
        password_stamp=password_stamp,
        remote_address=origin.remote_address,
        security_level=origin.security_level,
    )


def _record_use(row: ApiKey | IssuedToken, now: datetime, *, remote_address: str | None) -> None:
    stale_before = now - LAST_USE_RESOLUTION
    if row.last_used_at is not None and row.last_used_at > stale_before:
        return
    model: type[Model] = type(row)
    # The condition again: of many connections that come at once, one writes.
    model._default_manager.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lte=stale_before), pk=row.pk).update(  # noqa: SLF001  # Django's documented API
        last_used_at=now, last_used_from=remote_address
    )
