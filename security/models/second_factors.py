"""What an account can show beside its password: an authenticator app, passkeys, recovery codes.

An app's secret is sealed under the key ring; of a recovery code there is a digest, of a passkey its public half.
"""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import Exact
from django.utils import timezone
from uuid_utils.compat import uuid7

from protocol.sealed_fields import KeyIdField, SealedField
from security.models.accounts import Account

CODE_HASH_LENGTH: Final = 64


class AuthenticatorApp(models.Model):
    """An account's authenticator app (TOTP). It counts once a code of it has confirmed that it is set up."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="authenticator_app")
    secret = SealedField(key_id_field="secret_key_id")
    secret_key_id = KeyIdField()
    confirmed_at = models.DateTimeField(null=True)
    last_step = models.BigIntegerField(default=0, help_text="The step of the last code that was used.")
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(confirmed_at__isnull=False) | Q(last_step=0), name="security_authenticatorapp_unused"
            ),
        ]
        indexes = [models.Index(fields=["secret_key_id", "id"], name="security_authenticatorapp_key")]

    def __str__(self) -> str:
        return f"authenticator app of {self.account}"


class RecoveryCode(models.Model):
    """A code that stands in for a lost second factor, once: its use deletes it."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="recovery_codes")
    code_hash = models.CharField(max_length=CODE_HASH_LENGTH, unique=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Exact(Length("code_hash"), CODE_HASH_LENGTH), name="security_recoverycode_hash_length"
            ),
        ]

    def __str__(self) -> str:
        return f"recovery code of {self.account}"


class Passkey(models.Model):
    """A WebAuthn credential: the key itself stays in the device or in whatever the person keeps passkeys in."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="passkeys")
    name = models.CharField(max_length=100)
    credential_id = models.TextField(unique=True, help_text="As base64url.")
    credential = models.BinaryField(help_text="Attested credential data (WebAuthn, section 6.5.1): id and public key.")
    sign_count = models.BigIntegerField(default=0)
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.name
