"""Issuing, renaming and revoking API keys. Checking a key that was shown is ``authentication``'s."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from protocol.acting import get_acting
from protocol.ports import Resource
from security.domain import api_keys
from security.models import Account, ApiKey
from security.services import audit
from security.services.revocation import move_revocation_mark

logger = logging.getLogger(__name__)

REVOKE_KEY: Final = "api_keys.revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A new key; ``secret`` is its text, which nothing stores."""

    api_key: ApiKey
    secret: str = field(repr=False)


def issue_api_key(
    *,
    account: Account,
    name: str,
    scopes: Sequence[str] = (),
    expires_at: datetime | None = None,
    created_by: Account | None = None,
) -> IssuedKey:
    """A new key for the account, narrowed to ``scopes`` (action patterns; none: all that the account may).

    Raises:
        ValidationError: the account is inactive, a scope is no pattern, the name is empty, or the expiry has passed.
    """
    if not account.is_active:
        raise ValidationError(f"{account.username} is inactive; its keys would not count.", code="account_inactive")
    material = api_keys.make_key(entropy=secrets.token_bytes(api_keys.ENTROPY_BYTES))
    api_key = ApiKey(
        account=account,
        name=name,
        prefix=material.prefix,
        key_hash=material.key_hash,
        scopes=list(scopes),
        expires_at=expires_at,
        created_at=timezone.now(),
        created_by=created_by,
    )
    api_key.full_clean()
    # One transaction: a receiver puts it on record.
    with transaction.atomic():
        api_key.save(force_insert=True)
    logger.info("API key %s of %s issued by %s", api_key.id, account, created_by or "the command line")
    return IssuedKey(api_key=api_key, secret=material.secret)


def rename_api_key(*, api_key: ApiKey, name: str) -> None:
    """Change what the key is called, the only thing of it that changes by hand.

    Raises:
        ValidationError: the name is empty or too long.
    """
    api_key.name = name
    api_key.full_clean()
    with transaction.atomic():
        api_key.save(update_fields=["name"])


def revoke_api_key(*, api_key: ApiKey, revoked_by: Account | None = None) -> bool:
    """Make the key and its tokens count no more; whether this call did it, and not an earlier one.

    Open connections by them close within a second.
    """
    now = timezone.now()
    with transaction.atomic():
        is_revoked_now = bool(ApiKey.objects.filter(pk=api_key.pk, revoked_at__isnull=True).update(revoked_at=now))
        if is_revoked_now:
            _record_revocation(api_key)
            move_revocation_mark()
    api_key.refresh_from_db(fields=["revoked_at"])
    if is_revoked_now:
        logger.info("API key %s revoked by %s", api_key.id, revoked_by or "the command line")
    return is_revoked_now


def _record_revocation(api_key: ApiKey) -> None:
    acting = get_acting()
    audit.record_event(
        action=REVOKE_KEY,
        principal=None if acting is None else acting.find_principal(),
        resource=Resource(kind="api_key", name=str(api_key)[:255], owner_id=api_key.account_id),
        outcome="revoked",
        trace_id="" if acting is None else acting.trace_id,
        data={"id": str(api_key.pk), "account_id": str(api_key.account_id)},
    )
