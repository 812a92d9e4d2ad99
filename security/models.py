"""Accounts, roles with their grants, keys, tokens and counters: what is stored, and the constraints that always hold.

Writes go through ``services``, reads through ``selectors``; what a pattern or a key means is ``domain``'s. The manager
is here because Django's own commands call it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length, Lower
from django.db.models.lookups import Exact
from django.utils import timezone
from uuid_utils.compat import uuid7

from protocol.domain.messages import SecurityLevel
from security.domain import api_keys, policy, tokens

MAX_SCOPES = 50


def validate_action_pattern(value: str) -> None:
    """Refuse what is not an action pattern."""
    try:
        policy.parse_action_pattern(value)
    except policy.PatternInvalid as error:
        raise ValidationError(str(error), code="pattern_invalid") from error


def validate_resource_pattern(value: str) -> None:
    """Refuse what is not a resource pattern."""
    try:
        policy.parse_resource_pattern(value)
    except policy.PatternInvalid as error:
        raise ValidationError(str(error), code="pattern_invalid") from error


def validate_scopes(value: object) -> None:
    """Refuse what is not a list of at most ``MAX_SCOPES`` action patterns."""
    if not isinstance(value, list) or len(value) > MAX_SCOPES or not all(isinstance(scope, str) for scope in value):
        raise ValidationError(f"Scopes are a list of at most {MAX_SCOPES} action patterns.", code="scopes_invalid")
    for scope in value:
        validate_action_pattern(scope)


class Role(models.Model):
    """What a kind of account may do; an account has any number of them."""

    name = models.CharField(
        max_length=100, unique=True, validators=[RegexValidator(r"\A[a-z0-9][a-z0-9_-]*\Z", "Use a-z, 0-9, - and _.")]
    )
    description = models.CharField(max_length=500, blank=True)
    is_builtin = models.BooleanField(
        "built in", default=False, editable=False, help_text="Comes with the server and is not changed by hand."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Grant(models.Model):
    """One rule of a role: an action pattern on a resource pattern, allowed or denied."""

    class Effect(models.TextChoices):
        ALLOW = policy.Effect.ALLOW.value, "allow"
        DENY = policy.Effect.DENY.value, "deny"

    role = models.ForeignKey(Role, on_delete=models.CASCADE, related_name="grants")
    effect = models.CharField(max_length=10, choices=Effect, default=Effect.ALLOW)
    action_pattern = models.CharField(
        max_length=policy.MAX_PATTERN_LENGTH,
        validators=[validate_action_pattern],
        help_text="tools.execute, tools.*, or * for every action.",
    )
    resource_pattern = models.CharField(
        max_length=policy.MAX_PATTERN_LENGTH,
        validators=[validate_resource_pattern],
        help_text="tool:files.*, execution:*@own (only what the account owns), or *:* for everything.",
    )

    class Meta:
        ordering = ["action_pattern", "resource_pattern", "effect"]
        constraints = [
            models.UniqueConstraint(
                fields=["role", "effect", "action_pattern", "resource_pattern"], name="security_grant_unique"
            ),
            models.CheckConstraint(
                condition=Q(effect__in=[effect.value for effect in policy.Effect]), name="security_grant_effect_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.effect} {self.action_pattern} on {self.resource_pattern}"


class AccountManager(BaseUserManager["Account"]):
    """What Django's commands and backends need; elsewhere use ``services``."""

    def create_user(self, username: str, password: str | None = None, **fields: Any) -> Account:
        """A person; without a password one who cannot sign in yet."""
        account = self.model(username=username, **fields)
        account.set_password(password)
        account.full_clean()
        account.save(using=self._db)
        return account

    def create_superuser(self, username: str, password: str | None = None, **fields: Any) -> Account:
        """A person who may do everything in the console."""
        return self.create_user(username, password, **{**fields, "is_staff": True, "is_superuser": True})


