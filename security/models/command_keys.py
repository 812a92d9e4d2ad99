"""The public keys with which accounts sign commands. A revoked one stays: evidence is verified with it later."""

from __future__ import annotations

from typing import Any, Final

from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import Exact
from django.utils import timezone
from uuid_utils.compat import uuid7

from security.models.accounts import Account

TEXT_LENGTH: Final = 43
"""Of 32 bytes as base64url: a public key, and the id that is made from it."""


class CommandKeyKept(Exception):
    """A registered key is revoked, never deleted."""


class CommandKey(models.Model):
    """An Ed25519 public key of an account's. The private half is the account holder's alone."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="command_keys")
    label = models.CharField(max_length=100, help_text="Where the key is kept, so that it can be told from others.")
    key_id = models.CharField(
        "key id",
        max_length=TEXT_LENGTH,
        unique=True,
        editable=False,
        help_text="How signatures name it: the key's JWK thumbprint (RFC 7638).",
    )
    public_key = models.CharField(max_length=TEXT_LENGTH, editable=False, help_text="32 bytes as base64url.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        Account, on_delete=models.PROTECT, null=True, blank=True, editable=False, related_name="registered_command_keys"
    )
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Exact(Length("key_id"), TEXT_LENGTH) & Exact(Length("public_key"), TEXT_LENGTH),
                name="security_commandkey_lengths",
            ),
            models.CheckConstraint(
                condition=Q(revoked_at__isnull=True) | Q(revoked_at__gte=models.F("created_at")),
                name="security_commandkey_revoked_after_creation",
            ),
        ]
        indexes = [
            models.Index(fields=["account"], condition=Q(revoked_at=None), name="commandkey_in_use"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id[:12]}… ({self.label})"

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        raise CommandKeyKept
