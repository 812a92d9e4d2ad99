"""The keys with which accounts sign commands."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from protocol.domain.base64url import decode_base64url
from protocol.domain.messages import SecurityLevel
from security.domain.signatures import CommandPublicKey
from security.models import Account, CommandKey

CommandKeys = tuple[CommandPublicKey, ...]


def list_command_keys(*, accounts: Iterable[Account]) -> dict[uuid.UUID, CommandKeys]:
    """The keys in use of those of the accounts that may use level critical; no query where none may."""
    wanted = [account.pk for account in accounts if account.security_level_max == SecurityLevel.CRITICAL.value]
    found: dict[uuid.UUID, CommandKeys] = {}
    if not wanted:
        return found
    rows = CommandKey.objects.filter(account__in=wanted, revoked_at=None).order_by("created_at", "id")
    for account_id, key_id, public_key in rows.values_list("account_id", "key_id", "public_key"):
        key = CommandPublicKey(key_id=key_id, public_key=decode_base64url(public_key))
        found[account_id] = (*found.get(account_id, ()), key)
    return found


def get_command_keys(*, account: Account) -> CommandKeys:
    """The account's keys in use, if it may use level critical."""
    return list_command_keys(accounts=[account]).get(account.pk, ())


def find_command_key(*, account: Account, key_id: str) -> CommandKey | None:
    """The account's key of this id, or of the one id that begins so."""
    found = list(CommandKey.objects.filter(account=account, key_id__startswith=key_id)[:2]) if key_id else []
    return found[0] if len(found) == 1 else None
