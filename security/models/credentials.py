"""Keys, tokens, and the counters of wrong passwords. No secret is stored, only what proves one."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length
from django.db.models.lookups import Exact
from django.utils import timezone
from uuid_utils.compat import uuid7

from security.domain import api_keys, tokens
from security.models.accounts import Account
from security.models.validators import validate_networks, validate_scopes


class ApiKey(models.Model):
    """A credential of an account. Its text is shown once and never stored; only its hash is."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100, help_text="What the key is for, so that it can be told from others.")
    prefix = models.CharField(max_length=api_keys.PREFIX_LENGTH, editable=False)
    key_hash = models.CharField(max_length=api_keys.HASH_LENGTH, unique=True, editable=False)
    scopes = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_scopes],
        help_text='Action patterns that narrow what the account may, as ["tools.*"]; empty: all that it may.',
    )
    networks = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_networks],
        help_text='From where the key is taken, as ["10.0.0.0/8"]; empty: from everywhere.',
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it does not expire.")
    replaces = models.OneToOneField(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="successor",
        help_text="The key that this one was rotated from.",
    )
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_from = models.GenericIPAddressField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        Account, on_delete=models.PROTECT, null=True, blank=True, editable=False, related_name="issued_api_keys"
    )

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=Exact(Length("key_hash"), api_keys.HASH_LENGTH),
                name="security_apikey_hash_length",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("created_at")),
                name="security_apikey_expires_after_creation",
                violation_error_message="A key expires after it was made.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"

    def get_state(self, *, now: datetime) -> api_keys.KeyState:
        return api_keys.get_key_state(expires_at=self.expires_at, revoked_at=self.revoked_at, now=now)


class IssuedToken(models.Model):
    """An access or a refresh token. Its text is not stored: its signature proves it, this row says if it counts."""

    class Kind(models.TextChoices):
        ACCESS = tokens.TokenKind.ACCESS.value, "access"
        REFRESH = tokens.TokenKind.REFRESH.value, "refresh"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False, help_text="The token's jti.")
    family_id = models.UUIDField(
        db_index=True, editable=False, help_text="The same for all tokens that came of one sign-in; revoked together."
    )
    kind = models.CharField(max_length=10, choices=Kind)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="issued_tokens")
    api_key = models.ForeignKey(
        ApiKey,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="issued_tokens",
        help_text="The key that the family was obtained with; empty: a password.",
    )
    password_stamp = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Of the password that the family was obtained with."
    )
    scopes = models.JSONField(default=list, blank=True, validators=[validate_scopes])
    remote_address = models.GenericIPAddressField(null=True, blank=True)
    issued_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True, blank=True, help_text="When a refresh token was used, once.")
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.GenericIPAddressField(null=True, blank=True)

    class Meta:
        ordering = ["-issued_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=[kind.value for kind in tokens.TokenKind]), name="security_token_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("issued_at")), name="security_token_expires_after_issue"
            ),
            models.CheckConstraint(
                condition=Q(kind="refresh") | Q(spent_at__isnull=True), name="security_token_only_refresh_is_spent"
            ),
            models.CheckConstraint(
                condition=Q(api_key__isnull=False, password_stamp="")
                | (Q(api_key__isnull=True) & ~Q(password_stamp="")),
                name="security_token_has_one_ground",
            ),
            # Whoever spends one makes the next: never can two of a family be used.
            models.UniqueConstraint(
                fields=["family_id"],
                condition=Q(kind="refresh", spent_at__isnull=True, revoked_at__isnull=True),
                name="security_token_one_refresh_a_family",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    def get_state(self, *, now: datetime) -> tokens.TokenState:
        return tokens.get_token_state(
            expires_at=self.expires_at, spent_at=self.spent_at, revoked_at=self.revoked_at, now=now
        )


class LoginFailure(models.Model):
    """A counter of wrong passwords, as ``domain.lockout`` has it: gone once its moment has passed."""

    key = models.CharField(primary_key=True, max_length=120, help_text="An address, or a name's digest at an address.")
    clear_at = models.DateTimeField(db_index=True, help_text="When everything that it counted is forgotten.")

    def __str__(self) -> str:
        return f"{self.key} until {self.clear_at:%Y-%m-%d %H:%M:%S}"