class Account(AbstractBaseUser, PermissionsMixin):
    """Whoever acts: a person, who signs in with a password, or a service, which has keys only."""

    class Kind(models.TextChoices):
        PERSON = "person", "person"
        SERVICE = "service", "service"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    username = models.CharField(
        max_length=150,
        unique=True,
        validators=[RegexValidator(r"\A[A-Za-z0-9._@+-]{1,150}\Z", "Use at most 150 letters, digits and . _ @ + -.")],
        error_messages={"unique": "There is an account of this name."},
    )
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.PERSON)
    display_name = models.CharField(max_length=150, blank=True)
    email = models.EmailField(blank=True)
    is_active = models.BooleanField(
        "active", default=True, help_text="An inactive account can neither sign in nor use its keys."
    )
    is_staff = models.BooleanField("staff", default=False, help_text="May sign in to the console; persons only.")
    # ``high`` needs nothing registered beforehand; ``critical`` does, so that it is given knowingly.
    security_level_max = models.CharField(
        "highest security level",
        max_length=10,
        choices=[(level.value, level.value) for level in SecurityLevel],
        default=SecurityLevel.HIGH.value,
        help_text="The highest level at which this account's connections may send messages.",
    )
    roles = models.ManyToManyField(Role, related_name="accounts", blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[AccountManager] = AccountManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        ordering = ["username"]
        constraints = [
            # Two names that differ only in case are one name to a person who reads them.
            models.UniqueConstraint(
                Lower("username"),
                name="security_account_username_caseless",
                violation_error_message="There is an account of this name.",
            ),
            models.CheckConstraint(condition=Q(kind__in=["person", "service"]), name="security_account_kind_known"),
            models.CheckConstraint(
                condition=Q(security_level_max__in=[level.value for level in SecurityLevel]),
                name="security_account_level_known",
            ),
            models.CheckConstraint(
                condition=Q(kind="person")
                | Q(is_staff=False, is_superuser=False, password__startswith=UNUSABLE_PASSWORD_PREFIX),
                name="security_account_service_has_keys_only",
                violation_error_message="A service account has no password and cannot be staff or superuser.",
            ),
        ]

    def __str__(self) -> str:
        return self.username

    def get_full_name(self) -> str:
        return self.display_name or self.username

    def get_short_name(self) -> str:
        return self.username

    @property
    def is_service(self) -> bool:
        return self.kind == self.Kind.SERVICE

    def clean(self) -> None:
        # The constraint says so too, but a form that does not show the password cannot check it.
        super().clean()
        if self.is_service and (self.is_staff or self.is_superuser):
            raise ValidationError("A service account cannot be staff or superuser.", code="service_not_staff")


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
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it does not expire.")
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
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


class RevocationMark(models.Model):
    """One row that every revocation and every change of grants moves on; processes with connections watch it."""

    ONLY_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY_ID)
    value = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="security_mark_one_row")]

    def __str__(self) -> str:
        return str(self.value)


class AuditQuerySet(models.QuerySet["AuditEvent"]):
    """Events are added; nothing else is ever done to them."""

    def update(self, **_: Any) -> int:
        raise AppendOnly

    def delete(self) -> tuple[int, dict[str, int]]:
        raise AppendOnly


class AppendOnly(Exception):
    """An audit event is never changed or deleted."""


class AuditEvent(models.Model):
    """Who did what to what, and what came of it. No foreign keys: it outlives what it names."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(auto_now_add=True)
    actor_id = models.UUIDField(null=True, help_text="The account; empty: the server itself.")
    actor_name = models.CharField(max_length=150, blank=True, help_text="The account's name at that time.")
    credential_id = models.UUIDField(null=True, help_text="The key or token that was shown.")
    action = models.CharField(max_length=100)
    resource_kind = models.CharField(max_length=50)
    resource_name = models.CharField(max_length=255)
    outcome = models.CharField(max_length=50)
    trace_id = models.CharField(max_length=32, blank=True)
    data_json = models.TextField(default="{}")

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ["-at"]
        indexes = [
            # In the order of the list to the last, and with what it is filtered by: as those of runs.
            models.Index(fields=["-at", "-id", "action", "outcome"], name="audit_at"),
            models.Index(fields=["actor_id", "-at", "-id", "action", "outcome"], name="audit_actor"),
            models.Index(fields=["resource_name", "-at", "-id"], name="audit_resource"),
            models.Index(fields=["trace_id"], name="audit_trace"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_kind}:{self.resource_name} {self.outcome}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly
        super().save(*args, **kwargs)

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        raise AppendOnly
