"""Whether keys, tokens and passwords count, and the mark that says that something changed."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, QuerySet
from django.utils.crypto import constant_time_compare

from protocol import statements
from security.domain.api_keys import KeyState
from security.models import Account, ApiKey, IssuedToken, RevocationMark


def get_revocation_mark() -> int:
    """Where the mark stands that every revocation and change of rights moves on."""
    found = statements.select(RevocationMark, where={"id": RevocationMark.ONLY_ID}, names=("value",))
    return int(found[0][0]) if found else 0


def get_password_stamp(*, account: Account) -> str:
    """What changes with the account's password and tells nothing of it."""
    return account.get_session_auth_hash()


def has_standing(token: IssuedToken, *, now: datetime) -> bool:
    """Whether what the token was obtained with still counts: the active account, and its key or password.

    Two rows are read from what was selected with it: ``account`` and ``api_key``.
    """
    if not token.account.is_active:
        return False
    if token.api_key is not None:
        return token.api_key.get_state(now=now) is KeyState.ACTIVE
    return constant_time_compare(token.password_stamp, get_password_stamp(account=token.account))


def filter_api_keys(keys: QuerySet[ApiKey], *, state: KeyState, now: datetime) -> QuerySet[ApiKey]:
    """Those of the keys that are in the state at ``now``, as ``domain.api_keys.get_key_state`` has it."""
    is_expired = Q(revoked_at__isnull=True, expires_at__lte=now)
    match state:
        case KeyState.REVOKED:
            return keys.filter(revoked_at__isnull=False)
        case KeyState.EXPIRED:
            return keys.filter(is_expired)
        case KeyState.ACTIVE:
            return keys.filter(~is_expired, revoked_at__isnull=True)
