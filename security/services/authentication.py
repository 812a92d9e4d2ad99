"""Turning credentials into a principal. What a principal may do is ``domain.policy``'s; issuing keys is ``api_keys``'.

A failure never tells its cause to the peer, not by its time either: whatever is wrong, the same queries run and one
error is raised. The log has the cause, never the key.
"""

from __future__ import annotations

import enum
import logging
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import NIL

from protocol.domain.messages import Authentication, SecurityLevel
from protocol.errors import AuthenticationFailed
from security.domain import api_keys
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal
from security.models import ApiKey
from security.selectors import get_roles_and_grants

logger = logging.getLogger(__name__)

LAST_USE_RESOLUTION: Final = timedelta(minutes=1)
"""How old a recorded last use gets before it is written again: a write a minute for each key, not one a connection."""


class _Refusal(enum.StrEnum):
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    ACCOUNT_INACTIVE = "account_inactive"


class ApiKeyAuthenticator:
    """``protocol.ports.Authenticator`` for API keys."""

    def authenticate(self, *, credentials: Authentication, remote_address: str | None) -> AccountPrincipal:
        """The principal of the key's account, with the grants of now and the key's scopes.

        Two queries, and at most one write a minute.

        Raises:
            AuthenticationFailed: the key is unknown, expired or revoked, or its account inactive.
        """
        now = timezone.now()
        key_hash = api_keys.hash_key(credentials.key)
        api_key = ApiKey.objects.select_related("account").filter(key_hash=key_hash).first()
        held = get_roles_and_grants(account_id=api_key.account_id if api_key else NIL)
        refusal = _judge(api_key, now)
        if api_key is None or refusal is not None:
            logger.info(
                "API key %s from %s refused: %s", api_key.id if api_key else "(unknown)", remote_address, refusal
            )
            raise AuthenticationFailed
        _record_use(api_key, now)
        return AccountPrincipal(
            id=api_key.account_id,
            name=api_key.account.username,
            roles=held.roles,
            security_level_max=SecurityLevel(api_key.account.security_level_max),
            credential_id=api_key.id,
            expires_at=api_key.expires_at,
            grants=held.grants,
            scopes=tuple(api_key.scopes),
        )


def _judge(api_key: ApiKey | None, now: datetime) -> _Refusal | None:
    if api_key is None:
        return _Refusal.UNKNOWN
    state = api_key.get_state(now=now)
    if state is not KeyState.ACTIVE:
        return _Refusal(state.value)
    return None if api_key.account.is_active else _Refusal.ACCOUNT_INACTIVE


def _record_use(api_key: ApiKey, now: datetime) -> None:
    stale_before = now - LAST_USE_RESOLUTION
    if api_key.last_used_at is not None and api_key.last_used_at > stale_before:
        return
    # The condition again: of many connections that come at once, one writes.
    ApiKey.objects.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lte=stale_before), pk=api_key.pk).update(
        last_used_at=now
    )
