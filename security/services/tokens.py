"""Issuing, refreshing and revoking tokens. Their signatures are ``token_signing``'s, showing one ``authentication``'s.

All tokens that came of one sign-in are a family. A refresh token is used once: its use makes the next pair. One that
comes again later was stolen, from the client or by it, and the whole family is revoked.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from protocol.domain.messages import SecurityLevel
from protocol.errors import AccessDenied, AuthenticationFailed
from protocol.ports import Principal, Resource
from security.domain import tokens
from security.domain.actions import register_action
from security.domain.authorization import AccountPrincipal, CredentialKind
from security.domain.tokens import Claims, TokenInvalid, TokenKind, TokenState
from security.errors import TokenRevoked
from security.models import Account, IssuedToken
from security.selectors import has_standing
from security.services import audit
from security.services.addresses import require_address
from security.services.revocation import move_revocation_mark
from security.services.token_signing import sign_token, verify_token

logger = logging.getLogger(__name__)

ISSUE_TOKENS: Final = "tokens.issue"
REFRESH_TOKENS: Final = "tokens.refresh"
REUSE_TOKEN: Final = "tokens.reuse"  # noqa: S105  # an action's name
REVOKE_TOKENS: Final = register_action("tokens.revoke", summary="Let the tokens of one sign-in count no more.")
KEPT_FOR: Final = timedelta(days=7)
"""How long a token is kept past its end: its reuse is known for as long, and who had it."""
PURGE_LIMIT: Final = 1_000
"""Rows deleted in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokens:
    """A new pair; the texts are stored nowhere."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    access_expires_at: datetime
    refresh_expires_at: datetime
    access_jti: uuid.UUID
    family_id: uuid.UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What a family of tokens stands on."""

    family_id: uuid.UUID
    account_id: uuid.UUID
    api_key_id: uuid.UUID | None
    password_stamp: str
    scopes: tuple[str, ...]
    ends_at: datetime | None


def issue_tokens(*, principal: Principal, remote_address: str | None, trace_id: str) -> IssuedTokens:
    """A pair for who showed an API key or a password, with the key's scopes; neither token outlives the key.

    Raises:
        AccessDenied: the principal showed something else; a token makes no tokens but by ``refresh_tokens``.
        AuthenticationFailed: the key ends within the second.
    """
    if not isinstance(principal, AccountPrincipal) or principal.credential not in (
        CredentialKind.API_KEY,
        CredentialKind.PASSWORD,
    ):
        raise AccessDenied("Tokens are issued for an API key or a password.", details={"action": ISSUE_TOKENS})
    has_key = principal.credential is CredentialKind.API_KEY
    ground = _Ground(
        family_id=uuid7(),
        account_id=principal.id,
        api_key_id=principal.credential_id if has_key else None,
        password_stamp="" if has_key else principal.password_stamp,
        scopes=principal.scopes,
        ends_at=principal.expires_at,
    )
    with transaction.atomic():
        issued = _issue_pair(ground, remote_address=remote_address)
        audit.record_event(
            action=ISSUE_TOKENS,
            principal=principal,
            resource=_get_resource(ground.family_id, ground.account_id),
            outcome="issued",
            trace_id=trace_id,
            data={"jti": str(issued.access_jti), "credential": principal.credential.value, "address": remote_address},
        )
    return issued


def refresh_tokens(*, refresh_token: str, remote_address: str | None, trace_id: str) -> IssuedTokens:
    """The next pair, for a refresh token that was not used before.

    Raises:
        TokenRevoked: it was used before, or revoked. Later than ``domain.tokens.REUSE_GRACE`` after its use, it also
            revokes its family.
        AuthenticationFailed: anything else is wrong with it, its account or its key.
        IpDenied: its account or key is not taken from this address.
    """
    claims = _verify(refresh_token)
    if claims is None or claims.kind is not TokenKind.REFRESH:
        raise AuthenticationFailed
    with transaction.atomic():
        issued = _spend(claims, remote_address=remote_address, trace_id=trace_id)
    # Raised out here: what a reuse revokes stays revoked.
    if issued is None:
        raise TokenRevoked
    return issued


def revoke_token(*, token: str, trace_id: str) -> bool:
    """Revoke the token with its whole family; open connections by it close within a second.

    Whether this call did it: ``False`` for a text that is no token of ours, or whose family was revoked before.
    """
    claims = _verify(token)
    if claims is None:
        return False
    with transaction.atomic():
        _lock_account(claims.account_id)
        row = _find(claims)
        if row is None or not revoke_family(row.family_id):
            return False
        _record(row, action=REVOKE_TOKENS, outcome="revoked", trace_id=trace_id)
    logger.info("Tokens %s of account %s revoked", row.family_id, row.account)
    return True


def purge_tokens() -> int:
    """Delete the tokens that ended long ago; how many."""
    old = IssuedToken.objects.filter(expires_at__lt=timezone.now() - KEPT_FOR).values_list("id", flat=True)
    total = 0
    while batch := list(old[:PURGE_LIMIT]):
        total += IssuedToken.objects.filter(id__in=batch).delete()[0]
    return total


def _verify(token: str) -> Claims | None:
    try:
        return verify_token(token=token, now=timezone.now())
    except TokenInvalid:
        return None


