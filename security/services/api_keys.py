"""Issuing, renaming and revoking API keys. Checking a key that was shown is ``authentication``'s."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from protocol.acting import get_acting
from protocol.ports import Resource
from security.domain import api_keys
from security.domain.api_keys import KeyState
from security.models import Account, ApiKey
from security.selectors import get_account_principal
from security.services import audit
from security.services.revocation import move_revocation_mark

logger = logging.getLogger(__name__)

REVOKE_KEY: Final = "api_keys.revoke"
ROTATE_KEY: Final = "api_keys.rotate"
DEFAULT_OVERLAP: Final = timedelta(hours=24)
"""How long a rotated key goes on counting, beside its successor."""


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
    networks: Sequence[str] = (),
    expires_at: datetime | None = None,
    created_by: Account | None = None,
) -> IssuedKey:
    """A new key for the account, narrowed to ``scopes`` (action patterns; none: all that the account may).

    It is taken from ``networks`` only; none: from everywhere. Both stay what they are here.

    Raises:
        ValidationError: the account is inactive, a scope is no pattern, a network is none, the name is empty, or the
            expiry has passed.
    """
    issued = _make_key(
        account=account, name=name, scopes=scopes, networks=networks, expires_at=expires_at, created_by=created_by
    )
    # One transaction: a receiver puts it on record.
    with transaction.atomic():
        issued.api_key.save(force_insert=True)
    logger.info("API key %s of %s issued by %s", issued.api_key.id, account, created_by or "the command line")
    return issued


def _make_key(
    *,
    account: Account,
    name: str,
    scopes: Sequence[str],
    networks: Sequence[str],
    expires_at: datetime | None,
    created_by: Account | None,
    replaces: ApiKey | None = None,
) -> IssuedKey:
    """A valid key that is not stored yet."""
    if not account.is_active:
        raise ValidationError(f"{account.username} is inactive; its keys would not count.", code="account_inactive")
    material = api_keys.make_key(entropy=secrets.token_bytes(api_keys.ENTROPY_BYTES))
    api_key = ApiKey(
        account=account,
        name=name,
        prefix=material.prefix,
        key_hash=material.key_hash,
        scopes=list(scopes),
        networks=list(networks),
        replaces=replaces,
        expires_at=expires_at,
        created_at=timezone.now(),
        created_by=created_by,
    )
    api_key.full_clean()
    return IssuedKey(api_key=api_key, secret=material.secret)


def rotate_api_key(
    *, api_key: ApiKey, overlap: timedelta = DEFAULT_OVERLAP, rotated_by: Account | None = None
) -> IssuedKey:
    """A successor with the same account, name, scopes and networks; the old key ends after the overlap.

    The successor lives as long as the old one was made to. Tokens that were obtained with the old key end with it.

    Raises:
        ValidationError: the key does not count any more, was rotated before, or the overlap is negative.
    """
    if overlap < timedelta(0):
        raise ValidationError("The overlap is not negative.", code="overlap_invalid")
    now = timezone.now()
    with transaction.atomic():
        old = ApiKey.objects.select_for_update(of=("self",)).select_related("account").get(pk=api_key.pk)
        if old.get_state(now=now) is not KeyState.ACTIVE:
            raise ValidationError("The key does not count any more; issue a new one.", code="key_not_active")
        if ApiKey.objects.filter(replaces=old).exists():
            raise ValidationError("The key was rotated before; rotate its successor.", code="key_rotated")
        issued = _make_key(
            account=old.account,
            name=old.name,
            scopes=old.scopes,
            networks=old.networks,
            expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
            created_by=rotated_by,
            replaces=old,
        )
        # Without a signal, as the act is recorded below, once.
        ApiKey.objects.bulk_create([issued.api_key])
        ends_at = now + overlap
        # Only ever sooner. A queryset's update, as of all the row nothing else changes.
        ApiKey.objects.filter(pk=old.pk).filter(Q(expires_at=None) | Q(expires_at__gt=ends_at)).update(
            expires_at=ends_at
        )
        acting = get_acting()
        audit.record_event(
            action=ROTATE_KEY,
            principal=None if rotated_by is None else get_account_principal(account=rotated_by),
            resource=_get_resource(old),
            outcome="rotated",
            trace_id="" if acting is None else acting.trace_id,
            data={
                "id": str(old.pk),
                "account_id": str(old.account_id),
                "successor": str(issued.api_key.pk),
                "ends_at": ends_at.isoformat(),
            },
        )
        move_revocation_mark()
    api_key.refresh_from_db(fields=["expires_at"])
    logger.info("API key %s rotated to %s by %s", old.pk, issued.api_key.pk, rotated_by or "the command line")
    return issued


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
        resource=_get_resource(api_key),
        outcome="revoked",
        trace_id="" if acting is None else acting.trace_id,
        data={"id": str(api_key.pk), "account_id": str(api_key.account_id)},
    )


def _get_resource(api_key: ApiKey) -> Resource:
    return Resource(kind="api_key", name=str(api_key)[:255], owner_id=api_key.account_id)
