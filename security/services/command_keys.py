"""Registering and revoking the keys with which accounts sign commands."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from protocol.domain.base64url import encode_base64url
from protocol.ports import Principal, Resource
from security.domain.signatures import PublicKeyInvalid, make_key_id, parse_public_key
from security.models import Account, CommandKey
from security.services import audit
from security.services.revocation import move_revocation_mark

REGISTER = "command_keys.register"
REVOKE = "command_keys.revoke"


def register_command_key(
    *, account: Account, public_key: str, label: str, principal: Principal | None = None
) -> CommandKey:
    """The account's new key: base64url, PEM, or a line as OpenSSH writes it. ``principal`` registers it.

    Raises:
        ValidationError: the text is no Ed25519 public key, the key was registered before, or the label is empty.
    """
    raw = check_public_key(public_key=public_key)
    row = CommandKey(
        account=account,
        label=label,
        key_id=make_key_id(raw),
        public_key=encode_base64url(raw),
        created_by_id=None if principal is None else principal.id,
    )
    row.full_clean()
    with transaction.atomic():
        row.save(force_insert=True)
        audit.record_event(
            action=REGISTER,
            principal=principal,
            resource=_get_resource(row),
            outcome="registered",
            data={"account_id": str(account.pk), "public_key": row.public_key},
        )
        # Its open connections carry the new key within a second.
        move_revocation_mark()
    return row


def check_public_key(*, public_key: str) -> bytes:
    """The 32 bytes of a key that can be registered.

    Raises:
        ValidationError: the text is no Ed25519 public key, or one that was registered before.
    """
    try:
        raw = parse_public_key(public_key)
    except PublicKeyInvalid as error:
        raise ValidationError(str(error), code="public_key_invalid") from error
    # Whose a signature is must never be in doubt, and what was revoked stays revoked.
    if CommandKey.objects.filter(key_id=make_key_id(raw)).exists():
        raise ValidationError("This key was registered before; make a new one.", code="unique")
    return raw


def revoke_command_key(*, command_key: CommandKey, principal: Principal | None = None) -> bool:
    """Take no more signatures by the key; whether this call did it, and not an earlier one.

    Within a second its commands are refused on open connections too. The key stays, for the evidence that there is.
    """
    with transaction.atomic():
        is_revoked_now = bool(
            CommandKey.objects.filter(pk=command_key.pk, revoked_at=None).update(revoked_at=timezone.now())
        )
        if is_revoked_now:
            audit.record_event(
                action=REVOKE,
                principal=principal,
                resource=_get_resource(command_key),
                outcome="revoked",
                data={"account_id": str(command_key.account_id)},
            )
            move_revocation_mark()
    command_key.refresh_from_db(fields=["revoked_at"])
    return is_revoked_now


def _get_resource(row: CommandKey) -> Resource:
    return Resource(kind="command_key", name=row.key_id, owner_id=row.account_id)