def _find(claims: Claims) -> IssuedToken | None:
    return (
        IssuedToken.objects.select_related("account", "api_key")
        .filter(id=claims.token_id, account=claims.account_id, kind=claims.kind.value)
        .first()
    )


def _lock_account(account_id: uuid.UUID) -> None:
    """Have one transaction at a time change the account's families: none gets a token while it is revoked."""
    Account.objects.select_for_update(no_key=True).filter(id=account_id).values_list("id").first()


def _spend(claims: Claims, *, remote_address: str | None, trace_id: str) -> IssuedTokens | None:
    """The next pair; ``None``: the token was spent or revoked before."""
    _lock_account(claims.account_id)
    row = _find(claims)
    now = timezone.now()
    if row is None or not has_standing(row, now=now):
        raise AuthenticationFailed
    match row.get_state(now=now):
        case TokenState.EXPIRED:
            raise AuthenticationFailed
        case TokenState.REVOKED:
            return None
        case TokenState.SPENT:
            _judge_reuse(row, now=now, remote_address=remote_address, trace_id=trace_id)
            return None
        case TokenState.ACTIVE:
            # Only now: a stolen token that comes again is one wherever it comes from.
            require_address(remote_address, account_id=row.account_id, api_key=row.api_key)
    if not IssuedToken.objects.filter(id=row.id, spent_at=None, revoked_at=None).update(spent_at=now):
        return None
    ground = _Ground(
        family_id=row.family_id,
        account_id=row.account_id,
        api_key_id=row.api_key_id,
        password_stamp=row.password_stamp,
        scopes=tuple(row.scopes),
        ends_at=row.api_key.expires_at if row.api_key else None,
    )
    issued = _issue_pair(ground, remote_address=remote_address)
    _record(
        row,
        action=REFRESH_TOKENS,
        outcome="refreshed",
        trace_id=trace_id,
        remote_address=remote_address,
        successor=issued.access_jti,
    )
    return issued


def _judge_reuse(row: IssuedToken, *, now: datetime, remote_address: str | None, trace_id: str) -> None:
    assert row.spent_at is not None  # noqa: S101  # its state says so
    if not tokens.is_reuse(spent_at=row.spent_at, now=now) or not revoke_family(row.family_id):
        return
    logger.warning(
        "A used refresh token of account %s came again from %s: its family %s is revoked",
        row.account,
        remote_address,
        row.family_id,
    )
    _record(row, action=REUSE_TOKEN, outcome="revoked", trace_id=trace_id, remote_address=remote_address)


def revoke_family(family_id: uuid.UUID) -> bool:
    """Let none of the family's tokens count any more, inside the caller's transaction; ``False``: none did."""
    revoked = IssuedToken.objects.filter(family_id=family_id, revoked_at=None).update(revoked_at=timezone.now())
    if revoked:
        move_revocation_mark()
    return revoked > 0


def _record(
    row: IssuedToken,
    *,
    action: str,
    outcome: str,
    trace_id: str,
    remote_address: str | None = None,
    successor: uuid.UUID | None = None,
) -> None:
    data = {"jti": str(row.id), "kind": row.kind, "address": remote_address}
    if successor is not None:
        data["successor"] = str(successor)
    audit.record_event(
        action=action,
        principal=Principal(
            id=row.account_id,
            name=row.account.username,
            roles=(),
            security_level_max=SecurityLevel(row.account.security_level_max),
            credential_id=row.id,
            expires_at=row.expires_at,
        ),
        resource=_get_resource(row.family_id, row.account_id),
        outcome=outcome,
        trace_id=trace_id,
        data=data,
    )


def _get_resource(family_id: uuid.UUID, account_id: uuid.UUID) -> Resource:
    return Resource(kind="token_family", name=str(family_id), owner_id=account_id)


def _issue_pair(ground: _Ground, *, remote_address: str | None) -> IssuedTokens:
    now = timezone.now()
    access = _make_row(
        ground, TokenKind.ACCESS, timedelta(minutes=settings.MCP.access_token_minutes), now, remote_address
    )
    refresh = _make_row(ground, TokenKind.REFRESH, timedelta(days=settings.MCP.refresh_token_days), now, remote_address)
    if access.expires_at <= now:
        raise AuthenticationFailed
    IssuedToken.objects.bulk_create([access, refresh])
    return IssuedTokens(
        access=_sign(access),
        refresh=_sign(refresh),
        access_expires_at=access.expires_at,
        refresh_expires_at=refresh.expires_at,
        access_jti=access.id,
        family_id=ground.family_id,
    )


def _make_row(
    ground: _Ground, kind: TokenKind, lifetime: timedelta, now: datetime, remote_address: str | None
) -> IssuedToken:
    return IssuedToken(
        family_id=ground.family_id,
        kind=kind.value,
        account_id=ground.account_id,
        api_key_id=ground.api_key_id,
        password_stamp=ground.password_stamp,
        scopes=list(ground.scopes),
        remote_address=remote_address,
        issued_at=now,
        expires_at=tokens.get_expiry(now=now, lifetime=lifetime, ends_at=ground.ends_at),
    )


def _sign(row: IssuedToken) -> str:
    return sign_token(
        token_id=row.id,
        account_id=row.account_id,
        kind=TokenKind(row.kind),
        issued_at=row.issued_at,
        expires_at=row.expires_at,
    )
