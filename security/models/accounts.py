"""Accounts and roles with their grants, and the constraints that always hold.

The manager is here because Django's own commands call it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac
from uuid_utils.compat import uuid7

from protocol.domain.messages import SecurityLevel
from security.domain import policy
from security.domain.conditions import parse_conditions
from security.domain.second_factor import Requirement, is_required
from security.models.validators import validate_action_pattern, validate_conditions, validate_resource_pattern


class Role(models.Model):
    """What a kind of account may do; an account has any number of them."""

    name = models.CharField(
        max_length=100, unique=True, validators=[RegexValidator(r"\A[a-z0-9][a-z0-9_-]*\Z", "Use a-z, 0-9, - and _.")]
    )
    description = models.CharField(max_length=500, blank=True)
    minimum_level = models.CharField(
        "demanded security level",
        max_length=10,
        blank=True,
        choices=[(level.value, level.value) for level in SecurityLevel],
        help_text="What the role allows counts on connections of this level and above; empty: on all. What it denies "
        "counts on all.",
    )
    is_builtin = models.BooleanField(
        "built in", default=False, editable=False, help_text="Comes with the server and is not changed by hand."
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(minimum_level__in=["", *(level.value for level in SecurityLevel)]),
                name="security_role_level_known",
            ),
        ]

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
        help_text="tool:files.*, execution:*@own (only what the account owns), tool:*@label=production (only what "
        "bears the label), or *:* for everything.",
    )
    conditions = models.JSONField(
        default=dict,
        blank=True,
        validators=[validate_conditions],
        help_text='When the grant counts, as {"networks": ["10.0.0.0/8"], "minimum_level": "high"}; {}: always.',
    )

    class Meta:
        ordering = ["action_pattern", "resource_pattern", "effect"]
        constraints = [
            models.UniqueConstraint(
                fields=["role", "effect", "action_pattern", "resource_pattern", "conditions"],
                name="security_grant_unique",
            ),
            models.CheckConstraint(
                condition=Q(effect__in=[effect.value for effect in policy.Effect]), name="security_grant_effect_known"
            ),
        ]

    def __str__(self) -> str:
        words = parse_conditions(self.conditions).describe()
        return f"{self.effect} {self.action_pattern} on {self.resource_pattern}{f', only {words}' if words else ''}"


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
    second_factor_mark = models.UUIDField(
        null=True,
        editable=False,
        help_text="Another value with every second factor that is added or taken away; empty: there is none.",
    )
    sign_in_epoch = models.PositiveIntegerField(
        default=0, editable=False, help_text="Moved on, it ends everything that the account signed in to by password."
    )
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
    def has_second_factor(self) -> bool:
        return self.second_factor_mark is not None

    @property
    def needs_second_factor(self) -> bool:
        """Whether the password alone does not let in: there is a second factor, or the settings demand one."""
        requirement = Requirement(settings.MCP.require_second_factor)
        is_staff = self.is_staff or self.is_superuser
        return self.has_second_factor or is_required(requirement=requirement, is_staff=is_staff)

    @property
    def is_service(self) -> bool:
        return self.kind == self.Kind.SERVICE

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """What a sign-in by password is bound to: Django's, and what moves on when all sign-ins are ended too.

        With a second factor it is part of it, so that a sign-in from before it no longer counts; nor does one from
        before the settings demanded one.
        """
        factor = str(self.second_factor_mark) if self.needs_second_factor else ""
        return salted_hmac(
            "security.Account.session_auth_hash",
            f"{self.sign_in_epoch}:{factor}:{self.password}",
            secret=secret,
            algorithm="sha256",
        ).hexdigest()

    def clean(self) -> None:
        # The constraint says so too, but a form that does not show the password cannot check it.
        super().clean()
        if self.is_service and (self.is_staff or self.is_superuser):
            raise ValidationError("A service account cannot be staff or superuser.", code="service_not_staff")
